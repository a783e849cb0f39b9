"""Token ids in data sets, and entries that are registered twice."""

import re

import numpy as np
import pytest

import ddjax
from ddjax.data import DATASETS, PARTITIONS, DatasetEntry, PartitionEntry, load_dataset
from ddjax.errors import InputError
from ddjax.models import MODELS, ModelEntry


def tokens(x):
    y = np.arange(len(x), dtype=np.int32) % 2
    return ddjax.data.Dataset(x[:40], y[:40], x[40:], y[40:], 2, tokens=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_token_ids_reach_a_problem_as_they_are(dtype):
    x = np.random.default_rng(0).integers(0, 200, (60, 4), dtype=dtype)
    problem = ddjax.make_problem(tokens(x), np.ones((4, 4)) / 4, reference_size=8)
    assert problem.reference.dtype == problem.x.dtype == problem.x_test.dtype == np.int32
    found = np.concatenate([problem.x, problem.reference])
    assert sorted(found.tolist()) == sorted(x[:40].tolist())
    assert sorted(np.asarray(problem.x_test).tolist()) == sorted(x[40:].tolist())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((60, 4)), "x_train is float64 [40, 4]"),
        (np.zeros((60, 4, 4), int), "x_train is int64 [40, 4, 4]"),
        (np.arange(120).reshape(60, 2) - 1, "x_train ranges from -1 to 78"),
        (np.arange(120).reshape(60, 2) + 2**31 - 100, "x_test ranges from 2147483628 to 2147483667"),
    ],
)
def test_what_are_no_token_ids(x, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ddjax.make_problem(tokens(x), np.ones((4, 4)) / 4, reference_size=8)


@pytest.mark.parametrize(
    ("registry", "entry"),
    [
        (DATASETS, DatasetEntry("digits", None)),
        (PARTITIONS, PartitionEntry("iid", None)),
        (MODELS, ModelEntry("mlp", None)),
    ],
)
def test_a_name_is_registered_once(registry, entry):
    with pytest.raises(InputError, match=f"'{entry.name}' is already registered; choose another name"):
        registry.add(entry)


@pytest.mark.parametrize("spec", ["npz", "npz:data", "mnist"])
def test_unknown_data_are_answered_with_the_kinds_of_files(spec):
    with pytest.raises(InputError, match=f"unknown dataset '{spec}'.*accepted: FILE.csv, FILE.libsvm, FILE.npz, "):
        load_dataset(spec)


def test_a_target_column_belongs_to_a_table():
    with pytest.raises(InputError, match=r"--target_column is not used by 'digits'; it belongs to FILE\.csv"):
        load_dataset("digits", target_column="price")
