"""Registries of data sets and partitions."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ddjax.registry import Entry, Registry


class Wanted(NamedTuple):
    """Settings with which a data set is read or generated.

    Attributes:
      seed: seed of a random split, or of synthetic data.
      devices: number of devices `N`, for synthetic data.
      train: number of training examples to generate, for synthetic data.
      target_column: name of the column of a table that contains the targets.
      task: `classification` or `regression`; empty to decide from the targets.
      ignore_columns: names of columns of a table that are not inputs, joined by `+`.
      input_key: feature of a TensorFlow data set that is the input (or several features, joined by `+`), or column of
        texts that is the only input of a table.
      target_key: feature of a TensorFlow data set that is the target.
      owner_key: column of a table, feature of a TensorFlow data set, or array in a NumPy archive that contains the
        owner of each example.
      encoding: encoding of the file of a table.
      comment: prefix of the lines that are skipped in a table.
      data_dir: folder in which TensorFlow Datasets keeps prepared data sets.
      sample_rate: sample rate of sounds, in Hz.
      unlabeled: whether only the training inputs are needed, for a reference set.
    """

    seed: int = 0
    devices: int = 1
    train: int = 1000
    target_column: str = ""
    task: str = ""
    ignore_columns: str = ""
    input_key: str = ""
    target_key: str = ""
    owner_key: str = ""
    encoding: str = ""
    comment: str = ""
    data_dir: str = ""
    sample_rate: int = 0
    unlabeled: bool = False


def _never(path: Path) -> bool:
    return False


def _alone(path: Path) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class DatasetEntry(Entry):
    """Entry for a data set with a name, or for a kind of path.

    `build` is `(wanted, *arguments) → Dataset` for a name, and `(wanted, path) → Dataset` for a kind of path.

    Attributes:
      form: form of the path, such as `FILE.csv`; empty for a name.
      suffixes: extensions of files of this kind, in lower case and without `.gz`.
      recognize: function that returns whether an existing path is of this kind, for paths without such an extension.
      beside: function that returns the second file that is read along with a path of this kind; `None` if there is no
        second file.
    """

    form: str = ""
    suffixes: tuple[str, ...] = ()
    recognize: Callable[[Path], bool] = _never
    beside: Callable[[Path], Path | None] = _alone

    @property
    def usage(self) -> str:
        """Form of the path, or the name with its arguments, as the help text and messages show it."""
        return self.form or super().usage


@dataclasses.dataclass(frozen=True)
class PartitionEntry(Entry):
    """Entry for a partition.

    `build` is `(labels [M], total, devices, rng, alpha) → [N] arrays of row numbers`; see `data.partition`.

    Attributes:
      by_label: whether the partition uses labels; if so, it does not accept numbers to predict.
      by_owner: whether each device holds the examples of an owner. `build` then has the signature of
        `partition.natural`.
    """

    by_label: bool = False
    by_owner: bool = False


DATASETS: Registry[DatasetEntry] = Registry("dataset")
PARTITIONS: Registry[PartitionEntry] = Registry("partition")
