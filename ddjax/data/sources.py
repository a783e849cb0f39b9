"""Where data sets come from: each a function to a `Dataset`."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddjax.types import InputError, suggest


class Dataset(NamedTuple):
    """A labelled data set in host memory.

    Attributes:
      x_train: `[M, …]` float32, or integer pixels.
      y_train: `[M]` int32 in `[0, classes)`.
      x_test: `[T, …]`.
      y_test: `[T]`.
      classes: `K`.
      owner: `[M]` the device each training example was made for, for the partition `natural`, if any.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    owner: np.ndarray | None = None


def digits(seed: int) -> Dataset:
    """UCI handwritten digits, packaged with scikit-learn: 1,797 images 8×8, a fifth of them for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = images.astype(np.uint8).reshape(-1, 8, 8)
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [len(x) // 5 + 1])
    y = labels.astype(np.int32)
    return Dataset(x[train], y[train], x[test], y[test], 10)


def synthetic_classification(
    seed: int, devices: int, train: int, test: int, classes: int = 10, dimensions: int = 60, heterogeneity: float = 1.0
) -> Dataset:
    """One labelling for all, inputs that differ between devices.

    After Synthetic(α, β) of FedProx (Li et al., MLSys 2020): device `n` draws `x ~ N(v_n, Σ)` with `v_n ~ N(0, h² I)`
    and diagonal `Σ_jj = j^−1.2`, labelled `argmax(A x + b)`, `A` and `b` standard normal. Heterogeneity `h = 0` makes
    all devices alike; the larger it is, the further apart their inputs and the fewer their classes. Test examples come
    from all devices in equal parts.

    Args:
      seed: of everything.
      devices: `N`.
      train: training examples in all, owned in turn.
      test: test examples in all.
      classes: `K`.
      dimensions: length of an input.
      heterogeneity: `h`.
    """
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(dimensions, classes)), rng.normal(size=classes)
    scale = np.arange(1, dimensions + 1) ** -0.6
    centers = heterogeneity * rng.normal(size=(devices, dimensions))
    owner = np.arange(train + test) % devices
    x = centers[owner] + scale * rng.normal(size=(train + test, dimensions))
    y = (x @ weights + bias).argmax(1).astype(np.int32)
    x = x.astype(np.float32)
    return Dataset(x[:train], y[:train], x[train:], y[train:], classes, owner[:train])


def npz(path: str) -> Dataset:
    """A NumPy archive with `x_train, y_train, x_test, y_test`: inputs of any shape, integer (pixels) or floating-point,
    finite; labels integers from 0.

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
    return Dataset(_as_input(x_train), y_train.astype(np.int32), _as_input(x_test), y_test.astype(np.int32), classes)


def _as_input(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.kind in "iu" else x.astype(np.float32)


def _check(path: str, split: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.dtype.kind not in "iuf":
        raise InputError(f"{path}: x_{split} must be integer or floating-point, its dtype is {x.dtype}")
    if x.ndim < 2 or not x.size:
        raise InputError(f"{path}: x_{split} must have shape [examples, …], none of it 0, got {list(x.shape)}")
    if y.dtype.kind not in "iu":
        raise InputError(f"{path}: y_{split} must hold integer labels, its dtype is {y.dtype}")
    if y.shape != (len(x),):
        raise InputError(f"{path}: y_{split} must have shape [{len(x)}] as x_{split} has examples, got {list(y.shape)}")
    with np.errstate(over="ignore"):
        finite = np.isfinite(_as_input(x))
    if not finite.all():
        bad = int(np.argwhere(~finite)[0, 0])
        raise InputError(f"{path}: x_{split} has values that are not finite in float32, first in example {bad}")
    if y.min() < 0:
        raise InputError(f"{path}: y_{split} holds the label {y.min()}; labels count from 0")


DATASETS = ("digits", "synthetic_classification", "FILE.npz")


def load(spec: str, *, devices: int = 1, train: int = 1000, seed: int = 0) -> Dataset:
    """The named data set.

    Args:
      spec: `digits`; `synthetic_classification[:CLASSES[:DIMENSIONS[:HETEROGENEITY]]]`; the path of a `.npz`.
      devices: `N`, for synthetic data.
      train: training examples to make, for synthetic data.
      seed: of a random split or of synthetic data.

    Raises:
      InputError: unknown name, malformed arguments, or what the file has wrong.
    """
    name, *fields = spec.split(":")
    if spec.endswith(".npz"):
        return npz(spec)
    if name == "digits" and not fields:
        return digits(seed)
    if name == "synthetic_classification":
        try:
            arguments = [kind(field) for kind, field in zip((int, int, float), fields, strict=False)]
            if (
                len(fields) > 3
                or any(a < low for a, low in zip(arguments, (2, 1, 0), strict=False))
                or not np.isfinite(arguments).all()
            ):
                raise ValueError
        except ValueError:
            raise InputError(
                f"dataset {spec!r}: expected synthetic_classification:CLASSES:DIMENSIONS:HETEROGENEITY "
                "(at least 2, 1 and 0), each of which may be left out from the right"
            ) from None
        return synthetic_classification(seed, devices, train, max(1000, devices), *arguments)
    raise suggest("dataset", spec, DATASETS)
