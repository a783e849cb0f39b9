"""Where data sets come from: each a function to a `Dataset`."""

import zipfile
from pathlib import Path

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.tables import csv
from ddjax.errors import InputError, suggest
from ddjax.types import working_dtype


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
    x = x.astype(working_dtype())
    return Dataset(x[:train], y[:train], x[train:], y[train:], classes, owner[:train])


def synthetic_regression(
    seed: int,
    devices: int,
    train: int,
    test: int,
    dimensions: int = 10,
    noise: float = 0.1,
    heterogeneity: float = 0.5,
) -> Dataset:
    """Numbers that are linear in the input but for noise, with inputs and maps that differ between devices.

    Device `n` draws `x = S (h c_n + ε)` with diagonal `S_jj² = j^−1.2 / ((1 + h²) Σ_i i^−1.2)`, so that the mean of
    `‖x‖²` is 1, and `y = (w + h u_n)ᵀ x + b + σ e`. All of `c_n, ε, w, u_n, b, e` are standard normal, and `w` and `b`
    those of all devices. Heterogeneity `h = 0` makes all devices alike; the larger it is, the further apart are their
    inputs and what each finds alone. Test examples come from all devices in equal parts.

    Args:
      seed: of everything.
      devices: `N`.
      train: training examples in all, owned in turn.
      test: test examples in all.
      dimensions: length of an input.
      noise: `σ`.
      heterogeneity: `h`.
    """
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=dimensions), rng.normal()
    centers, offsets = heterogeneity * rng.normal(size=(2, devices, dimensions))
    variances = np.arange(1, dimensions + 1) ** -1.2
    owner = np.arange(train + test) % devices
    x = centers[owner] + rng.normal(size=(train + test, dimensions))
    x *= np.sqrt(variances / ((1 + heterogeneity**2) * variances.sum()))
    y = ((weights + offsets[owner]) * x).sum(1) + bias + noise * rng.normal(size=len(x))
    x, y = x.astype(working_dtype()), y.astype(working_dtype())[:, None]
    return Dataset(x[:train], y[:train], x[train:], y[train:], 1, owner[:train])


def npz(path: str) -> Dataset:
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


DATASETS = ("digits", "synthetic_classification", "synthetic_regression", "FILE.npz", "FILE.csv")
# name → (function, usage of its arguments, their types and least values).
_SYNTHETIC = {
    "synthetic_classification": (
        synthetic_classification,
        "CLASSES:DIMENSIONS:HETEROGENEITY",
        ((int, 2), (int, 1), (float, 0)),
    ),
    "synthetic_regression": (
        synthetic_regression,
        "DIMENSIONS:NOISE:HETEROGENEITY",
        ((int, 1), (float, 0), (float, 0)),
    ),
}


def load(spec: str, *, devices: int = 1, train: int = 1000, seed: int = 0, target_column: str = "") -> Dataset:
    """The named data set.

    Args:
      spec: `digits`; `synthetic_classification[:CLASSES[:DIMENSIONS[:HETEROGENEITY]]]`;
        `synthetic_regression[:DIMENSIONS[:NOISE[:HETEROGENEITY]]]`; the path of a `.npz` or `.csv`.
      devices: `N`, for synthetic data.
      train: training examples to make, for synthetic data.
      seed: of a random split or of synthetic data.
      target_column: of a `.csv`, what is to be learned.

    Raises:
      InputError: unknown name, malformed arguments, or what the file has wrong.
    """
    name, *fields = spec.split(":")
    if spec.endswith(".csv"):
        return csv(spec, target_column, seed)
    if target_column:
        raise InputError(f"--target_column is of a .csv, and the data set is {spec!r}")
    if spec.endswith(".npz"):
        return npz(spec)
    if name == "digits" and not fields:
        return digits(seed)
    if name in _SYNTHETIC:
        make, usage, kinds = _SYNTHETIC[name]
        try:
            arguments = [kind(field) for (kind, _), field in zip(kinds, fields, strict=False)]
            if (
                len(fields) > len(kinds)
                or any(a < least for a, (_, least) in zip(arguments, kinds, strict=False))
                or not np.isfinite(arguments).all()
            ):
                raise ValueError
        except ValueError:
            lows = ", ".join(str(least) for _, least in kinds)
            raise InputError(
                f"dataset {spec!r}: expected {name}:{usage} (at least {lows}), each of which may be left out from the "
                "right"
            ) from None
        return make(seed, devices, train, max(1000, devices), *arguments)
    raise suggest("dataset", spec, DATASETS)
