"""`scripts/report.py`: its figures for a made-up sweep, its files and refusals, and its page in a browser."""

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By

from ddjax.errors import InputError
from ddjax.experiments.reports import curves, panels, read, report

T_3_SEEDS, T_2_SEEDS = 4.302652730, 12.70620474  # 0.975 quantiles of Student's t, 2 and 1 degrees of freedom
ROUNDS = (0, 10, 20, 30)
ODD = "edges:nets/a&b<i>.txt"
# (algorithm, topology) → (final accuracy of seed 1 on 4 devices, bytes per device and round)
CURVES = {
    ("local", ""): (0.4, 0),
    ("dsgd", "ring"): (0.9, 1_000_000),
    ("distillation", "ring"): (0.8, 100_000),
    ("distillation", ODD): (0.7, 200_000),
}
LABELS = ["local", "D-SGD, ring", "distillation, ring", "distillation, edges:a&b<i>.txt"]
SIZES = dict.fromkeys(("local", "dsgd", "distillation"), (4, 8, 16))
DIVERGED = ("dsgd", "ring", 16, 2)
FAILED = ("distillation", "ring", 4, 0)


def accuracy(key, devices, seed, done):
    return (CURVES[key][0] + 0.01 * math.log2(devices / 4) + 0.02 * (seed - 1)) * done / ROUNDS[-1]


def make_sweep(folder, sizes=SIZES, **changes):
    """A sweep of systems on some numbers of devices, three seeds; `changes` are flags that follow from that number."""
    results, timings, failures = [], [], []
    for algorithm, topology in CURVES:
        for devices in sizes[algorithm]:
            for seed in range(3):
                key = (algorithm, topology)
                flags = {
                    "algorithm": algorithm,
                    "rounds": 30,
                    "seed": seed,
                    "dataset": "digits",
                    "examples_per_device": 400 // devices,  # set together with devices
                    "devices": devices,
                    "topology": topology,
                    "consensus": "tracking" if algorithm == "distillation" else "",
                    "distillation_weight": 10.0 if algorithm == "distillation" else "",
                    "target_accuracy": "0.5",
                }
                flags |= {name: value(devices) for name, value in changes.items() if flags[name] != ""}
                cell = {"cell": f"{algorithm}-{len(timings) + len(failures):010x}", "status": "done"}
                if (*key, devices, seed) == FAILED:
                    failures.append(cell | {"status": "failed", "reason": "out of <memory>"} | flags)
                    continue
                if (*key, devices, seed) == DIVERGED:
                    cell["status"] = "diverged"
                    failures.append(cell | {"reason": "the loss of device 3 is not finite"} | flags)
                for done in ROUNDS:
                    mean = accuracy(key, devices, seed, done)
                    metrics = {"round": done, "accuracy_mean": mean, "accuracy_min": mean / 2, "loss": ""}
                    metrics |= {"disagreement": 0.1 / devices, "bytes_sent_total": CURVES[key][1] * devices * done}
                    results.append(cell | flags | metrics)
                if cell["status"] == "done":
                    timings.append({"cell": cell["cell"], "seconds_train": 1, "us_per_device_step": devices + seed})
    folder.mkdir()
    tables = {"results": (results[0], results), "timings": (timings[0], timings)}
    tables["failures"] = (["cell", "status", "reason", *flags], failures)
    for name, (head, rows) in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, head)
            writer.writeheader()
            writer.writerows(rows)
    cells = list(dict.fromkeys(row["cell"] for row in results + failures))
    versions = {"python": "3.12.0", "jax": "0.10.2"}
    about = {"command": "sweep.py --devices=4,8 <&>", "cells": cells, "versions": versions}
    (folder / "sweep.json").write_text(json.dumps(about | {"backend": "cpu", "accelerators": ["cpu", "cpu"]}))
    return folder


def call(*arguments):
    """The exit code of report.py."""
    return report.main(["report.py", *map(str, arguments)])


@pytest.fixture
def sweep(tmp_path):
    return make_sweep(tmp_path / "sizes")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = make_sweep(tmp_path_factory.mktemp("sweeps") / "sizes")
    assert call(folder) == 0
    return folder / "report"


def summed_up(folder, goals=(), x=""):
    sweep = read.read([folder])
    found = curves.reach(sweep, curves.curves(sweep, x), list(goals))
    measures = ["accuracy", "worst_device", "disagreement", "time", "megabytes", *(f"to {goal:g}" for goal in goals)]
    return sweep, found, curves.summarize(found.cells, measures).set_index(["curve", "x"])


def test_labels_name_what_varies(sweep):
    """Neither flags that change with the devices, nor flags of only one system; a curve's flags may be blank."""
    _, found, table = summed_up(sweep)
    assert (found.x, found.naming, found.labels) == ("devices", ["algorithm", "topology"], LABELS)
    assert list(table.index) == [(curve, x) for curve in range(4) for x in (4, 8, 16)]


def test_means_and_intervals_are_over_the_seeds_that_are_done(sweep):
    _, _, table = summed_up(sweep)
    for curve, key in enumerate(CURVES):
        for devices in (4, 8, 16):
            lost = {seed for *cell, seed in (DIVERGED, FAILED) if tuple(cell) == (*key, devices)}
            seeds = [seed for seed in range(3) if seed not in lost]
            values = np.array([accuracy(key, devices, seed, 30) for seed in seeds])
            quantile = T_2_SEEDS if lost else T_3_SEEDS
            half = quantile * np.sqrt(np.sum((values - values.mean()) ** 2) / (len(seeds) - 1) / len(seeds))
            row = table.loc[(curve, devices)]
            assert row["done"] == len(seeds)
            np.testing.assert_allclose([row["accuracy"], row["± accuracy"]], [values.mean(), half], rtol=1e-8)
            np.testing.assert_allclose(row["worst_device"], values.mean() / 2)
            np.testing.assert_allclose(row["disagreement"], 0.1 / devices)
            np.testing.assert_allclose(row["time"], devices + np.mean(seeds))
            np.testing.assert_allclose(row["megabytes"], CURVES[key][1] * 30 / 1e6)
    assert table.loc[(1, 16), ["diverged", "failed"]].tolist() == [1, 0]
    assert table.loc[(2, 4), ["diverged", "failed"]].tolist() == [0, 1]


def test_one_seed_has_no_interval():
    mean, half = curves.interval(np.array([0.5]))
    assert mean == 0.5
    assert math.isnan(half)


def test_bytes_to_a_target_are_counted_by_hand(sweep):
    """At the first evaluation that reaches it, if every finished seed did."""
    _, _, table = summed_up(sweep, [0.5, 0.7])
    # A third of the way all are at most 0.3. Two thirds of 0.9 ± 0.02 and of 0.8 exceed 0.5; two thirds of 0.7 do not.
    for curve, done in ((1, 20), (2, 20), (3, 30)):
        sent = list(CURVES.values())[curve][1] * done / 1e6
        expected = [sent, sent, math.nan if curve == 1 else sent]  # a seed of D-SGD diverged on 16 devices
        np.testing.assert_allclose(table.loc[curve, "to 0.5"], expected)
    assert table.loc[0, "to 0.5"].isna().all()
    assert math.isnan(table.loc[(3, 4), "to 0.7"])  # the mean is 0.7, a seed 0.68
    np.testing.assert_allclose(table.loc[(3, 16), "to 0.7"], 6)


def test_a_target_is_picked_that_all_seeds_of_two_curves_reach(sweep, tmp_path):
    """Of D-SGD 0.88 + 0.01 on 8 devices, of the next 0.78 + 0.02 on 16; said in the caption."""
    for name in ("results", "failures"):
        table = read._table(sweep / f"{name}.csv").assign(target_accuracy="")
        table.to_csv(sweep / f"{name}.csv", index=False)
    _, found, _ = summed_up(sweep)
    assert curves.silent_curves(found.cells) == {0}
    assert curves.pick_target(found.cells) == [0.8]
    assert call(sweep, f"--output={tmp_path / 'out'}") == 0
    assert (tmp_path / "out" / "bytes_to_target_vs_devices-target=0.8.png").exists()
    assert "No target was given: this is the largest multiple" in (tmp_path / "out" / "report.html").read_text()


def test_x_is_given_or_found(tmp_path):
    _, found, table = summed_up(make_sweep(tmp_path / "none", dict.fromkeys(SIZES, (8,))))
    assert (found.x, found.labels) == ("", LABELS)
    assert table.index.get_level_values("curve").tolist() == [0, 1, 2, 3]
    folder = make_sweep(tmp_path / "other", devices=lambda size: 8)
    sweep, found, _ = summed_up(folder)
    assert (found.x, found.labels) == ("examples_per_device", LABELS)
    with pytest.raises(InputError, match="got 'devices'; accepted: examples_per_device"):
        curves.curves(sweep, "devices")
    sweep, found, _ = summed_up(make_sweep(tmp_path / "both", examples_per_device=lambda size: 50 + size))
    assert found.x == "devices"
    assert curves.curves(sweep, "examples_per_device").labels == LABELS


def test_a_curve_that_does_not_use_x_is_drawn_at_each_of_its_values(tmp_path):
    sizes = {"local": (8,), "dsgd": (8,), "distillation": (4, 8, 16)}
    fixed = {"devices": lambda size: 8, "examples_per_device": lambda size: 50}
    folder = make_sweep(tmp_path / "weights", sizes, **fixed, distillation_weight=float)
    sweep, found, _ = summed_up(folder)
    assert (found.x, found.labels) == ("distillation_weight", LABELS)
    table = curves.summarize(found.cells, [*panels.measures_of(sweep)])
    lines = {panel.name: panel.lines for panel in panels.panels(sweep, found, table, [], False)}
    assert len(lines["accuracy_vs_rounds-distillation_weight=4"]) == 4
    assert [line.x.tolist() for line in lines["accuracy_vs_distillation_weight"]] == 4 * [[4, 8, 16]]
    assert np.ptp(lines["accuracy_vs_distillation_weight"][0].mean) == 0


def test_what_was_measured_on_validation_examples_is_named_so(tmp_path):
    sweep, found, table = summed_up(make_sweep(tmp_path / "sizes"))
    trials = sweep._replace(cells=sweep.cells.assign(evaluate_on="validation"))
    for one, kind in ((sweep, "test"), (trials, "validation")):
        drawn = {panel.name: panel for panel in panels.panels(one, found, table.reset_index(), [], False)}
        assert drawn["accuracy_vs_rounds-devices=8"].labels == ("round", f"mean {kind} accuracy")
        assert drawn["accuracy_vs_devices"].caption.startswith(f"Mean {kind} accuracy over devices")
        assert drawn["worst_device_vs_devices"].caption.startswith(f"{kind.capitalize()} accuracy of the worst device")


def test_labels_tell_apart_what_is_left_at_its_default(tmp_path):
    sweep = read.read([make_sweep(tmp_path / "sizes")])
    cells = sweep.cells[sweep.cells["topology"] == "ring"]
    kinds = cells.assign(algorithm="dsgd", topology="ring", consensus="", compressor="", distillation_weight="")
    kinds.loc[cells["algorithm"] == "distillation", "compressor"] = "uint8"
    found = curves.curves(sweep._replace(cells=kinds, names=[*sweep.names, "compressor"]))
    assert found.labels == ["compressor=default", "compressor=uint8"]


def test_what_a_report_leaves(reported):
    there = {path.name for path in reported.iterdir()}
    figures = [f"{name}_vs_devices" for name in ("accuracy", "worst_device", "disagreement", "time")]
    figures += ["bytes_to_target_vs_devices-target=0.5"]
    figures += [f"accuracy_vs_{name}-devices={x}" for name in ("rounds", "bytes") for x in (4, 8, 16)]
    assert there == {"report.html", *(f"{name}.{kind}" for name in figures for kind in ("pdf", "png"))}
    assert (reported / "accuracy_vs_devices.pdf").read_bytes().startswith(b"%PDF")
    text = (reported / "report.html").read_text()
    assert "36 cells: 34 done, 1 diverged, 1 failed. 4 curves over 3 values of devices, 2 to 3 seeds each." in text
    assert "edges:a&amp;b&lt;i&gt;.txt" in text
    assert "<i>" not in text
    assert "out of &lt;memory&gt;" in text
    assert "sweep.py --devices=4,8 &lt;&amp;&gt;" in text
    assert "Left out, because nothing is sent: local." in text


@pytest.mark.slow
def test_a_report_is_made_anew_in_its_place(tmp_path):
    sweep, out = make_sweep(tmp_path / "small", dict.fromkeys(SIZES, (8,))), tmp_path / "out"
    assert call(sweep, f"--output={out}", "--target_accuracy=0.6") == 0
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert call(sweep, f"--output={out}", "--target_accuracy=0.6") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert call(sweep, f"--output={out}", "--target_accuracy=0.7") == 0
    there = {path.name for path in out.iterdir()}
    assert {"bytes_to_target_vs_curves-target=0.7.pdf", "report.html"} < there
    assert "bytes_to_target_vs_curves-target=0.6.pdf" not in there


@pytest.mark.parametrize("foreign", [["notes.txt"], ["report.html"], ["accuracy_vs_devices.pdf"]])
def test_a_folder_that_holds_other_things_is_left_alone(sweep, tmp_path, capsys, foreign):
    out = tmp_path / "out"
    out.mkdir()
    for name in foreign:
        (out / name).write_text("mine")
    assert call(sweep, f"--output={out}") == 2
    assert f"holds {foreign[0]!r}, which no report wrote" in one_line(capsys)
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(foreign, "mine")


def test_a_file_added_to_a_report_is_seen(reported, capsys):
    (reported / "notes.txt").write_text("mine")
    try:
        assert call(reported.parent) == 2
    finally:
        (reported / "notes.txt").unlink()
    assert "holds 'notes.txt'" in one_line(capsys)


def one_line(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("name", ["sweep.json", "results.csv", "timings.csv", "failures.csv"])
def test_what_is_missing_or_damaged_is_told_in_one_line(sweep, capsys, name):
    whole = (sweep / name).read_bytes()
    for damaged in (b"", b"\xff\x00", b"[1]", whole[: len(whole) // 2], whole.replace(b"cell", b"sell")):
        (sweep / name).write_bytes(damaged)
        assert call(sweep) == 2, damaged
        assert f"{str(sweep / name)!r} cannot be read: " in one_line(capsys)
    (sweep / name).unlink()
    assert call(sweep) == 2
    assert f"{str(sweep / name)!r} is missing" in one_line(capsys)
    assert not (sweep / "report").exists()


def test_what_is_wrong_is_told_in_one_line(sweep, tmp_path, capsys):
    for arguments, words in (
        ([], "name the folder of a sweep"),
        ([sweep, sweep], "--output"),
        ([sweep, "--target_accuracy=2"], "numbers in (0, 1]"),
        ([sweep, "--x=topology"], "x must be a numeric flag"),
        ([sweep, f"--output={sweep / 'sweep.json'}"], "is a file"),
        ([tmp_path], "sweep.json' is missing"),
    ):
        assert call(*arguments) == 2
        assert words in one_line(capsys)


def test_a_sweep_with_nothing_done_is_told_in_one_line(sweep, capsys):
    results = (sweep / "results.csv").read_text()
    (sweep / "results.csv").write_text(results.replace(",done,", ",diverged,"))
    assert call(sweep) == 2
    assert "no cell is done" in one_line(capsys)
    (sweep / "results.csv").write_text(results.splitlines()[0] + "\n")
    assert call(sweep) == 2
    assert "no cell has finished yet" in one_line(capsys)


def test_two_sweeps_are_one_and_a_cell_of_both_counts_once(sweep, tmp_path):
    other = shutil.copytree(sweep, tmp_path / "more")
    for name in ("results", "timings"):
        whole = (other / f"{name}.csv").read_text()
        (other / f"{name}.csv").write_text(re.sub(r"(?m)^local-.*\n", "", whole))
    _, found, table = summed_up(sweep)
    both = read.read([other, sweep])
    assert curves.curves(both).labels == found.labels
    cells = curves.curves(both).cells
    again = curves.summarize(cells, ["accuracy", "time"]).set_index(["curve", "x"])
    np.testing.assert_allclose(again["± accuracy"], table["± accuracy"])
    np.testing.assert_allclose(again["time"], table["time"])


@pytest.fixture
def browser(tmp_path):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    wanted = webdriver.ChromeOptions()
    wanted.binary_location = chromium
    for option in (
        "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        f"--disable-component-update --disable-sync --user-data-dir={tmp_path / 'profile'}"
    ).split():
        wanted.add_argument(option)
    wanted.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(wanted, webdriver.ChromeService(driver))
    started.set_window_size(1200, 900)
    yield started
    started.quit()


def test_the_page_in_a_browser(reported, browser):
    browser.get((reported / "report.html").as_uri())

    def visible(curve):
        """For each figure with the curve, whether its parts are visible."""
        parts = browser.find_elements(By.CSS_SELECTOR, f"figure [data-curve='{curve}']")
        script = "return arguments[0].map(part => [part.closest('figure').id, part.getClientRects().length > 0])"
        found = {}
        for figure, seen in browser.execute_script(script, parts):
            found.setdefault(figure, set()).add(seen)
        return found

    buttons = browser.find_elements(By.CSS_SELECTOR, "[data-toggles]")
    assert [button.text for button in buttons] == LABELS
    figures = len(browser.find_elements(By.TAG_NAME, "figure"))
    assert figures == 11
    assert len(visible(0)) == figures - 4  # it sends nothing
    assert len(visible(1)) == figures
    everywhere = {figure: {True} for figure in visible(1)}
    assert visible(1) == everywhere
    place = marker(browser, "accuracy_vs_devices", 1, 1)
    buttons[1].click()
    assert buttons[1].get_attribute("aria-pressed") == "false"
    assert visible(1) == {figure: {False} for figure in everywhere}
    assert visible(2) == everywhere
    assert hover(browser, place).startswith(LABELS[2])  # the nearest that is shown
    buttons[1].click()
    assert buttons[1].get_attribute("aria-pressed") == "true"
    assert visible(1) == everywhere
    half = T_3_SEEDS * 0.02 / math.sqrt(3)
    for curve, mean in ((1, 0.91), (3, 0.71)):
        text = hover(browser, marker(browser, "accuracy_vs_devices", curve, 1))

        assert text == f"{LABELS[curve]}\ndevices: 8\nmean test accuracy: {mean:.3f} ± {half:.2g}"
    place = marker(browser, "accuracy_vs_rounds-devices=16", 0, 2)
    assert hover(browser, place).startswith("local\nround: 20\n")

    heading = browser.find_element(By.XPATH, "//*[@id='results']//th[button[text()='mean accuracy']]")
    for direction in ("ascending", "descending"):
        heading.find_element(By.TAG_NAME, "button").click()
        assert heading.get_attribute("aria-sort") == direction
        shown = [float(text.split()[0]) for text in column(browser, 3)]
        assert shown == sorted(shown, reverse=direction == "descending")
        assert len(shown) == 12
    browser.find_element(By.XPATH, "//*[@id='results']//th/button[text()='devices']").click()
    assert [int(text) for text in column(browser, 1)] == 4 * [4] + 4 * [8] + 4 * [16]
    browser.find_element(By.XPATH, "//*[@id='results']//th/button[text()='MB to 0.5']").click()
    assert column(browser, 7)[-4:] == 4 * ["–"]  # missing values come last

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    assert browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert all(url.startswith(("file:", "data:", "chrome:")) for url in asked)
    assert browser.get_log("browser") == []


def marker(browser, figure, curve, point):
    """Position of a marker of a curve in the window, after scrolling there."""
    markers = browser.find_elements(By.CSS_SELECTOR, f"[id='{figure}'] [data-curve='{curve}']:has(> path) use")
    script = """
        arguments[0].scrollIntoView({block: "center"});
        const box = arguments[0].getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2].map(Math.round);
    """
    return browser.execute_script(script, markers[point])


def hover(browser, place):
    """Text at that place."""
    actions = ActionBuilder(browser)
    actions.pointer_action.move_to_location(*place)
    actions.perform()
    return browser.find_element(By.ID, "tip").text


def column(browser, number):
    rows = browser.find_elements(By.CSS_SELECTOR, "#results tbody tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[number].text for row in rows]
