"""Inputs of which no process needs to hold all: rows that are made when they are asked for."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BLOCK = 2**14  # rows at a time


class Streamed:
    """Rows `[M, …]` that are made one after another, a block at a time; whoever asks for some has all made again.

    Args:
      shape: of all.
      dtype: of all.
      make: gives the blocks, in order, each time the same.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, make: Callable[[], Iterator[np.ndarray]]):
        self.shape, self.dtype, self.ndim, self.blocks = shape, np.dtype(dtype), len(shape), make

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        start = 0
        for block in self.blocks():
            first, last = np.searchsorted(rows[order], (start, start + len(block)))
            found[order[first:last]] = block[rows[order[first:last]] - start]
            start += len(block)
        return found


def blocks(x: Any) -> Iterator[np.ndarray]:
    """The rows of an array, or of what is streamed, in order, some at a time."""
    if isinstance(x, Streamed):
        return x.blocks()
    return (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))


class Chosen:
    """Some rows of a data set, made ready only when they are asked for.

    Args:
      x: `[M, …]`.
      rows: which of them, in this order.
      ready: `(x, rows)` to the array that devices learn from.
    """

    def __init__(self, x: Any, rows: np.ndarray, ready: Callable[[Any, np.ndarray], np.ndarray]):
        self._x, self._rows, self._ready = x, rows, ready
        self.shape, self.ndim = (len(rows), *x.shape[1:]), x.ndim
        self.dtype = self[:1].dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.atleast_1d(self._rows[index])
        if isinstance(self._x, Streamed):  # once, and not for each block that is made ready
            return self._ready(self._x[rows], np.arange(len(rows)))
        return self._ready(self._x, rows)
