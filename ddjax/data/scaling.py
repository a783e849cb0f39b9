"""How inputs and numbers to predict are brought to unit scale."""

import math
from typing import Any, NamedTuple

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.rows import blocks
from ddjax.errors import InputError, suggest
from ddjax.types import working_dtype

STANDARDIZE = ("columns", "whole", "none")
# Inputs whose root mean square is above the first, or whose mean squared norm is below the second, are far from unit
# scale: pixels from 0 to 255 are, pixels from 0 to 1 are not, nor are rows of norm 1.
_LARGE, _SMALL = 3.0, 0.01
# A column that has one value in more than this part of the rows is scaled by its range.
_RARE = 0.9
_ROWS = 4096  # looked at at a time, to spare memory


class Scaling(NamedTuple):
    """`(x − offset) / scale`.

    Attributes:
      how: `none`, `whole` (one number each) or `columns`.
      offset: `[]`, or `[P]` by column.
      scale: likewise, positive.
      kinds: by column: `deviation` or `range`.
      root_mean_square: `[]` of what is scaled, before.
    """

    how: str
    offset: np.ndarray
    scale: np.ndarray
    kinds: tuple[str, ...] = ()
    root_mean_square: float = 1.0

    def apply(self, x: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Scaled numbers, of the working dtype; a few at a time, so that `x` is never there twice.

        Args:
          x: `[M, …]`.
          rows: of `x` that are wanted, in this order; `None` for all.

        Raises:
          InputError: a number that this dtype cannot hold.
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
                else:  # in float64, since a column may be far from 0
                    scaled[part] = (some.astype(float) - self.offset) / self.scale
        if not np.isfinite(scaled).all():
            raise InputError(
                f"numbers of the data reach {np.abs(x).max():.3g}, which {dtype} cannot hold when they are scaled "
                f"({self.how}); mend them, or choose another --standardize or --precision=float64"
            )
        return scaled

    def facts(self) -> dict[str, Any]:
        """What `config.json` keeps."""
        if self.how == "none":
            return {"how": "none"}
        kinds = {"kinds": list(self.kinds)} if self.kinds else {}
        return {"how": self.how, "offset": self.offset.tolist(), "scale": self.scale.tolist()} | kinds


def _none(size: float) -> Scaling:
    return Scaling("none", np.array(0.0), np.array(1.0), root_mean_square=size)


def input_scaling(dataset: Dataset, reference: np.ndarray, standardize: str = "") -> Scaling:
    """Decides how inputs are scaled.

    A table (a `.csv`, or integers of rank 2) is standardized by column, over the training rows. Other integers are
    pixels, standardized by one mean and one deviation, those of the reference set, which all devices know.
    Floating-point inputs are taken as they are, unless they are far from unit scale: then likewise by column, or as a
    whole where they have more axes.

    Args:
      dataset: its inputs are not token ids.
      reference: `[R, …]` inputs of the reference set.
      standardize: `columns`, `whole` or `none`; empty to decide.

    Raises:
      InputError: an unknown choice, or columns where there are none.
    """
    if standardize and standardize not in STANDARDIZE:
        raise suggest("standardize", standardize, STANDARDIZE)
    x: Any = dataset.x_train
    if standardize == "columns" and x.ndim != 2:
        raise InputError(f"--standardize=columns is for inputs [examples, columns], but these are {list(x.shape)}")
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
    """Decides how numbers to predict are scaled: by column in a `.csv` or where they are far from unit scale.

    Then a mean squared error of 1 is that of predicting the mean. `none` is heard, other choices are about inputs.
    """
    y = dataset.y_train.reshape(len(dataset.y_train), -1)
    size = _root_mean_square(y)
    if standardize == "none" or not (dataset.columns or (not dataset.scaled and _far(y, size))):
        return _none(float(size.max()))
    offset, scale = y.mean(0, dtype=float), y.std(0, dtype=float)
    spread = np.ptp(y, axis=0) > 0  # the deviation of equal numbers may be a little above 0
    return Scaling("columns", offset, np.where(spread, scale, 1.0), ("deviation",) * y.shape[1], float(size.max()))


def by_column(x: np.ndarray) -> Scaling:
    """Standardizes columns `[M, P]` by mean and deviation.

    A column of two values becomes 0 and 1. A column that nearly always has one value becomes 0 there, and at most 1
    away from it: by its deviation a rare value would become an enormous number.
    """
    offset, scale, kinds = np.zeros(x.shape[1]), np.ones(x.shape[1]), []
    for number in range(x.shape[1]):
        column = np.asarray(x[:, number], float)
        low, high = column.min(), column.max()
        usual = np.partition(column, len(column) // 2)[len(column) // 2]  # what fills half of the rows is the median
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
    """By column for rank 2, else of all: `[P]` or `[1]`."""
    axes = 0 if x.ndim == 2 else None
    total: Any = sum(np.square(block, dtype=float).sum(axes) for block in blocks(x))
    return np.sqrt(np.atleast_1d(total) / (len(x) if x.ndim == 2 else math.prod(x.shape)))


def _far(x: np.ndarray, size: np.ndarray) -> bool:
    """Whether floating-point inputs are far from unit scale."""
    norm = (size**2).sum() if x.ndim == 2 else size[0] ** 2 * math.prod(x.shape[1:])
    return bool(size.max() > _LARGE or norm < _SMALL)
