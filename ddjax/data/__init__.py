"""Data sets, and their division among devices. No code outside this package refers to a data set by name."""

# The help text lists the data sets in the order of these imports.
# isort: off
from ddjax.data import digits, synthetic, tfds, npz, tables, libsvm, idx, images

# isort: on
from ddjax.data.dataset import Column, Dataset
from ddjax.data.digests import digest, digest_arrays, digest_path
from ddjax.data.load import find_dataset, load_dataset
from ddjax.data.npz import read_npz
from ddjax.data.partition import owner_key, share_out
from ddjax.data.problem import Prepared, make_problem, pool, prepare
from ddjax.data.registry import DATASETS, PARTITIONS, DatasetEntry, PartitionEntry, Wanted
from ddjax.data.shifts import SHIFTS
from ddjax.data.tables import read_csv

__all__ = [
    "DATASETS",
    "PARTITIONS",
    "SHIFTS",
    "Column",
    "Dataset",
    "DatasetEntry",
    "PartitionEntry",
    "Prepared",
    "Wanted",
    "digest",
    "digest_arrays",
    "digest_path",
    "digits",
    "find_dataset",
    "idx",
    "images",
    "libsvm",
    "load_dataset",
    "make_problem",
    "npz",
    "owner_key",
    "pool",
    "prepare",
    "read_csv",
    "read_npz",
    "share_out",
    "synthetic",
    "tables",
    "tfds",
]
