"""A data set in host memory."""

from typing import Any, NamedTuple

import numpy as np


class Column(NamedTuple):
    """Interpretation of one column of a table.

    Attributes:
      name: name in the header.
      kind: `number`, `category` (one input with the values 0 and 1 for each different text), `text` or `ignored`.
      missing: number of rows without a value.
      filled: number that replaces missing values: the median over the training rows; `None` if no number is missing.
      categories: texts of a `category` column, in sorted order.
      why: reason why the column is ignored (`asked` if the user requested it); empty if the column is used.
    """

    name: str
    kind: str
    missing: int = 0
    filled: float | None = None
    categories: tuple[str, ...] = ()
    why: str = ""


class Dataset(NamedTuple):
    """Inputs and targets, not yet standardized.

    Attributes:
      x_train: training inputs `[M, …]`: floating-point numbers, integers or token ids.
      y_train: training targets: int32 labels `[M]` in `[0, K)`, or floating-point numbers `[M, K]` or `[M]`.
      x_test: test inputs `[T, …]`.
      y_test: test targets, in the same form as `y_train`.
      outputs: number `K` of classes, or of numbers to predict.
      owner: owner of each training example `[M]`, as the partition `natural` needs it: an index into `owners` or, if
        `owners` is empty, the number of the device for which the example was generated. `None` if the owners are
        unknown.
      tokens: whether integer inputs are token ids, which stay integers.
      scaled: whether floating-point numbers already have their intended scale, so that ddjax leaves them unchanged.
      classes: names of the labels 0 to K − 1; empty if the labels have no names.
      columns: interpretation of each column of a table, except the target column.
      notes: messages to the user about facts that may be unexpected.
      owners: names of the owners, such as speakers, in sorted order.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    outputs: int
    owner: np.ndarray | None = None
    tokens: bool = False
    scaled: bool = False
    classes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    notes: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()


def unlabeled(x: np.ndarray, **more: Any) -> Dataset:
    """Make a data set of inputs `[M, …]` alone, for a reference set. All targets are 0, and the test set is empty."""
    y = np.zeros(len(x), np.int32)
    return Dataset(x, y, x[:0], y[:0], outputs=1, **more)
