"""Tables with named columns."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.registry import DATASETS, DatasetEntry
from ddjax.errors import InputError, suggest
from ddjax.types import working_dtype

if TYPE_CHECKING:
    import pandas as pd

# Different texts of one column; beyond, it is no category but a name or a number with something wrong in it.
_CATEGORIES = 100


def read_csv(path: str, target_column: str, seed: int) -> Dataset:
    """A `.csv` with a header, a fifth of its rows drawn for testing. A target of numbers is to be predicted, any
    other is of labels, numbered as sorted.

    Of the other columns, numbers are standardized by mean and standard deviation over the training rows, missing ones
    filled with the median there; texts become one column of 0 and 1 for each found in the training rows, all 0 for a
    missing one (not standardized: of a rare category that would make an enormous number). Numbers to predict are
    standardized likewise, so an error of 1 is that of predicting the mean.

    Args:
      path: of the file.
      target_column: the name of what is to be learned.
      seed: of the split.

    Raises:
      InputError: a missing or unreadable file, or the column or row that does not fit.
    """
    table = _read(path)
    if not target_column:
        raise InputError(f"{path}: --target_column must name what is to be learned: {', '.join(table.columns)}")
    if target_column not in table:
        raise suggest("column", target_column, table.columns)
    for name, column in table.items():
        if column.isna().all():
            raise InputError(f"{path}: column {name!r} has no value")
        if _numeric(column) and np.isinf(column).any():
            raise InputError(f"{path}: column {name!r} is infinite in line {np.isinf(column).argmax() + 2}")
    target = table.pop(target_column)
    if target.isna().any():
        raise InputError(
            f"{path}: {target_column!r} is missing in {target.isna().sum()} rows, first in line "
            f"{target.isna().argmax() + 2}"
        )
    if table.empty:
        raise InputError(f"{path}: there is no column beside {target_column!r} to learn from")
    if target.nunique() < 2:
        raise InputError(f"{path}: {target_column!r} has one value only; at least two are needed")
    test, train = np.split(np.random.default_rng(seed).permutation(len(table)), [len(table) // 5])
    x = np.hstack([_features(path, column, train) for _, column in table.items()])
    if _numeric(target):
        y, outputs = _standardized(target.to_numpy(float)[:, None], train), 1
    else:
        labels, y = np.unique(target.astype(str), return_inverse=True)
        y, outputs = y.astype(np.int32), len(labels)
    return Dataset(x[train], y[train], x[test], y[test], outputs)


def _read(path: str) -> "pd.DataFrame":
    import pandas as pd  # slow to import

    try:
        table = pd.read_csv(Path(path).expanduser(), skipinitialspace=True)
    except FileNotFoundError:
        raise InputError(f"no file {path!r}") from None
    except (OSError, ValueError) as error:  # pandas' own errors are of the second
        raise InputError(f"{path} is not a readable .csv: {error}") from None
    if len(table) < 5:
        raise InputError(f"{path}: {len(table)} rows are too few to test on a fifth of them; at least 5 are needed")
    return table


def _numeric(column: "pd.Series") -> bool:
    return column.dtype.kind in "iuf"


def _features(path: str, column: "pd.Series", train: np.ndarray) -> np.ndarray:
    """`[rows, …]` inputs made of a column; `train` are the rows that may be looked at."""
    if _numeric(column):
        seen = column.iloc[train]
        if seen.isna().all():
            raise InputError(f"{path}: column {column.name!r} has no value in the training rows")
        return _standardized(column.fillna(seen.median()).to_numpy(float)[:, None], train)
    categories = np.sort(column.iloc[train].dropna().astype(str).unique())
    if len(categories) > _CATEGORIES:
        raise InputError(
            f"{path}: column {column.name!r} has {len(categories)} different texts, the first {categories[0]!r}; at "
            f"most {_CATEGORIES} can be categories, so mend it or take it out"
        )
    return (column.astype(str).to_numpy()[:, None] == categories).astype(working_dtype())


def _standardized(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """`x` `[rows, 1]` less its mean over its standard deviation, those of the rows `train`."""
    seen = x[train]
    scale = seen.std() if np.ptp(seen) else 1.0  # that of equal numbers may be a little above 0
    return ((x - seen.mean()) / scale).astype(working_dtype())


DATASETS.add(
    DatasetEntry(
        "csv",
        lambda wanted, path: read_csv(path, wanted.target_column, wanted.seed),
        uses=("target_column",),
        suffix=".csv",
    )
)
