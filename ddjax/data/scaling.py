"""Scaling of inputs and of numbers to predict."""

import math
from typing import Any, NamedTuple

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.rows import blocks
from ddjax.errors import InputError, suggest
from ddjax.types import working_dtype

STANDARDIZE = ("columns", "whole", "none")
# Inputs are far from unit scale if their root mean square is above _LARGE or their mean squared norm is below _SMALL.
# Pixels from 0 to 255 are far from unit scale; pixels from 0 to 1 and rows of norm 1 are not.
_LARGE, _SMALL = 3.0, 0.01
# A column with the same value in more than this share of the rows is scaled by its range.
_RARE = 0.9
_ROWS = 4096  # rows per step, to save memory


class Scaling(NamedTuple):
    """Scaling `(x − offset) / scale`.

    Attributes:
      how: `none`, `whole` (one offset and one scale for all numbers) or `columns`.
      offset: number `[]` to subtract, or `[P]` numbers, one per column.
      scale: positive divisor or divisors, in the same shape as `offset`.
      kinds: for each column, `deviation` if its scale is its standard deviation, or `range` if its scale is the largest
        distance of a value from the offset.
      root_mean_square: root mean square of the numbers before scaling; if there are columns, the largest root mean
        square of a column.
    """

    how: str
    offset: np.ndarray
    scale: np.ndarray
    kinds: tuple[str, ...] = ()
    root_mean_square: float = 1.0

    def apply(self, x: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return scaled rows in the working dtype; scale a few rows at a time, so that no step copies all of `x`.

        Args:
          x: unscaled numbers `[M, …]`.
          rows: indices of the rows to return, in this order; `None` for all rows.

        Raises:
          InputError: the working dtype cannot hold a scaled number.
        """
        dtype = working_dtype()
        rows = np.arange(len(x)) if rows is None else rows
        scaled = np.empty((len(rows), *x.shape[1:]), dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(rows), _ROWS):
                part, some = slice(start, start + _ROWS), x[rows[start : start + _ROWS]]
                if self.how == "none":
                    scaled[part] = some
                elif self.how == "whole":
                    scaled[part] = (some.astype(dtype) - self.offset.astype(dtype)) / self.scale.astype(dtype)
                else:  # in float64, because a column may be far from 0
                    scaled[part] = (some.astype(float) - self.offset) / self.scale
        if not np.isfinite(scaled).all():
            raise InputError(
                f"the data hold numbers up to {np.abs(x).max():.3g}, which {dtype} cannot hold after scaling "
                f"({self.how}); correct the data, or use another --standardize or --precision=float64"
            )
        return scaled

    def facts(self) -> dict[str, Any]:
        """Return the entries for `config.json`."""
        if self.how == "none":
            return {"how": "none"}
        kinds = {"kinds": list(self.kinds)} if self.kinds else {}
        return {"how": self.how, "offset": self.offset.tolist(), "scale": self.scale.tolist()} | kinds


def _none(size: float) -> Scaling:
    return Scaling("none", np.array(0.0), np.array(1.0), root_mean_square=size)


def input_scaling(dataset: Dataset, reference: np.ndarray, standardize: str = "") -> Scaling:
    """Decide how inputs are scaled.

    A table (a `.csv`, or integers `[M, P]`) is standardized by column, with means and standard deviations of the
    training rows. Other integers are pixels. They are standardized by a single mean and a single standard deviation:
    those of the reference set, which all devices know. Other floating-point inputs remain unchanged unless they are far
    from unit scale. In that case, they are standardized by column, or as a whole if they have more than two axes.

    Args:
      dataset: data set whose inputs are not token ids.
      reference: inputs of the reference set `[R, …]`.
      standardize: `columns`, `whole` or `none`; empty to decide from the inputs.

    Raises:
      InputError: `standardize` is unknown, or is `columns` although the inputs have no columns.
    """
    if standardize and standardize not in STANDARDIZE:
        raise suggest("standardize", standardize, STANDARDIZE)
    x: Any = dataset.x_train
    if standardize == "columns" and x.ndim != 2:
        raise InputError(f"--standardize=columns needs inputs [examples, columns], but the inputs are {list(x.shape)}")
    size = _root_mean_square(x)
    how = standardize
    if not how and (dataset.columns or x.dtype.kind in "iu" or (not dataset.scaled and _far(x, size))):
        how = "columns" if x.ndim == 2 else "whole"
    if how == "columns":
        return by_column(np.asarray(x))._replace(root_mean_square=float(size.max()))
    if how == "whole":
        mean, deviation = reference.mean(dtype=float), reference.std(dtype=float) or 1
        return Scaling("whole", np.array(mean), np.array(deviation), (), float(size.max()))
    return _none(float(size.max()))


def target_scaling(dataset: Dataset, standardize: str = "") -> Scaling:
    """Decide how numbers to predict are scaled: by column if they come from a `.csv` or are far from unit scale.

    If the numbers are scaled, predicting their mean gives a mean squared error of 1. If `standardize` is `none`, the
    numbers are not scaled; all other values of `standardize` apply only to inputs.
    """
    y = dataset.y_train.reshape(len(dataset.y_train), -1)
    size = _root_mean_square(y)
    if standardize == "none" or not (dataset.columns or (not dataset.scaled and _far(y, size))):
        return _none(float(size.max()))
    offset, scale = y.mean(0, dtype=float), y.std(0, dtype=float)
    spread = np.ptp(y, axis=0) > 0  # because the computed deviation of equal numbers may be slightly above 0
    return Scaling("columns", offset, np.where(spread, scale, 1.0), ("deviation",) * y.shape[1], float(size.max()))


def by_column(x: np.ndarray) -> Scaling:
    """Make the scaling that standardizes each column of `x` `[M, P]` by its mean and its standard deviation.

    There are two exceptions. In a column with only two values, these values become 0 and 1. In a column that nearly
    always has the same value, this value becomes 0, and all other values are scaled to lie between −1 and 1, because
    division by the standard deviation would make rare values enormous.
    """
    offset, scale, kinds = np.zeros(x.shape[1]), np.ones(x.shape[1]), []
    for number in range(x.shape[1]):
        column = np.asarray(x[:, number], float)
        low, high = column.min(), column.max()
        usual = np.partition(column, len(column) // 2)[len(column) // 2]  # a value in most rows is the median
        two = bool(((column == low) | (column == high)).all())
        if two or (column == usual).mean() > _RARE:
            offset[number] = low if two else usual
            scale[number] = np.abs(column - offset[number]).max() or 1.0
            kinds.append("range")
        else:
            offset[number], scale[number] = column.mean(), column.std()
            kinds.append("deviation")
    return Scaling("columns", offset, scale, tuple(kinds))


def _root_mean_square(x: np.ndarray) -> np.ndarray:
    """Compute the root mean square of each column, `[P]`, if `x` has rank 2, and of all numbers, `[1]`, otherwise."""
    axes = 0 if x.ndim == 2 else None
    total: Any = sum(np.square(block, dtype=float).sum(axes) for block in blocks(x))
    return np.sqrt(np.atleast_1d(total) / (len(x) if x.ndim == 2 else math.prod(x.shape)))


def _far(x: np.ndarray, size: np.ndarray) -> bool:
    """Return whether the numbers `x`, whose root mean squares are `size`, are far from unit scale."""
    norm = (size**2).sum() if x.ndim == 2 else size[0] ** 2 * math.prod(x.shape[1:])
    return bool(size.max() > _LARGE or norm < _SMALL)
