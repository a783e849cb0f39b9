"""Validation examples: training examples that no device holds, to choose settings by."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.rows import Streamed, blocks
from ddjax.errors import InputError, suggest

EVALUATED = ("test", "validation")


def set_apart(dataset: Dataset, order: np.ndarray, examples: int, evaluate_on: str) -> tuple[Dataset, np.ndarray]:
    """Takes validation examples out of the training data.

    Args:
      dataset: with training data of `M` examples.
      order: `[M]` in which these are drawn; the first are taken.
      examples: how many.
      evaluate_on: `test`; or `validation`, and they become the data set's test set.

    Returns:
      The data set without them, and the order of what is left.

    Raises:
      InputError: an unknown choice, no validation examples where they are needed, or none left for training.
    """
    if evaluate_on not in EVALUATED:
        raise suggest("evaluate_on", evaluate_on, EVALUATED)
    if not 0 <= examples < len(order):
        raise InputError(
            f"validation_examples must lie in 0 … {len(order) - 1}, below the {len(order)} training examples, got "
            f"{examples}"
        )
    if evaluate_on == "validation" and not examples:
        raise InputError("evaluate_on 'validation' needs validation_examples; say how many")
    if not examples:
        return dataset, order
    held, left = order[:examples], order[examples:]
    if evaluate_on == "validation":
        dataset = dataset._replace(x_test=dataset.x_train[held], y_test=dataset.y_train[held])
    kept = np.ones(len(order), bool)
    kept[held] = False
    dataset = dataset._replace(
        x_train=_only(dataset.x_train, kept),
        y_train=dataset.y_train[kept],
        owner=None if dataset.owner is None else dataset.owner[kept],
    )
    return dataset, (np.cumsum(kept) - 1)[left]


def _only(x: Any, kept: np.ndarray) -> Any:
    """The rows `[M]` that are kept, of an array or of what is streamed."""
    if not isinstance(x, Streamed):
        return x[kept]

    def make() -> Iterator[np.ndarray]:
        start = 0
        for block in blocks(x):
            yield block[kept[start : start + len(block)]]
            start += len(block)

    return Streamed((int(kept.sum()), *x.shape[1:]), x.dtype, make)
