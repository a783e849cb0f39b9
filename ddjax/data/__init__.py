"""Data sets, and how their examples are shared out. Nothing outside this package knows a data set by name."""

# The order in which they are registered is that of the help.
# isort: off
from ddjax.data import digits, synthetic, npz, tables

# isort: on
from ddjax.data.dataset import Column, Dataset
from ddjax.data.load import find_dataset, load_dataset
from ddjax.data.npz import read_npz
from ddjax.data.partition import share_out
from ddjax.data.problem import Prepared, digest, digest_arrays, digest_file, make_problem, pool, prepare
from ddjax.data.registry import DATASETS, PARTITIONS, DatasetEntry, PartitionEntry, Wanted
from ddjax.data.tables import read_csv

__all__ = [
    "DATASETS",
    "PARTITIONS",
    "Column",
    "Dataset",
    "DatasetEntry",
    "PartitionEntry",
    "Prepared",
    "Wanted",
    "digest",
    "digest_arrays",
    "digest_file",
    "digits",
    "find_dataset",
    "load_dataset",
    "make_problem",
    "npz",
    "pool",
    "prepare",
    "read_csv",
    "read_npz",
    "share_out",
    "synthetic",
    "tables",
]
