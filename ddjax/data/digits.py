"""Handwritten digits."""

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted


def digits(wanted: Wanted) -> Dataset:
    """Load the UCI handwritten digits from scikit-learn: 1,797 images of 8×8 pixels, a fifth of them for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = images.astype(np.uint8).reshape(-1, 8, 8)
    order = np.random.default_rng(wanted.seed).permutation(len(x))
    test, train = np.split(order, [len(x) // 5 + 1])
    y = labels.astype(np.int32)
    return Dataset(x[train], y[train], x[test], y[test], 10)


DATASETS.add(DatasetEntry("digits", digits))
