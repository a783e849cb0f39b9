"""Partitions, reference sets and files."""

import re

import numpy as np
import pytest

import ddjax
from ddjax.data import PARTITIONS, load_dataset, share_out
from ddjax.errors import InputError
from ddjax.networks import build_topology

LABELS = np.random.default_rng(0).integers(0, 10, 1000)
BY_LABELS = [entry.name for entry in PARTITIONS.entries() if not entry.by_owner]


@pytest.mark.parametrize("devices", [1, 7, 300])
@pytest.mark.parametrize("name", BY_LABELS)
def test_every_example_is_held_once(name, devices):
    parts = share_out(name, LABELS, devices, np.random.default_rng(0), alpha=0.3)
    assert len(parts) == devices
    assert min(map(len, parts)) >= 1
    assert sorted(np.concatenate(parts)) == list(range(1000))


def skew(parts):
    """Mean over devices of the largest class share."""
    return np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts])


def test_dirichlet_concentration_sets_the_label_skew():
    by_alpha = [skew(share_out("dirichlet", LABELS, 10, np.random.default_rng(0), alpha)) for alpha in (0.05, 1, 1000)]
    assert by_alpha == sorted(by_alpha, reverse=True)
    assert by_alpha[2] == pytest.approx(skew(share_out("iid", LABELS, 10, np.random.default_rng(0))), abs=0.05)


def test_dirichlet_shares_have_the_moments_of_the_distribution():
    """Class shares of a device are a Dirichlet draw plus multinomial noise: variance (p − p²)/(Kα + 1) + noise.

    2,000 labels per class for 400 devices of 25 examples: classes hardly run out. Error probability: the mean of the
    4,000 squared deviations has a relative standard error near 3 %, the bound is 15 %.
    """
    labels = np.repeat(np.arange(10), 2000)
    m = 25
    parts = share_out("dirichlet", labels, 400, np.random.default_rng(1), alpha=0.5, examples_per_device=m)
    shares = np.array([np.bincount(labels[part], minlength=10) / m for part in parts])
    variance = 0.09 / (10 * 0.5 + 1)
    expected = variance + (0.09 - variance) / m
    assert shares.var(0).mean() == pytest.approx(expected, rel=0.15)


def test_shards_hold_few_labels():
    labels = np.sort(LABELS)
    parts = share_out("shards", labels, 50, np.random.default_rng(0))
    assert max(len(np.unique(labels[part])) for part in parts) <= 4
    assert {len(part) for part in parts} == {20}


def test_quantity_is_uneven_but_not_in_labels():
    parts = share_out("quantity", LABELS, 10, np.random.default_rng(0), alpha=0.5)
    sizes = np.array([len(part) for part in parts])
    assert sizes.max() > 4 * sizes.min()
    assert skew([part for part in parts if len(part) > 100]) < 0.25


def tagged(train=90, test=30):
    """Every example holds its own number, so that a test can follow it."""
    x = np.arange(train + test, dtype=np.float32)[:, None]
    y = np.arange(train + test, dtype=np.int32) % 3
    return ddjax.data.Dataset(x[:train], y[:train], x[train:], y[train:], 3)


@pytest.mark.parametrize("partition", BY_LABELS)
def test_private_reference_and_test_examples_are_disjoint(partition):
    problem = ddjax.make_problem(
        tagged(), np.ones((4, 4)) / 4, partition=partition, reference_size=30, standardize="none", seed=5
    )
    private = np.asarray(problem.x)[:, 0]
    reference, test = np.asarray(problem.reference)[:, 0], np.asarray(problem.x_test)[:, 0]
    assert sorted([*private, *reference, *test]) == list(range(120))
    assert (private % 3 == np.asarray(problem.y)).all()
    held = [problem.private_indices[n, : problem.private_counts[n]] for n in range(4)]
    assert sorted(np.concatenate(held)) == list(range(60))


def test_examples_per_device_and_eval_examples():
    problem = ddjax.make_problem(tagged(), np.ones((4, 4)) / 4, partition="iid", examples_per_device=5, eval_examples=7)
    assert problem.private_counts.tolist() == [5, 5, 5, 5]
    assert len(problem.x_test) == len(problem.y_test) == 7
    assert len(problem.x) == 20


def test_synthetic_heterogeneity_and_its_natural_partition():
    def spread(h):
        dataset = load_dataset(f"synthetic_classification:4:6:{h}", devices=5, train=1000, seed=0)
        problem = ddjax.make_problem(dataset, np.ones((5, 5)) / 5, partition="natural", reference_size=100)
        means = [
            np.asarray(problem.x[problem.private_indices[n, : problem.private_counts[n]]]).mean(0) for n in range(5)
        ]
        assert dataset.outputs == 4
        assert dataset.x_train.shape == (1000, 6)
        return np.var(means, axis=0).mean()

    assert spread(0) < 0.01 < 1 < spread(2)


def test_digits_are_split_by_the_seed_alone():
    a, b = (load_dataset("digits", devices=4, train=0, seed=seed) for seed in (0, 1))
    assert len(a.x_train) + len(a.x_test) == 1797
    assert not np.array_equal(a.x_test, b.x_test)


GOOD = {
    "x_train": np.zeros((6, 4), np.float32),
    "y_train": np.array([0, 1, 2, 0, 1, 2]),
    "x_test": np.zeros((2, 4), np.float32),
    "y_test": np.array([0, 2]),
}


def test_npz(tmp_path):
    np.savez(tmp_path / "good.npz", **GOOD)
    dataset = load_dataset(str(tmp_path / "good.npz"), devices=2, train=0, seed=0)
    assert dataset.outputs == 3
    assert dataset.y_train.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": None}, "missing y_test"),
        ({"x_train": np.zeros((6, 5), np.float32)}, "x_train and x_test differ"),
        ({"x_train": np.zeros(6, np.float32)}, r"x_train must have shape \[examples"),
        ({"x_train": np.full((6, 4), np.nan, np.float32)}, "not finite in float32; the first is in example 0"),
        ({"x_train": np.array(["a"] * 6)[:, None]}, "holds texts, so its shape must be"),
        ({"y_train": np.arange(5)}, r"y_train must have shape \[6\]"),
        ({"y_train": np.arange(6) / 2}, "y_train and y_test differ: float64"),
        ({"y_train": np.ones((6, 2)), "y_test": np.ones((2, 3))}, r"differ: float64 \[6, 2\]"),
        ({"y_train": np.full(6, np.inf), "y_test": np.ones(2)}, "y_train has values that are not finite"),
        ({"y_train": np.ones((6, 2), int)}, r"y_train and y_test differ"),
        (
            {"y_train": np.ones((6, 2), int), "y_test": np.ones((2, 2), int)},
            r"\[6, 2\] \(int64\) and row 0 is not one-hot",
        ),
        ({"y_train": np.array(["a"] * 6), "y_test": np.array(["a"] * 2)}, "only one class, a"),
        ({"y_train": np.arange(6) - 1}, r"6 different labels in 6 rows \(the first label is -1\).*--task=regression"),
        ({"y_train": np.array(["a", "b", "c", "d", "e", "f"]), "y_test": np.array(["a", "b"])}, "is not a name"),
        (
            {"y_test": np.array([0, 3])},
            r"holds the label 3 \(row 1\), which is missing from .*; the labels there are 0, 1, 2",
        ),
        ({"y_train": np.array(list("aabbcc")), "y_test": np.array(["a", "d"])}, "the label d"),
        (
            {"y_train": np.array(["1.5", "2.5", "x"] * 2), "y_test": np.array(["1", "2"])},
            r"'x' \(row 2\) among numbers",
        ),
        ({"y_train": np.array([None] * 6)}, "y_train holds Python objects"),
        ({"y_train": np.zeros(6, int)}, "only one class"),
        ({"x_train": np.full((6, 4), 1e300)}, "not finite in float32"),
        ({"x_train": np.zeros((6, 0), np.float32), "x_test": np.zeros((2, 0), np.float32)}, "without empty axes"),
    ],
)
def test_a_bad_npz_is_named(tmp_path, change, message):
    arrays = {name: value for name, value in (GOOD | change).items() if value is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_dataset(str(tmp_path / "bad.npz"), devices=2, train=0, seed=0)


@pytest.mark.parametrize(
    ("x", "more"),
    [
        (np.random.default_rng(0).normal(size=(6, 4)), {}),
        (np.random.default_rng(0).integers(0, 255, (6, 3, 8, 8)).astype(np.uint8), {}),
        (np.array(["one two", "two", "three", "one one one", "", "two one"]), {}),
        (np.random.default_rng(0).integers(-99, 99, (6, 4000)).astype(np.int16), {"sample_rate": 8000}),
    ],
)
def test_a_reference_set_needs_no_more_than_inputs(tmp_path, x, more):
    np.savez(tmp_path / "whole.npz", **GOOD | {"x_train": x, "x_test": x[:2]}, **more)
    np.savez(tmp_path / "inputs.npz", x_train=x, **more)
    whole = load_dataset(str(tmp_path / "whole.npz"))
    inputs = load_dataset(str(tmp_path / "inputs.npz"), unlabeled=True)
    np.testing.assert_array_equal(inputs.x_train, whole.x_train)
    assert (inputs.tokens, inputs.notes) == (whole.tokens, whole.notes)
    problem = ddjax.make_problem(whole, np.ones((2, 2)) / 2, reference_dataset=inputs, reference_size=3)
    assert problem.reference.shape == (3, *whole.x_train.shape[1:])
    np.savez(tmp_path / "none.npz", y_train=np.zeros(3))
    with pytest.raises(InputError, match="missing x_train; the archive contains y_train"):
        load_dataset(str(tmp_path / "none.npz"), unlabeled=True)


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_floating_point_targets_are_numbers_to_predict(tmp_path, shape):
    y = np.random.default_rng(0).normal(size=(8, *shape))
    np.savez(tmp_path / "numbers.npz", **GOOD | {"y_train": y[:6], "y_test": y[6:]})
    dataset = load_dataset(str(tmp_path / "numbers.npz"))
    problem = ddjax.make_problem(dataset, np.ones((2, 2)) / 2, reference_size=2)
    assert dataset.outputs == problem.y.shape[1] == (*shape, 1)[0]
    held = np.asarray(problem.y).round(5).tolist()
    assert len(held) == 4
    assert all(row in y[:6].reshape(6, -1).astype(np.float32).round(5).tolist() for row in held)
    np.testing.assert_allclose(np.sort(problem.y_test, 0), np.sort(y[6:].reshape(2, -1), 0), rtol=1e-6)


def test_synthetic_regression_has_the_moments_of_its_formula():
    """With 20,000 examples of one device, each moment has a relative standard error below 2 %."""
    noise, h, dimensions = 0.3, 0.8, 4
    dataset = load_dataset(f"synthetic_regression:{dimensions}:{noise}:{h}", devices=1, train=20_000)
    x, y = np.asarray(dataset.x_train, float), np.asarray(dataset.y_train, float)
    variances = np.arange(1, dimensions + 1) ** -1.2
    np.testing.assert_allclose(x.var(0), variances / ((1 + h**2) * variances.sum()), rtol=0.05)
    with_bias = np.hstack([x, np.ones((len(x), 1))])
    residual = y - with_bias @ np.linalg.lstsq(with_bias, y)[0]
    assert residual.std() == pytest.approx(noise, rel=0.03)


def test_synthetic_regression_differs_between_devices_by_its_heterogeneity():
    def spread(h):
        """Of what devices find alone, and of their mean inputs; the mean square of an input."""
        devices = 50
        dataset = load_dataset(f"synthetic_regression:3:0:{h}", devices=devices, train=5000)
        maps, means = [], []
        for n in range(devices):
            x, y = dataset.x_train[dataset.owner == n], dataset.y_train[dataset.owner == n]
            maps.append(np.linalg.lstsq(np.hstack([x, np.ones((len(x), 1))]), y)[0])
            means.append(x.mean(0))
        maps = np.array(maps)
        assert maps[:, -1].std() < 1e-5  # one bias for all
        return maps[:, :-1].std(0).mean(), np.std(means, 0).mean(), (dataset.x_train**2).sum(1).mean()

    same, apart = spread(0), spread(0.5)
    assert same[0] < 1e-5
    assert same[1] < 0.1 < 0.2 < apart[1]
    assert apart[0] == pytest.approx(0.5, rel=0.25)  # 150 normal draws: a standard error of 6 %
    np.testing.assert_allclose([same[2], apart[2]], 1, rtol=0.2)


HOUSES = [("A", 10.0, "x"), ("B", 20.0, ""), ("A", None, "y"), ("", 60.0, "x"), ("B", 30.0, "y")] * 6


def write_csv(path, rows, head="area,size,kind"):
    path.write_text("\n".join([head, *(",".join("" if v is None else str(v) for v in row) for row in rows)]))
    return str(path)


def test_csv_of_numbers(tmp_path):
    rows = [(area, size, 100.0 + i) for i, (area, size, _) in enumerate(HOUSES)]
    path = write_csv(tmp_path / "a.csv", rows, "area,size,price")
    dataset = load_dataset(path, target_column="price", seed=3)
    problem = ddjax.make_problem(dataset, np.ones((2, 2)) / 2, reference_size=4)
    test, train = np.split(np.random.default_rng(3).permutation(30), [6])
    prices = np.array([row[2] for row in rows])
    expected = (prices - prices[train].mean()) / prices[train].std()
    np.testing.assert_allclose(np.sort(problem.y_test[:, 0]), np.sort(expected[test]), rtol=1e-5)
    np.testing.assert_array_equal(dataset.y_train[:, 0], prices[train])
    known = [rows[i][1] for i in train if rows[i][1] is not None]
    sizes = np.array([np.median(known) if row[1] is None else row[1] for row in rows])
    areas = np.array([[row[0] == "A", row[0] == "B"] for row in rows])
    for x, chosen in ((dataset.x_train, train), (dataset.x_test, test)):
        np.testing.assert_array_equal(x, np.column_stack([areas, sizes])[chosen])
    expected = (sizes - sizes[train].mean()) / sizes[train].std()
    np.testing.assert_allclose(np.sort(problem.x_test[:, 2]), np.sort(expected[test]), rtol=1e-5)
    assert set(np.asarray(problem.x_test[:, :2]).ravel().tolist()) <= {0.0, 1.0}
    assert dataset.outputs == 1


def test_csv_of_labels(tmp_path):
    rows = [row for row in HOUSES if row[2]]
    dataset = load_dataset(write_csv(tmp_path / "a.csv", rows), target_column="kind")
    assert dataset.outputs == 2
    test, train = np.split(np.random.default_rng(0).permutation(24), [4])
    np.testing.assert_array_equal(dataset.y_train, [rows[i][2] == "y" for i in train])
    np.testing.assert_array_equal(dataset.y_test, [rows[i][2] == "y" for i in test])


@pytest.mark.parametrize(
    ("head", "rows", "column", "message"),
    [
        ("a,b", [(i, i) for i in range(9)], "", "--target_column must name the column to predict: a, b"),
        ("size,price", [(i, i) for i in range(9)], "prize", "did you mean 'price'"),
        ("a,b", [(i, i) for i in range(4)], "a", "at least 5 rows are needed to hold out a fifth for testing, got 4"),
        ("a,b", [], "a", "at least 5 rows are needed to hold out a fifth for testing, got 0"),
        ("a,b", [(i, i if i != 3 else None) for i in range(9)], "b", "is missing in 1 rows, beginning with line 5"),
        ("a,b", [(None, i) for i in range(9)], "b", "column 'a' has no value"),
        ("a,b", [(None, i) for i in range(9)], "a", "column 'a' has no value"),
        (
            "a,b",
            [(i if i != 2 else "inf", i) for i in range(9)],
            "b",
            "column 'a' holds 'inf' on line 4, which is beyond 1e+100",
        ),
        ("a", range(9), "a", "no column besides 'a'"),
        ("a,b", [(i, 7) for i in range(9)], "b", "'b' has only one value"),
        ("a,b", [(f"street {i}", i) for i in range(200)], "b", "column 'a' has 160 different texts"),
        ("a,b", [(1, 2), (1, 2, 3)], "b", "line 3 has 3 values, but the header names 2 columns"),
        ("a,b", [(1, 2), (1,)], "b", "line 3 has 1 values"),
        ("a,b,a", [(i, i, i) for i in range(9)], "b", "columns 1 and 3 are both named 'a'"),
        ("1,2", [(i, i) for i in range(9)], "2", "line 1 holds numbers (1, 2)"),
        ("a;b", [f"{i};{i};{i}" for i in range(9)], "b", "line 2 has 3 values, but the header names 2 columns"),
        ("a;b", [f"1,{i};{i}" for i in range(9)], "b", "'1,0' on line 2 and 8 more texts"),
        ("a,b", [(i if i != 4 else "34%", i) for i in range(9)], "b", "'34%' on line 6"),
        ("a,b", [("34%", i) for i in range(9)], "b", "'34%' on line 2 and 8 more texts"),
        ("a,b", [('"34,000"', i) for i in range(9)], "b", "'34,000' on line 2"),
        ("a,b", [(i, i if i != 4 else "x") for i in range(9)], "b", "'b' holds numbers, except 'x' on line 6"),
        ("a,b", [(i, i if i != 4 else "?") for i in range(9)], "b", "missing ('?') in 1 rows, beginning with line 6"),
        (",b", [(i, i * i) for i in range(9)], "b", "no column besides 'b'"),
    ],
)
def test_a_bad_csv_is_named(tmp_path, head, rows, column, message):
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    path = write_csv(tmp_path / "bad.csv", rows, head)
    with pytest.raises(InputError, match=re.escape(message)):
        load_dataset(path, target_column=column)


def test_a_column_that_only_test_rows_have_is_named(tmp_path):
    test = np.random.default_rng(0).permutation(10)[:2]
    path = write_csv(tmp_path / "bad.csv", [(1.0 if i in test else None, i) for i in range(10)], "a,b")
    with pytest.raises(InputError, match="column 'a' has no value in the training rows"):
        load_dataset(path, target_column="b")


def test_files_that_are_no_csv(tmp_path):
    with pytest.raises(InputError, match="no file"):
        load_dataset(str(tmp_path / "none.csv"), target_column="a")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "bytes.csv").write_bytes(b"\x80\xff\x00\x80" * 9)
    for name in ("folder", "empty", "bytes"):
        with pytest.raises(InputError, match=r"not a readable \.csv"):
            load_dataset(str(tmp_path / f"{name}.csv"), target_column="a")


def test_files_that_are_no_npz(tmp_path):
    with pytest.raises(InputError, match="no file"):
        load_dataset(str(tmp_path / "none.npz"), devices=2, train=0, seed=0)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for content in (b"", b"no archive", b"PK\x03\x04 cut off", (tmp_path / "array.npy").read_bytes()):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InputError, match="not a readable"):
            load_dataset(str(tmp_path / "bad.npz"), devices=2, train=0, seed=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"reference_size": 90}, "there are 90 training examples"),
        ({"reference_size": 88}, "2 private examples are too few for 4 devices"),
        ({"examples_per_device": 20, "reference_size": 30}, "need 80 private examples, but only 60"),
        ({"eval_examples": 31}, "between 0 and 30"),
        ({"partition": "dirichle"}, "did you mean 'dirichlet'"),
        ({"partition": "natural"}, "needs the owners of examples"),
        ({"dirichlet_alpha": 0.0}, "positive"),
        ({"examples_per_device": -1}, "positive"),
    ],
)
def test_too_little_data_is_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        ddjax.make_problem(tagged(), build_topology("ring", 4).network, **kwargs)


@pytest.mark.parametrize("spec", ["digit", "synthetic_classification:1", "synthetic_classification:3:x", "mnist"])
def test_unknown_data(spec):
    with pytest.raises(InputError, match="dataset"):
        load_dataset(spec, devices=2, train=10, seed=0)


def test_pixels_are_standardized_by_the_reference_set():
    x = np.random.default_rng(0).integers(0, 200, (120, 2, 2), dtype=np.uint8)
    dataset = tagged()._replace(x_train=x[:90], x_test=x[90:])
    problem = ddjax.make_problem(dataset, np.ones((4, 4)) / 4, reference_size=30)
    assert problem.reference.dtype == problem.x.dtype == problem.x_test.dtype == np.float32
    assert float(problem.reference.mean()) == pytest.approx(0, abs=1e-6)
    assert float(problem.reference.std()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("network", ["ring", build_topology("ring", 4)])
def test_what_is_no_network_is_named(network):
    with pytest.raises(InputError, match=r"such as build_topology\(…\).network"):
        ddjax.make_problem(load_dataset("digits"), network)
