"""Files as people have them: another format gives the same numbers, and a mistake gives one line."""

import numpy as np
import pytest
from commands import call, rows, summary

SMALL = ["--devices=4", "--models=linear", "--rounds=60", "--eval_every=30"]
RNG = np.random.default_rng(0)


def trained(tmp_path, name, *flags):
    """The rows that a run on a file writes."""
    out = tmp_path / f"run-{name}"
    assert call(*SMALL, *flags, f"--output_dir={out}") == 0
    return rows(out)


def save(tmp_path, name, x, y):
    path = tmp_path / f"{name}.npz"
    np.savez(path, x_train=x[100:], y_train=y[100:], x_test=x[:100], y_test=y[:100])
    return f"--dataset={path}"


@pytest.mark.slow
def test_labels_written_five_ways_end_with_the_same_numbers(tmp_path):
    centers, labels = RNG.normal(size=(3, 5)), RNG.integers(3, size=500)
    x = (centers[labels] + 0.3 * RNG.normal(size=(500, 5))).astype(np.float32)
    ways = {
        "zero": labels,
        "one": labels + 1,
        "float": labels.astype(float),
        "column": labels[:, None],
        "hot": np.eye(3)[labels],
        "words": np.array(["a", "b", "c"])[labels],
    }
    found = {name: trained(tmp_path, name, save(tmp_path, name, x, y)) for name, y in ways.items()}
    assert all(table == found["zero"] for table in found.values())
    assert float(found["zero"][-1]["accuracy_mean"]) > 0.9
    assert found["zero"][-1]["bytes_sent_total"] == str(
        8 * 60 * 3 * 4 * 64
    )  # links, rounds, classes, float32, examples


def test_labels_that_differ_by_a_space_end_with_the_same_numbers(tmp_path):
    x = RNG.normal(size=(300, 2))
    clean = ["yes" if row.sum() > 0 else "no" for row in x]
    spaced = [f"{label} " if n % 3 else label for n, label in enumerate(clean)]
    found = []
    for name, labels in (("clean", clean), ("spaced", spaced)):
        path = tmp_path / f"{name}.csv"
        lines = [f"{a},{b},{label}" for (a, b), label in zip(x.tolist(), labels, strict=True)]
        path.write_text("\n".join(["a,b,y", *lines]))
        flags = [f"--dataset={path}", "--target_column=y", "--rounds=600", "--eval_every=600"]
        found.append(trained(tmp_path, name, *flags))
    assert found[0] == found[1]
    assert float(found[0][-1]["accuracy_mean"]) > 0.9


def test_pixels_of_any_kind_end_with_the_same_numbers(tmp_path):
    """Integers or floating-point numbers from 0 to 255, channels last or first."""
    labels = RNG.integers(3, size=500)
    pixels = RNG.integers(0, 100, size=(500, 6, 6, 4))
    pixels[np.arange(500), :, labels] += 150
    whole = trained(tmp_path, "whole", save(tmp_path, "whole", pixels.astype(np.uint8), labels))
    assert float(whole[-1]["accuracy_mean"]) > 0.9
    floating = trained(tmp_path, "float", save(tmp_path, "float", pixels.astype(np.float32), labels))
    first = trained(tmp_path, "first", save(tmp_path, "first", pixels.astype(np.uint8).transpose(0, 3, 1, 2), labels))
    assert first == whole
    for a, b in zip(floating, whole, strict=True):
        assert float(a["accuracy_mean"]) == pytest.approx(float(b["accuracy_mean"]), abs=1e-6)


def test_a_missing_value_costs_one_row(tmp_path):
    """One missing value among 400 numbers: the target is still learned, up to the noise of that row."""
    a, b = RNG.normal(size=(2, 400))
    found = {}
    for name, sign in (("clean", f"{a[7]}"), ("question", "?")):
        lines = [f"{sign if n == 7 else a[n]},{b[n]},{2 * a[n] - b[n]}" for n in range(400)]
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(["a,b,y", *lines]))
        flags = [f"--dataset={path}", "--target_column=y", "--rounds=600", "--eval_every=600"]
        found[name] = float(trained(tmp_path, name, *flags)[-1]["mse_mean"])
    assert found["clean"] < 1e-3
    assert found["question"] < 0.02


def test_rare_columns_do_not_blow_up(tmp_path):
    """Twelve columns that are 1 in one row of 500, beside one informative column."""
    a = RNG.normal(size=500)
    dummies = np.zeros((500, 12), int)
    dummies[np.arange(12) * 40, np.arange(12)] = 1
    lines = [f"{a[n]},{','.join(map(str, dummies[n]))},{a[n] + 0.01 * n / 500}" for n in range(500)]
    path = tmp_path / "rare.csv"
    path.write_text("\n".join([f"a,{','.join(f'd{n}' for n in range(12))},y", *lines]))
    found = trained(tmp_path, "rare", f"--dataset={path}", "--target_column=y", "--rounds=400", "--eval_every=400")
    assert float(found[-1]["mse_max"]) < 0.02


def test_a_graph_written_three_ways_ends_with_the_same_numbers(tmp_path):
    ways = {
        "plain": "0 1\n1 2\n2 3\n3 0\n",
        "networkx": "0 1 {}\n1 2 {}\n2 3 {}\n3 0 {}\n",
        "one": "1 2\n2 3\n3 4\n4 1\n",
    }
    found = []
    for name, text in ways.items():
        (tmp_path / f"{name}.edges").write_text(text)
        found.append(trained(tmp_path, name, f"--topology=edges:{tmp_path / name}.edges"))
    assert found[0] == found[1] == found[2] == trained(tmp_path, "ring", "--topology=ring")


def test_a_flag_file_of_a_windows_editor(tmp_path):
    path = tmp_path / "bom.flags"
    path.write_bytes("\ufeff# a run\r\n--devices=3\r\n--rounds=2\r\n".encode())
    out = tmp_path / "run"
    assert call("--models=linear", f"--flagfile={path}", f"--output_dir={out}") == 0
    assert (summary(out)["devices"], summary(out)["rounds"]) == (3, 2)


def test_a_small_table_trains_with_the_default_flags(tmp_path):
    """The reference minibatch is at most the reference set, and the step size fits the data."""
    a = 1000 * RNG.normal(size=40)
    path = tmp_path / "small.csv"
    path.write_text("\n".join(["a,y", *(f"{value},{3 * value + 7}" for value in a)]))
    out = tmp_path / "run"
    assert call("--devices=4", f"--dataset={path}", "--target_column=y", "--rounds=300", f"--output_dir={out}") == 0
    assert summary(out)["mse_mean"] < 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise,y,y\n" + "1,2,2\n" * 9, "columns 2 and 3 are both named 'y'"),
        ("a,y\n" + "1,2\n" * 8 + "1,2,3\n", "line 10 has 3 values, but the header names 2 columns"),
        ("a,y\n" + "".join(f"{n},{n}\n" for n in range(8)) + "34%,8\n", "'34%'"),
        ("a,y\n" + "".join(f"{n},{n}\n" for n in range(8)) + '"34,000",8\n', "'34,000'"),
    ],
)
def test_a_table_that_has_to_be_mended_is_refused_with_its_place(tmp_path, capsys, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert call(*SMALL, f"--dataset={path}", "--target_column=y", f"--output_dir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nowhere", "tkagg"])
def test_results_do_not_depend_on_what_draws(tmp_path, monkeypatch, capsys, backend):
    """Results depend neither on a display nor on a user's style that needs TeX; they exist even if drawing fails."""
    monkeypatch.setenv("MPLBACKEND", backend)
    style = tmp_path / "matplotlibrc"
    style.write_text("text.usetex: True\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(style))
    assert len(trained(tmp_path, "drawn")) == 3
    assert (tmp_path / "run-drawn" / "learning_curves.png").exists()
    from ddjax.experiments import plots

    monkeypatch.setattr(plots, "_figure", lambda *arguments: 1 / 0)
    capsys.readouterr()
    trained(tmp_path, "not-drawn")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "learning_curves.png could not be drawn (ZeroDivisionError" in error
    assert not (tmp_path / "run-not-drawn" / "learning_curves.png").exists()
    assert (tmp_path / "run-not-drawn" / "network.png").exists()
    assert summary(tmp_path / "run-not-drawn")["rounds"] == 60
