"""The data sets and the ways to share them out, by name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ddjax.registry import Entry, Registry


class Wanted(NamedTuple):
    """What a data set is asked for.

    Attributes:
      seed: of a random split, or of synthetic data.
      devices: `N`, for data that are made for each device.
      train: training examples to make, for synthetic data.
      target_column: the column of a table that is learned.
      task: `classification` or `regression`; empty to decide by the targets.
      ignore_columns: columns of a table that are no inputs, joined by `+`.
      input_key: the feature that is the input, or the column of a table that holds texts to learn from.
      target_key: the feature that is learned.
      owner_key: the column, feature or array that says who holds an example.
      encoding: of a text file.
      comment: the sign that begins a line to skip, in a table.
      data_dir: the folder in which TensorFlow Datasets keeps what it prepared.
      sample_rate: in hertz, where inputs are sounds.
      unlabeled: whether only the training inputs count, for a reference set.
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
    """A data set that can be named, or a kind of path.

    `build` is `(wanted, *arguments) → Dataset`; for a kind of path `(wanted, path) → Dataset`.

    Attributes:
      form: of the path, such as `FILE.csv`; empty for what is named.
      suffixes: endings of paths that are of this kind.
      recognize: whether a path that is there is of this kind, where its ending does not say so.
      beside: the other path that a path of this kind is read with, if there is one.
    """

    form: str = ""
    suffixes: tuple[str, ...] = ()
    recognize: Callable[[Path], bool] = _never
    beside: Callable[[Path], Path | None] = _alone

    @property
    def usage(self) -> str:
        return self.form or super().usage


@dataclasses.dataclass(frozen=True)
class PartitionEntry(Entry):
    """A way to share examples out.

    `build` is `(labels [M], total, devices, rng, alpha) → [N] arrays of row numbers`; see `data.partition`.

    Attributes:
      by_label: whether it looks at labels, so that numbers to predict cannot be shared out by it.
      by_owner: whether a device holds the examples of an owner. `build` is then `natural`, or takes what it takes.
    """

    by_label: bool = False
    by_owner: bool = False


DATASETS: Registry[DatasetEntry] = Registry("dataset")
PARTITIONS: Registry[PartitionEntry] = Registry("partition")
