"""Models that see only part of the features."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from ddjax.errors import InputError


class OnView(nnx.Module):
    """Model that sees only a range of columns: columns of a table, or pixel columns of images."""

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], begin: int, end: int, rngs: nnx.Rngs):
        self.model, self.begin, self.end = make(rngs), begin, end

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map inputs `[B, …]` with all columns to outputs `[B, K]`."""
        axis = _axis(x.shape[1:]) + 1
        return self.model(jax.lax.slice_in_dim(x, self.begin, self.end, axis=axis))


def view_range(input_shape: tuple[int, ...], number: int, views: int) -> tuple[int, int]:
    """Return the first column of the view `number`, and the first column after this view.

    There are `views` views, numbered from 0. They are disjoint and cover all columns. The widths of any two views
    differ by at most one column.

    Raises:
      InputError: there are more views than columns.

    Examples:
      >>> from ddjax.models import view_range
      >>> [view_range((28, 28), number, 3) for number in range(3)]
      [(0, 10), (10, 19), (19, 28)]
    """
    columns = input_shape[_axis(input_shape)]
    if views > columns:
        raise InputError(f"{views} feature views need at least as many columns, but there are only {columns}")
    part = np.array_split(np.arange(columns), views)[number]
    return int(part[0]), int(part[-1]) + 1


def view_shape(input_shape: tuple[int, ...], number: int, views: int) -> tuple[int, ...]:
    """Return the shape of one example in a view."""
    begin, end = view_range(input_shape, number, views)
    axis = _axis(input_shape)
    return (*input_shape[:axis], end - begin, *input_shape[axis + 1 :])


def _axis(input_shape: tuple[int, ...]) -> int:
    return 0 if len(input_shape) == 1 else 1
