"""A data set in host memory."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Inputs with what is to be learned of them.

    Attributes:
      x_train: `[M, …]` floating-point numbers, integer pixels, or token ids.
      y_train: `[M]` int32 labels in `[0, K)`, or floating-point numbers to predict, `[M, K]` or `[M]`.
      x_test: `[T, …]`.
      y_test: as `y_train`.
      outputs: `K`, classes or numbers.
      owner: `[M]` the device each training example was made for, for the partition `natural`, if any.
      tokens: whether integer inputs are token ids, which stay integers, instead of pixels.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    outputs: int
    owner: np.ndarray | None = None
    tokens: bool = False
