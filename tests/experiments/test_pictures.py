"""Scores of devices that a run keeps, and what is drawn of them."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from commands import FAST, call, settings
from matplotlib.markers import MarkerStyle
from test_report import make_sweep, summed_up

from ddjax.algorithms import ALGORITHMS
from ddjax.experiments import build, files, plots, run_folder
from ddjax.experiments.layouts import places
from ddjax.experiments.looks import COLORS, STYLES, Figure, looks
from ddjax.experiments.network_figure import Links, Run, merged, network_figure, read_run, shown_rounds
from ddjax.experiments.reports import figures, networks, panels
from ddjax.experiments.run_folder import RunFolder, resumed
from ddjax.networks.graphs import ring, torus

MIXED = [*FAST, "--models=linear:1+mlp:1+linear:2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 6 rounds with checkpoints at 3 and 6, and its events for TensorBoard."""
    out = tmp_path_factory.mktemp("pictures") / "run"
    assert call(*MIXED, "--checkpoint_every=3", "--tensorboard", f"--output_dir={out}") == 0
    return out


def test_layouts():
    links = np.array(list(ring(8, 0).edges))
    at = places(8, links)
    np.testing.assert_allclose(np.hypot(*at.T), 1)
    sides = np.linalg.norm(at[links[:, 0]] - at[links[:, 1]], axis=1)
    np.testing.assert_allclose(sides, 2 * math.sin(math.pi / 8))  # neighbours are next to each other
    graph = sorted(torus(12, 0).nodes)
    at = places(12, np.array([[0, 1]]), "torus")
    np.testing.assert_allclose((at - at[0]) / (at[1, 0] - at[0, 0]), [(column, -row) for row, column in graph])
    at = places(6, np.array([[6, n] for n in range(6)]), server=True)
    assert at.shape == (7, 2)
    np.testing.assert_array_equal(at[6], 0)
    assert len(np.unique(places(7, np.empty((0, 2), int)), axis=0)) == 7  # nobody is linked
    hub = places(6, np.array([[2, n] for n in (0, 1, 3, 4, 5)]))
    np.testing.assert_array_equal(hub[2], 0)


def test_scores_of_devices_are_those_of_the_evaluations(finished):
    table, metrics = pd.read_csv(finished / "devices.csv"), pd.read_csv(finished / "metrics.csv")
    assert list(table) == ["round", "device", "model", "accuracy"]
    assert table["round"].tolist() == 4 * [0] + 4 * [3] + 4 * [6]
    assert table["device"].tolist() == 3 * [0, 1, 2, 3]
    assert table["model"].tolist() == 3 * ["linear", "mlp", "linear", "linear"]
    history = build(settings(*MIXED)).run()
    np.testing.assert_allclose(table["accuracy"], np.concatenate([one.score for one in history]), atol=1e-6)
    found = table.groupby("round")["accuracy"].agg(["mean", "min", "max"])
    np.testing.assert_allclose(found, metrics[[f"accuracy_{kind}" for kind in found]], rtol=1e-6)


def test_a_resumed_run_has_the_scores_of_an_undisturbed_one(tmp_path, finished, capsys):
    """Killed after the evaluation of round 6, before its checkpoint, with a line that is cut short."""
    cut = shutil.copytree(finished, tmp_path / "cut")
    shutil.rmtree(cut / "checkpoints" / "6")
    with (cut / "devices.csv").open("a") as file:
        file.write("9,0,linear,0.12\r\n9,1,ml")
    resume = [*MIXED, "--checkpoint_every=3", f"--output_dir={cut}", "--resume"]
    assert call(*resume) == 0
    assert (cut / "devices.csv").read_bytes() == (finished / "devices.csv").read_bytes()
    header = b"round,device,model,accuracy\n"
    for damaged in (b"nothing\n", header + b"x,0,linear,0.1\n", header + b"3,0,linear,0.1\n0,0,linear,0.1\n"):
        (cut / "devices.csv").write_bytes(damaged)
        assert call(*resume) == 2
        assert "devices.csv' is damaged" in capsys.readouterr().err
        assert (cut / "devices.csv").read_bytes() == damaged
    (cut / "devices.csv").unlink()  # as in a run of an earlier version
    assert call(*resume) == 0
    assert set(pd.read_csv(cut / "devices.csv")["round"]) == {6}


def test_a_run_that_is_killed_while_its_tables_are_cut_can_be_resumed(tmp_path, finished, monkeypatch):
    """Killed between the two tables; a table is either whole or cut, and earlier rows stay as they were."""
    out = tmp_path / "cut"
    out.mkdir()
    shutil.copy(finished / "config.json", out)
    metrics, devices = out / "metrics.csv", out / "devices.csv"
    whole = {path: (finished / path.name).read_bytes() for path in (metrics, devices)}
    again = resumed(settings("--resume", f"--output_dir={out}"), {"resume", "output_dir"})
    built = build(again)

    def create(round):
        folder = RunFolder(again)
        try:
            folder.create(built, round)
        finally:
            folder.close()

    def killed(path, length):
        if path == devices:
            raise KeyboardInterrupt
        files.cut(path, length)

    for round in (9, 6, 4, 3, 0):
        for path, text in whole.items():
            path.write_bytes(text + b"9,0,0.12")
        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "cut", killed)
            with pytest.raises(KeyboardInterrupt):
                create(round)
        kept = {path: rows_before(round, text) for path, text in whole.items()}
        assert metrics.read_bytes() == kept[metrics]
        assert devices.read_bytes() == whole[devices] + b"9,0,0.12"
        create(round)
        assert {path: path.read_bytes() for path in whole} == kept
    devices.write_bytes(b"round,dev")
    create(3)
    assert devices.read_bytes() == b""


def rows_before(round, text):
    header, *lines = text.splitlines(keepends=True)
    return header + b"".join(line for line in lines if int(line.split(b",")[0]) < round)


def test_the_network_of_a_run_is_drawn_from_its_tables(tmp_path, finished, capsys):
    assert (finished / "network.png").read_bytes().startswith(b"\x89PNG")
    figure = tmp_path / "network.pdf"
    assert plots.main(["plots.py", "--network", str(figure), str(finished)]) == 0
    assert figure.read_bytes().startswith(b"%PDF")
    run = read_run(finished, {"topology": "ring"})
    pairs, sent, both = merged(run.links)
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == set(map(tuple, map(sorted, ring(4, 0).edges)))
    assert both.all()
    np.testing.assert_array_equal(sent, 2 * 6 * 64 * 10 * 4)  # ways × rounds × payload
    axes = network_figure(run, "distillation").axes[:3]
    table = pd.read_csv(finished / "devices.csv")
    for axis, (round, scores) in zip(axes, table.groupby("round"), strict=True):
        assert axis.get_title().startswith(f"round {round}\nmean {scores['accuracy'].mean():.3f}, worst")
        linear, mlp = (marks.get_array() for marks in axis.collections[1:3])
        np.testing.assert_allclose(linear, scores["accuracy"].to_numpy()[[0, 2, 3]])
        np.testing.assert_allclose(mlp, scores["accuracy"].to_numpy()[[1]])
    (tmp_path / "run").mkdir()
    shutil.copy(finished / "config.json", tmp_path / "run")
    capsys.readouterr()
    assert plots.main(["plots.py", "--network", str(figure), str(tmp_path / "run")]) == 2
    assert "devices.csv' is missing" in capsys.readouterr().err


def test_the_legend_names_what_is_drawn():
    models, links = np.array(["linear", "mlp"]), Links(np.array([[0, 1], [1, 0]]), np.array([5e11, 1e12]))
    for scores, circle in (([[0.5, 0.5], [0.4, 0.6]], ["worst device"]), ([[0.5, 0.5]], [])):
        rounds = list(range(len(scores)))
        figure = network_figure(Run({}, "accuracy", rounds, np.array(scores), models, links, True), "distillation")
        assert legend_of(figure) == [("linear", "o"), ("mlp", "s"), *((name, "o") for name in circle)]
        assert figure.get_suptitle().endswith("1 link, 1.5 TB over each")


def legend_of(figure):
    return [(line.get_label(), line.get_marker()) for line in figure.legends[0].legend_handles]


def test_many_devices_are_squares_without_links():
    scores = np.random.default_rng(0).uniform(size=(2, 5000))
    run = Run({}, "accuracy", [0, 10], scores, np.array(["linear"] * 5000), Links(np.empty((0, 2), int), []), True)
    figure = network_figure(run, "distillation")
    shown = figure.axes[1].images[0].get_array().ravel()
    np.testing.assert_allclose(shown[:5000].filled(np.nan), scores[1])
    assert "links are drawn for up to 400 devices" in figure.get_suptitle()


def test_rounds_that_are_shown():
    assert shown_rounds(range(0, 1001, 100)) == [0, 200, 500, 1000]
    assert shown_rounds([0, 5]) == [0, 5]
    assert shown_rounds([0, 3, 6, 9]) == [0, 3, 6, 9]


def test_a_system_looks_the_same_in_every_report(tmp_path):
    assert len(set(looks([(name, "") for name in ALGORITHMS]))) == len(list(ALGORITHMS))
    few, many = ["dsgd", "local"], ["local", "fedavg", "choco", "distillation", "dsgd", "mine"]
    of_few, of_many = (dict(zip(names, looks([(n, "") for n in names]), strict=True)) for names in (few, many))
    assert {name: of_many[name] for name in few} == of_few
    variants = [("distillation", "consensus=tracking"), ("distillation", ""), *((f"x{n}", "") for n in range(20))]
    found = looks(variants)
    assert found[1] == of_many["distillation"]
    assert len(set(found)) == len(variants) < len(COLORS) * len(STYLES)
    _, whole, _ = summed_up(make_sweep(tmp_path / "whole"))
    assert whole.looks[:3] == looks([(name, "") for name in ("local", "dsgd", "distillation")])
    assert len(set(whole.looks)) == 4


@pytest.mark.parametrize("logarithmic", ["", "y"])
def test_wide_intervals_do_not_stretch_an_axis(logarithmic):
    """Two seeds at 0.5 ± 0.02 have an interval of ± 0.25."""
    x, mean, half = np.arange(1.0, 3.0), np.array([0.5, 0.7]), np.array([0.254, 0.001])
    line = figures.Line(0, x, mean, half, np.array([0.48, 0.7]), np.array([0.52, 0.7]))
    axis = Figure().subplots()
    figures._draw_line(axis, line, 0, fine=False)
    figures._scale(axis, figures.Panel("name", ("x", "y"), [line], "", logarithmic))
    low, high = axis.get_ylim()
    assert 0.3 < low < 0.4  # half the range of the seeds below them, and a margin
    assert 0.754 < high < 0.83
    assert "are cut" in axis.get_title(loc="right")
    axis = Figure().subplots()
    whole = line._replace(half=np.array([0.001, 0.001]))
    figures._draw_line(axis, whole, 0, fine=False)
    figures._scale(axis, figures.Panel("name", ("x", "y"), [whole], "", logarithmic))
    assert not axis.get_title(loc="right")


def test_no_axis_leaves_what_is_possible():
    """Accuracies of 0.9 ± 0.3 end at 1, and 0.1 ± 0.3 at 0, but for the margin."""
    line = figures.Line(0, np.arange(2.0), np.array([0.1, 0.9]), np.array([0.3, 0.3]))
    axis = Figure().subplots()
    figures._draw_line(axis, line, 0, fine=False)
    figures._scale(axis, figures.Panel("name", ("x", "mean test accuracy"), [line], ""))
    assert axis.get_ylim() == pytest.approx((-0.05, 1.05))


def test_a_report_draws_the_devices_that_a_sweep_has_kept(tmp_path, monkeypatch):
    folder = make_sweep(tmp_path / "sizes")
    cells = pd.read_csv(folder / "results.csv").query("status == 'done'").drop_duplicates("cell")
    rng, scores = np.random.default_rng(0), {}
    for cell in cells.itertuples():
        kept = folder / "cells" / cell.cell
        kept.mkdir(parents=True)
        scores[cell.algorithm, cell.topology, cell.devices, cell.seed] = own = rng.uniform(0.2, 0.9, cell.devices)
        model = "linear" if cell.algorithm == "local" else "mlp"
        table = pd.DataFrame({"round": 30, "device": range(cell.devices), "model": model, "accuracy": own})
        table.to_csv(kept / "devices.csv", index=False)
        ways = {} if cell.algorithm == "local" else {"peer": {"model": 4}}
        (kept / "summary.json").write_text(json.dumps({"message_bytes": ways}))
    sweep, found, table = summed_up(folder)
    made = {one.name: one for one in panels.panels(sweep, found, table.reset_index(), [], False)}
    line = made["accuracy_of_devices-devices=8"].lines[2]
    own = np.array([np.sort(scores["distillation", "ring", 8, seed]) for seed in range(3)])
    np.testing.assert_allclose(line.mean[[0, -1]], own.mean(0)[[0, -1]])
    np.testing.assert_allclose(np.interp(np.arange(8) / 7, line.x, line.mean), own.mean(0), atol=0.03)
    drawn = []
    monkeypatch.setattr(networks, "save", lambda figure, **kinds: drawn.append(figure) or figures.save(figure, **kinds))
    panel, drawing = networks.networks(sweep, found)
    names = legend_of(drawn[0])
    assert names == [("linear", "o"), ("mlp", "s"), ("worst device", "o")]
    for axis, model in zip(drawn[0].axes, ["linear", "mlp", "mlp", "mlp"], strict=False):
        (marks,) = (marks for marks in axis.collections if marks.get_array() is not None)
        style = MarkerStyle(dict(names)[model])
        shape = style.get_path().transformed(style.get_transform())
        np.testing.assert_array_equal(marks.get_paths()[0].vertices, shape.vertices)
    assert "at devices = 16" in panel.caption
    assert all(f'data-curve="{curve}"' in drawing.svg for curve in range(4))
    links = networks._links(folder / "cells" / cells.cell.iloc[-1], {"topology": "ring", "seed": "0"}, 16)
    assert {tuple(sorted(pair)) for pair in links.ends.tolist()} == set(map(tuple, map(sorted, ring(16, 0).edges)))
    assert networks.networks(sweep._replace(folders={}), found) is None


def test_what_tensorboard_reads(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    kinds = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]}
    assert kinds["accuracy_of_devices"] == "histograms"
    table = pd.read_csv(finished / "devices.csv")
    for event, (round, scores) in zip(events.Tensors("accuracy_of_devices"), table.groupby("round"), strict=True):
        bins = make_ndarray(event.tensor_proto)
        assert event.step == round
        assert bins[:, 2].sum() == 4
        np.testing.assert_allclose([bins[0, 0], bins[-1, 1]], [scores["accuracy"].min(), scores["accuracy"].max()])
    text = make_ndarray(events.Tensors("settings")[0].tensor_proto).item().decode()
    assert "| models | linear:1+mlp:1+linear:2 |" in text
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert parse_session_start_info_plugin_data(content).hparams["rounds"].number_value == 6
    for name in ("learning_curves", "network"):
        assert kinds[name] == "images"
        (event,) = events.Tensors(name)
        assert make_ndarray(event.tensor_proto)[2] == (finished / f"{name}.png").read_bytes()
