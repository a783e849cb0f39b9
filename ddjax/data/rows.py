"""Rows that are produced on request, so that no process needs to hold all inputs."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BLOCK = 2**14  # rows per block


class Streamed:
    """Rows `[M, …]` that are produced in order, one block at a time, and produced again for every access.

    Args:
      shape: shape of all rows together.
      dtype: dtype of the rows.
      make: function that returns an iterator over the blocks, in order; the blocks are the same every time.
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
        for block, places, inside in located(self, rows):
            found[places] = block[inside]
        return found


def mapped(x: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Apply `change`, which treats each example separately, to a whole array or to each block of a `Streamed`."""
    if not isinstance(x, Streamed):
        return change(x)
    sample = change(np.zeros((1, *x.shape[1:]), x.dtype))
    return Streamed((len(x), *sample.shape[1:]), sample.dtype, lambda: map(change, x.blocks()))


def located(x: Any, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the rows of `x` with the numbers `rows` `[m]`, in one pass over the blocks of `x`.

    Yields:
      For each block: the block, the positions in `rows` of the row numbers that fall in the block, and the positions
        of these rows in the block.
    """
    order = np.argsort(rows, kind="stable")
    ascending, start = rows[order], 0
    for block in blocks(x):
        if not len(rows) or start > ascending[-1]:
            return
        first, last = np.searchsorted(ascending, (start, start + len(block)))
        yield block, order[first:last], ascending[first:last] - start
        start += len(block)


def blocks(x: Any) -> Iterator[np.ndarray]:
    """Iterate over the rows of an array or a `Streamed` in order, one block at a time."""
    if isinstance(x, Streamed):
        return x.blocks()
    x = np.atleast_1d(x)
    return (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))


class Chosen:
    """Rows of a data set that are prepared only on request.

    Args:
      x: inputs `[M, …]`.
      rows: numbers of the chosen rows, in the desired order.
      ready: function of `(x, rows)` that returns these rows of `x` in the form in which models take them.
    """

    def __init__(self, x: Any, rows: np.ndarray, ready: Callable[[Any, np.ndarray], np.ndarray]):
        self._x, self._rows, self._ready = x, rows, ready
        self.shape, self.ndim = (len(rows), *x.shape[1:]), x.ndim
        self.dtype = ready(x[:1], np.arange(1)).dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.atleast_1d(self._rows[index])
        found = _aligned((len(rows), *self.shape[1:]), self.dtype)
        if isinstance(self._x, Streamed):
            for block, places, inside in located(self._x, rows):
                found[places] = self._ready(block, inside)
        else:
            for start in range(0, len(rows), BLOCK):
                found[start : start + BLOCK] = self._ready(self._x, rows[start : start + BLOCK])
        return found


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Allocate an array at a multiple of 64 bytes, so that JAX can use the array on a CPU without a copy."""
    size = math.prod(shape) * dtype.itemsize
    held = np.empty(size + 64, np.uint8)
    start = -held.ctypes.data % 64
    return held[start : start + size].view(dtype).reshape(shape)
