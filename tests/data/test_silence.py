"""Errors in a file are refused, and possible errors are shown: small files as people have them."""

import gzip

import numpy as np
import pytest

import ddjax
from ddjax.data import load_dataset, prepare
from ddjax.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3


def archive(path, x=X, y=Y):
    np.savez(path, x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
    return str(path)


def table(path, columns):
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def facts(dataset, **choices):
    return prepare(dataset, np.ones((2, 2)) / 2, **choices).facts


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        (Y + 1, "1 2 3", "renumbered"),
        (Y * 5, "0 5 10", "renumbered"),
        (Y - 1, "-1 0 1", "renumbered"),
        (Y.astype(float), "0 1 2", "--task=regression"),
        (Y[:, None], "0 1 2", ""),
        (np.eye(3)[Y], "0 1 2", "--task=regression"),
        (np.array(["a", "b", "c"])[Y], "a b c", ""),
        (np.array(["a", "b", "c"])[Y].astype("S1"), "a b c", ""),
    ],
)
def test_labels_however_they_are_written(tmp_path, labels, names, note):
    dataset = load_dataset(archive(tmp_path / "a.npz", y=labels))
    clean = load_dataset(archive(tmp_path / "clean.npz"))
    assert dataset.classes == tuple(names.split())
    np.testing.assert_array_equal(dataset.y_train, clean.y_train)
    np.testing.assert_array_equal(dataset.y_test, clean.y_test)
    assert note in " ".join(dataset.notes)
    assert bool(note) == bool(dataset.notes)


def test_a_task_is_heard(tmp_path):
    path = archive(tmp_path / "a.npz")
    numbers = load_dataset(path, task="regression")
    assert (numbers.outputs, numbers.y_train.dtype.kind) == (1, "f")
    halves = archive(tmp_path / "b.npz", y=Y / 2)
    assert load_dataset(halves).y_train.dtype.kind == "f"
    with pytest.raises(InputError, match=r"holds 0\.5"):
        load_dataset(halves, task="classification")
    with pytest.raises(InputError, match="needs numbers to predict"):
        load_dataset(archive(tmp_path / "c.npz", y=np.array(["a", "b", "c"])[Y]), task="regression")
    with pytest.raises(InputError, match="did you mean 'regression'"):
        load_dataset(path, task="regresion")


def test_images_with_channels_first_are_turned(tmp_path):
    x = RNG.integers(0, 256, (60, 8, 8, 4)).astype(np.uint8)
    last = load_dataset(archive(tmp_path / "last.npz", x))
    first = load_dataset(archive(tmp_path / "first.npz", np.moveaxis(x, -1, 1)))
    np.testing.assert_array_equal(first.x_train, last.x_train)
    assert "channels first" in first.notes[0]
    assert not last.notes


def test_pixels_as_floating_point_numbers_end_as_integers_do(tmp_path):
    x = RNG.integers(0, 256, (60, 5, 5))
    problems = [
        ddjax.make_problem(load_dataset(archive(tmp_path / f"{kind}.npz", x.astype(kind))), np.ones((2, 2)) / 2)
        for kind in ("uint8", "float32")
    ]
    np.testing.assert_allclose(problems[0].x, problems[1].x, rtol=1e-5, atol=1e-6)
    small = load_dataset(archive(tmp_path / "small.npz", (x / 255).astype(np.float32)))
    assert facts(small)["standardized"]["inputs"]["how"] == "none"


@pytest.mark.parametrize("kind", [int, float])
def test_a_table_is_standardized_by_column(tmp_path, kind):
    x = np.column_stack([RNG.integers(0, 9, 60), RNG.integers(0, 10**6, 60), np.arange(60) == 7, np.arange(60) % 2 + 1])
    problem = ddjax.make_problem(load_dataset(archive(tmp_path / "a.npz", x.astype(kind))), np.ones((2, 2)) / 2)
    known = np.concatenate([problem.x, problem.reference])
    np.testing.assert_allclose(known.mean(0)[:2], 0, atol=1e-6)
    np.testing.assert_allclose(known.std(0)[:2], 1, rtol=1e-5)
    assert set(known[:, 2].tolist()) == set(known[:, 3].tolist()) == {0.0, 1.0}


def test_signs_of_missing_values_are_missing(tmp_path):
    signs = ["?", "NA", "nan", "None", "", "-"]
    columns = {"a": [*signs, *range(54)], "y": RNG.normal(size=60)}
    dataset = load_dataset(table(tmp_path / "a.csv", columns), target_column="y")
    (column,) = dataset.columns
    assert (column.kind, column.missing) == ("number", 6)


def test_the_row_numbers_of_pandas_are_ignored_and_a_leak_is_named(tmp_path):
    y = np.repeat(["u", "v", "w"], 20)
    columns = {"": range(60), "a": RNG.normal(size=60), "code": np.repeat([7, 8, 9], 20), "y": y}
    path = table(tmp_path / "a.csv", columns)
    dataset = load_dataset(path, target_column="y")
    assert dataset.x_train.shape == (48, 2)
    assert [column.kind for column in dataset.columns] == ["ignored", "number", "number"]
    assert "column 'code' determines 'y'" in dataset.notes[1]
    assert load_dataset(path, target_column="y", ignore_columns="code").x_train.shape == (48, 1)
    with pytest.raises(InputError, match="did you mean 'code'"):
        load_dataset(path, target_column="y", ignore_columns="cod")


def test_labels_that_differ_by_spaces_are_one_class(tmp_path):
    names = ["yes", "yes ", " yes", "no", "no\u00a0", "No"] * 10
    path = table(tmp_path / "a.csv", {"a": RNG.normal(size=60), "y": names})
    dataset = load_dataset(path, target_column="y")
    assert dataset.classes == ("No", "no", "yes")
    assert "differ only in capitalization" in dataset.notes[1]


def test_a_compressed_file_and_one_in_capitals(tmp_path):
    path = table(tmp_path / "a.csv", {"a": RNG.normal(size=60), "y": Y})
    plain = load_dataset(path, target_column="y")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "C.CSV").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes().replace(b"\n", b",\r\n"))
    for name in ("b.csv.gz", "C.CSV"):
        dataset = load_dataset(str(tmp_path / name), target_column="y")
        np.testing.assert_array_equal(dataset.x_train, plain.x_train)
        assert dataset.classes == plain.classes


def test_a_label_may_be_called_none(tmp_path):
    path = table(tmp_path / "a.csv", {"a": RNG.normal(size=60), "y": ["None", "mild", "severe"] * 20})
    assert load_dataset(path, target_column="y").classes == ("None", "mild", "severe")


def test_test_rows_that_are_training_rows_are_counted(tmp_path):
    x, y = np.concatenate([X[:45], X[:15]]), np.concatenate([Y[:45], Y[:15]])
    assert facts(load_dataset(archive(tmp_path / "a.npz", x, y)))["duplicates"] == 15
    assert facts(load_dataset(archive(tmp_path / "b.npz")))["duplicates"] == 0


def test_a_digest_knows_other_data(tmp_path):
    one, same, other = (load_dataset(archive(tmp_path / f"{n}.npz", y=y)) for n, y in enumerate((Y, Y, (Y + 1) % 3)))
    assert ddjax.data.digest(one) == ddjax.data.digest(same) != ddjax.data.digest(other)


def test_a_class_with_a_single_example_is_noted(tmp_path):
    y = np.array(["yes", "no"])[np.arange(60) % 2].astype("U4")
    y[7] = "yess"
    np.savez(tmp_path / "a.npz", x_train=np.eye(60), y_train=y, x_test=np.eye(60)[:2], y_test=y[:2])
    assert ddjax.load_dataset(str(tmp_path / "a.npz")).notes == ("classes with a single training example: yess",)
