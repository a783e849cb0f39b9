"""Inputs that are made on demand equal those that are made at once."""

import jax
import numpy as np
import pytest

from ddjax import data
from ddjax.data import npz, synthetic
from ddjax.data.digests import digest
from ddjax.data.problem import prepare
from ddjax.data.rows import BLOCK, Chosen, Streamed
from ddjax.errors import InputError
from ddjax.networks import build_topology


def streamed(x):
    return Streamed(x.shape, x.dtype, lambda: iter(np.array_split(x, 5)))


def test_rows_of_a_stream_are_those_of_the_array():
    x = np.random.default_rng(0).random((23, 4))
    for rows in (slice(3, 20), np.array([22, 0, 7, 7, 1]), np.zeros(0, int)):
        np.testing.assert_array_equal(streamed(x)[rows], x[rows])
    np.testing.assert_array_equal(np.asarray(streamed(x)), x)


@pytest.mark.parametrize("made", [lambda x: x, streamed], ids=["array", "stream"])
def test_chosen_rows_are_made_ready_in_their_order(made):
    x = np.random.default_rng(0).integers(0, 255, (23, 4), dtype=np.uint8)
    rows = np.array([5, 22, 0, 7, 7])
    chosen = Chosen(made(x), rows, lambda x, rows: x[rows].astype(np.float32) / 2)
    assert (chosen.shape, chosen.dtype, len(chosen)) == ((5, 4), np.float32, 5)
    np.testing.assert_array_equal(np.asarray(chosen), x[rows] / np.float32(2))
    np.testing.assert_array_equal(chosen[np.array([3, 1])], x[[7, 22]] / np.float32(2))


@pytest.mark.parametrize("name", ["synthetic_classification", "synthetic_regression"])
def test_one_of_several_processes_prepares_the_same_problem(monkeypatch, name):
    """More rows than a block has, so that blocks are joined."""
    network, choices = build_topology("ring", 5).network, {"partition": "natural", "reference_size": 50}
    alone = getattr(synthetic, name)(1, 5, BLOCK + 500, 40)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    one_of_two = getattr(synthetic, name)(1, 5, BLOCK + 500, 40)
    assert isinstance(alone.x_train, np.ndarray)
    assert isinstance(one_of_two.x_train, Streamed)
    assert digest(one_of_two) == digest(alone)
    whole, parts = prepare(alone, network, **choices), prepare(one_of_two, network, **choices, shards=2)
    assert isinstance(parts.problem.x, Chosen)
    for name, expected in whole.problem._asdict().items():
        if isinstance(expected, jax.Array):
            np.testing.assert_array_equal(np.asarray(getattr(parts.problem, name)), expected)
    assert parts.facts == whole.facts


def test_pixels_stay_pixels_until_a_shard_wants_them():
    dataset = data.load_dataset("digits", seed=0, devices=4, train=400)
    network = build_topology("ring", 4).network
    whole, parts = prepare(dataset, network).problem, prepare(dataset, network, shards=4).problem
    np.testing.assert_array_equal(parts.x[np.arange(3, 90)], whole.x[3:90])


ARRAYS = {
    "pixels": np.random.default_rng(1).integers(0, 256, (70, 5, 4), dtype=np.uint8),
    "channels first": np.random.default_rng(2).integers(0, 256, (70, 3, 6, 6), dtype=np.uint8),
    "columns": np.random.default_rng(3).integers(-9, 9, (70, 5)),
    "truth": np.random.default_rng(4).random((70, 5)) < 0.5,
    "doubles": np.random.default_rng(5).normal(3e3, 1e3, (70, 5)),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_of_several_processes_reads_an_archive_in_parts(monkeypatch, tmp_path, kind, save):
    x, y = ARRAYS[kind], np.arange(70) % 3
    save(tmp_path / "some.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    alone = data.load_dataset(f"{tmp_path}/some.npz")
    monkeypatch.setattr(npz, "_several", lambda: True)
    monkeypatch.setattr(npz, "_BYTES", 200)
    one_of_two = data.load_dataset(f"{tmp_path}/some.npz")
    assert isinstance(alone.x_train, np.ndarray)
    assert isinstance(one_of_two.x_train, Streamed)
    assert len(list(one_of_two.x_train.blocks())) > 1
    assert digest(one_of_two) == digest(alone)
    assert one_of_two.notes == alone.notes
    network = build_topology("ring", 5).network
    whole, parts = prepare(alone, network), prepare(one_of_two, network, shards=2)
    assert isinstance(parts.problem.x, Chosen)
    for name in ("x", "y", "reference", "x_test"):
        np.testing.assert_array_equal(np.asarray(getattr(parts.problem, name)), getattr(whole.problem, name))
    assert parts.facts == whole.facts


def test_what_is_wrong_with_an_archive_is_said_likewise(monkeypatch, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(70, 5)), np.arange(70) % 3
    x[41, 2] = np.nan
    np.savez(tmp_path / "nan.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    np.savez(tmp_path / "cut.npz", x_train=np.nan_to_num(x), y_train=y, x_test=x[:9], y_test=y[:9])
    whole = (tmp_path / "cut.npz").read_bytes()
    start = whole.index(b"x_train.npy") + 500
    (tmp_path / "cut.npz").write_bytes(whole[:start] + bytes(64) + whole[start + 64 :])
    for name, message in (("nan", "in float32; the first is in example 41"), ("cut", "is not a readable .npz")):
        for processes in (1, 2):
            monkeypatch.setattr(npz, "_several", lambda count=processes: count > 1)
            monkeypatch.setattr(npz, "_BYTES", 200)
            with pytest.raises(InputError, match=message):
                data.load_dataset(f"{tmp_path}/{name}.npz")


def test_a_reference_set_of_noise_or_of_an_archive_needs_no_array(monkeypatch, tmp_path):
    x, y = ARRAYS["pixels"], np.arange(70) % 3
    np.savez(tmp_path / "some.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    network, found = build_topology("ring", 5).network, []
    for processes in (1, 2):
        monkeypatch.setattr(npz, "_several", lambda count=processes: count > 1)
        dataset = data.load_dataset(f"{tmp_path}/some.npz")
        noise = prepare(dataset, network, reference_source="noise", reference_size=9).problem.reference
        other = prepare(dataset, network, reference_source="a", reference_dataset=dataset, reference_size=9)
        apart = prepare(dataset, network, validation_examples=20, evaluate_on="validation").problem
        found.append([np.asarray(part) for part in (noise, other.problem.reference, apart.x, apart.x_test)])
    for alone, one_of_two in zip(*found, strict=True):
        np.testing.assert_array_equal(one_of_two, alone)
