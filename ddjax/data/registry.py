"""The data sets and the ways to share them out, by name."""

import dataclasses
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
    """

    seed: int = 0
    devices: int = 1
    train: int = 1000
    target_column: str = ""
    task: str = ""
    ignore_columns: str = ""


@dataclasses.dataclass(frozen=True)
class DatasetEntry(Entry):
    """A data set that can be named, or a kind of file.

    `build` is `(wanted, *arguments) → Dataset`; for a kind of file `(wanted, path) → Dataset`.

    Attributes:
      suffix: of the paths that are files of this kind; empty for what is not a file.
    """

    suffix: str = ""

    @property
    def usage(self) -> str:
        return f"FILE{self.suffix}" if self.suffix else super().usage


@dataclasses.dataclass(frozen=True)
class PartitionEntry(Entry):
    """A way to share examples out.

    `build` is `(labels [M], total, devices, rng, alpha) → [N] arrays of row numbers`; see `data.partition`.

    Attributes:
      by_label: whether it looks at labels, so that numbers to predict cannot be shared out by it.
      by_owner: whether each device holds the examples that the data set made for it.
    """

    by_label: bool = False
    by_owner: bool = False


DATASETS: Registry[DatasetEntry] = Registry("dataset")
PARTITIONS: Registry[PartitionEntry] = Registry("partition")
