"""NumPy archives."""

import zipfile
from pathlib import Path

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.labels import read_targets
from ddjax.data.registry import DATASETS, DatasetEntry
from ddjax.errors import InputError, no_file
from ddjax.types import working_dtype

_NAMES = ("x_train", "y_train", "x_test", "y_test")


def read_npz(path: str, task: str = "") -> Dataset:
    """A NumPy archive with `x_train, y_train, x_test, y_test`.

    Inputs have any shape, and are integers, truth values or finite floating-point numbers. Targets are classes or
    numbers as `labels.read_targets` decides. Images whose channels stand before their rows are turned, and a note
    says so.

    Args:
      path: of the file.
      task: `classification` or `regression`; empty to decide.

    Raises:
      InputError: a missing or unreadable file, or the key, shape, dtype or value that does not fit.
    """
    x_train, y_train, x_test, y_test = _read(path)
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
            f"{list(y_test.shape)}; the same kind of target is needed in both"
        )
    y_train, y_test, outputs, classes, notes = read_targets(
        y_train, y_test, (f"{path}: y_train", f"{path}: y_test"), task
    )
    x_train, x_test = _number(x_train), _number(x_test)
    if _channels_first(x_train.shape):
        notes += (f"images {list(x_train.shape[1:])} are taken to have their channels first, and are turned",)
        x_train, x_test = (np.ascontiguousarray(np.moveaxis(x, 1, -1)) for x in (x_train, x_test))
    return Dataset(x_train, y_train, x_test, y_test, outputs, classes=classes, notes=notes)


def _read(path: str) -> list[np.ndarray]:
    """The four arrays."""
    name = ""
    try:
        with zipfile.ZipFile(Path(path).expanduser()):  # np.load opens other kinds of file too
            pass
        with np.load(Path(path).expanduser(), allow_pickle=False) as archive:
            if missing := set(_NAMES) - set(archive.files):
                held = ", ".join(archive.files) or "nothing"
                raise InputError(f"{path}: missing {', '.join(sorted(missing))}; it holds {held}")
            return [np.asanyarray(archive[name := each]) for each in _NAMES]
    except FileNotFoundError:
        raise no_file(path) from None
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise a dozen kinds on a damaged file
        if "Object arrays" in str(error):
            raise InputError(
                f"{path}: {name} holds Python objects, which may be of any kind; save it as an array of numbers or of "
                f"texts, as by np.array({name}.tolist())"
            ) from None
        raise InputError(f"{path} is not a readable .npz archive: {error or type(error).__name__}") from None


def _number(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    return values if values.dtype.kind in "iu" else values.astype(working_dtype())


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Whether `[M, channels, height, width]` is more likely than `[M, height, width, channels]`."""
    if len(shape) != 4:
        return False
    _, first, rows, last = shape
    return first < rows == last or (first <= 4 < last and first < rows)


def _check(path: str, split: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.dtype.kind not in "biuf":
        raise InputError(f"{path}: x_{split} must be integer or floating-point, its dtype is {x.dtype}")
    if x.ndim < 2 or not x.size:
        raise InputError(f"{path}: x_{split} must have shape [examples, …], none of it 0, got {list(x.shape)}")
    if y.dtype.kind not in "biufUST":
        raise InputError(f"{path}: y_{split} must hold labels or numbers to predict, its dtype is {y.dtype}")
    if y.ndim not in (1, 2) or len(y) != len(x) or not y.size:
        raise InputError(
            f"{path}: y_{split} must have shape [{len(x)}] as x_{split} has examples (or [{len(x)}, K] for numbers to "
            f"predict and one-hot rows), got {list(y.shape)}"
        )
    for name, values in (("x", x), ("y", y)):
        if values.dtype.kind != "f":
            continue
        with np.errstate(over="ignore"):
            finite = np.isfinite(_number(values))
        if not finite.all():
            bad = int(np.argwhere(~finite)[0, 0])
            raise InputError(
                f"{path}: {name}_{split} has values that are not finite in {working_dtype()}, first in example {bad}"
            )


DATASETS.add(DatasetEntry("npz", lambda wanted, path: read_npz(path, wanted.task), uses=("task",), suffix=".npz"))
