"""Validation examples: training examples that no device holds, used to choose settings."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.rows import Streamed, blocks
from ddjax.errors import InputError, suggest

EVALUATED = ("test", "validation")


def set_apart(dataset: Dataset, order: np.ndarray, examples: int, evaluate_on: str) -> tuple[Dataset, np.ndarray]:
    """Remove validation examples from the training data.

    Args:
      dataset: data set with `M` training examples.
      order: random order `[M]` of the training examples; the first examples in this order become validation examples.
      examples: number of validation examples.
      evaluate_on: `test`, or `validation` to use the validation examples as the test set of the returned data set.

    Returns:
      The data set whose training data lack the validation examples, and the random order of these training data.

    Raises:
      InputError: `evaluate_on` is unknown, `evaluate_on` is `validation` but there are no validation examples, or no
        training example is left.
    """
    if evaluate_on not in EVALUATED:
        raise suggest("evaluate_on", evaluate_on, EVALUATED)
    if not 0 <= examples < len(order):
        raise InputError(
            f"validation_examples must be between 0 and {len(order) - 1}, because there are {len(order)} training "
            f"examples; got {examples}"
        )
    if evaluate_on == "validation" and not examples:
        raise InputError("evaluate_on 'validation' needs validation examples; set validation_examples")
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
    """Return the rows that the mask `kept` `[M]` selects, from an array or a `Streamed`."""
    if not isinstance(x, Streamed):
        return x[kept]

    def make() -> Iterator[np.ndarray]:
        start = 0
        for block in blocks(x):
            yield block[kept[start : start + len(block)]]
            start += len(block)

    return Streamed((int(kept.sum()), *x.shape[1:]), x.dtype, make)
