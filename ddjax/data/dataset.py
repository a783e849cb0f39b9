"""A data set in host memory."""

from typing import Any, NamedTuple

import numpy as np


class Column(NamedTuple):
    """What was made of one column of a table.

    Attributes:
      name: as in the header.
      kind: `number`, `category` (one input of 0 and 1 per text), `text` or `ignored`.
      missing: rows without a value.
      filled: what stands there instead: the median over the training rows; `None` for no number.
      categories: the texts, of a category.
      why: why it is ignored.
    """

    name: str
    kind: str
    missing: int = 0
    filled: float | None = None
    categories: tuple[str, ...] = ()
    why: str = ""


class Dataset(NamedTuple):
    """Inputs with what is to be learned of them, not yet standardized.

    Attributes:
      x_train: `[M, …]` floating-point numbers, integers, or token ids.
      y_train: `[M]` int32 labels in `[0, K)`, or floating-point numbers to predict, `[M, K]` or `[M]`.
      x_test: `[T, …]`.
      y_test: as `y_train`.
      outputs: `K`, classes or numbers.
      owner: `[M]` who holds each training example, for the partition `natural`, if that is known: a number in `owners`,
        or without these the device that it was made for.
      tokens: whether integer inputs are token ids, which stay integers.
      scaled: whether floating-point numbers have the scale that they are meant to have, and stay as they are.
      classes: the names of the labels 0 to K − 1, where they have any.
      columns: of a table, what was made of each column that is not the target.
      notes: sentences on what a user may not expect.
      owners: names of those who hold examples, such as speakers, in sorted order.
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
    """Inputs `[M, …]` alone, for a reference set: the targets are zeros, and there is no test set."""
    y = np.zeros(len(x), np.int32)
    return Dataset(x, y, x[:0], y[:0], outputs=1, **more)
