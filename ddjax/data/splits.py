"""Splits of data that come without a test set."""

import numpy as np


def split(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a fifth of the rows for testing; return the row numbers for training and for testing."""
    test, train = np.split(np.random.default_rng(seed).permutation(rows), [rows // 5])
    return train, test


def note(rows: int) -> str:
    """Return the note that says how many of `rows` examples are drawn for testing."""
    return f"there is no test set, so {rows // 5} of {rows} examples are drawn for testing"
