"""NumPy archives."""

import zipfile
from pathlib import Path

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.registry import DATASETS, DatasetEntry
from ddjax.errors import InputError
from ddjax.types import working_dtype


def read_npz(path: str) -> Dataset:
    """A NumPy archive with `x_train, y_train, x_test, y_test`: inputs of any shape, integer (pixels) or floating-point,
    finite; labels integers from 0, `[M]`, or floating-point numbers to predict, `[M]` or `[M, K]`.

    Raises:
      InputError: a missing or unreadable file, or the key, shape, dtype or value that does not fit.
    """
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with zipfile.ZipFile(Path(path).expanduser()):  # np.load opens other kinds of file too
            pass
        with np.load(Path(path).expanduser(), allow_pickle=False) as archive:
            missing = set(names) - set(archive.files)
            if missing:
                held = ", ".join(archive.files) or "nothing"
                raise InputError(f"{path}: missing {', '.join(sorted(missing))}; it holds {held}")
            x_train, y_train, x_test, y_test = (np.asanyarray(archive[name]) for name in names)
    except FileNotFoundError:
        raise InputError(f"no file {path!r}") from None
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise a dozen kinds on a damaged file
        raise InputError(f"{path} is not a readable .npz archive: {error or type(error).__name__}") from None
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check(path, split, x, y)
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise InputError(
            f"{path}: x_train and x_test differ: examples of shape {list(x_train.shape[1:])} {x_train.dtype} "
            f"and {list(x_test.shape[1:])} {x_test.dtype}"
        )
    if y_train.shape[1:] != y_test.shape[1:] or (y_train.dtype.kind == "f") != (y_test.dtype.kind == "f"):
        raise InputError(
            f"{path}: y_train and y_test differ: {y_train.dtype} {list(y_train.shape)} and {y_test.dtype} "
            f"{list(y_test.shape)}; integer labels, or floating-point numbers to predict, are needed in both"
        )
    x_train, x_test = _number(x_train), _number(x_test)
    if y_train.dtype.kind == "f":
        outputs = y_train.shape[1] if y_train.ndim > 1 else 1
        return Dataset(x_train, _number(y_train), x_test, _number(y_test), outputs)
    classes = int(y_train.max()) + 1
    if classes < 2:
        raise InputError(f"{path}: y_train holds one class only; at least two are needed")
    if classes > len(y_train):
        raise InputError(
            f"{path}: y_train holds the label {classes - 1} (example {y_train.argmax()}), more than it has examples; "
            "labels count from 0"
        )
    if y_test.max() >= classes:
        raise InputError(f"{path}: y_test holds the label {y_test.max()}, but y_train goes from 0 to {classes - 1}")
    return Dataset(x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32), classes)


def _number(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind in "iu" else values.astype(working_dtype())


def _check(path: str, split: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.dtype.kind not in "iuf":
        raise InputError(f"{path}: x_{split} must be integer or floating-point, its dtype is {x.dtype}")
    if x.ndim < 2 or not x.size:
        raise InputError(f"{path}: x_{split} must have shape [examples, …], none of it 0, got {list(x.shape)}")
    if y.dtype.kind not in "iuf":
        raise InputError(f"{path}: y_{split} must hold integer labels or numbers to predict, its dtype is {y.dtype}")
    if y.shape != (len(x),) and not (y.dtype.kind == "f" and y.ndim == 2 and len(y) == len(x) and y.size):
        raise InputError(
            f"{path}: y_{split} must have shape [{len(x)}] as x_{split} has examples (of numbers to predict "
            f"[{len(x)}, K] too), got {list(y.shape)}"
        )
    for name, values in (("x", x), ("y", y)):
        with np.errstate(over="ignore"):
            finite = np.isfinite(_number(values))
        if not finite.all():
            bad = int(np.argwhere(~finite)[0, 0])
            raise InputError(
                f"{path}: {name}_{split} has values that are not finite in {working_dtype()}, first in example {bad}"
            )
    if y.dtype.kind != "f" and y.min() < 0:
        raise InputError(f"{path}: y_{split} holds the label {y.min()}; labels count from 0")


DATASETS.add(DatasetEntry("npz", lambda wanted, path: read_npz(path), suffix=".npz"))
