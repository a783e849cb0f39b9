"""Splits of data that come without a test set."""

import numpy as np


def split(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows to train on, and of the fifth drawn for testing."""
    test, train = np.split(np.random.default_rng(seed).permutation(rows), [rows // 5])
    return train, test


def note(rows: int) -> str:
    """What is said where a test set is drawn."""
    return f"there is no test set, so {rows // 5} of {rows} examples are drawn for testing"
