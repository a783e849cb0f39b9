"""NumPy archives."""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddjax.data.dataset import Dataset, unlabeled
from ddjax.data.labels import read_targets
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.data.rows import Streamed, blocks, mapped
from ddjax.data.sounds import log_mel
from ddjax.data.tokens import tokenize
from ddjax.errors import InputError, no_file, suggest
from ddjax.types import working_dtype

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_BYTES = 2**24  # bytes per read, if there are several processes
_OTHERS = ("owner", "sample_rate")  # optional arrays


def read_npz(path: str, task: str = "", sample_rate: int = 0, owner_key: str = "") -> Dataset:
    """Read a NumPy archive with the arrays `x_train, y_train, x_test, y_test`.

    Inputs are integers, Boolean values or finite floating-point numbers `[M, …]` of any shape, or texts `[M]`.
    `labels.read_targets` decides whether targets are classes or numbers. If images seem to have their channels first,
    the channels are moved to the last axis, and a note reports this. Texts become token ids (see `tokens.tokenize`).
    Sounds `[M, samples]` become log-mel spectrograms (see `sounds.log_mel`) if the archive or the caller gives a
    `sample_rate`. An optional array `owner` `[M]` contains the owner of each training example, as a number or a name.

    Args:
      path: path of the file.
      task: `classification` or `regression`; if empty, it is inferred from the targets.
      sample_rate: sample rate of sounds, in Hz; 0 to use the array `sample_rate` of the archive, if there is one.
      owner_key: name of the array of owners; empty for `owner`.

    Raises:
      InputError: the file is missing or cannot be read, an array is missing, or a shape, dtype or value is wrong.

    Examples:
      >>> x, y = np.arange(24.0).reshape(6, 2, 2), np.array(["cat", "dog"] * 3)
      >>> np.savez(f"{folder}/mine.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
      >>> dataset = ddjax.data.read_npz(f"{folder}/mine.npz")
      >>> dataset.x_train.shape, dataset.y_train, dataset.classes
      ((6, 2, 2), array([0, 1, 0, 1, 0, 1], dtype=int32), ('cat', 'dog'))
    """
    arrays = _read(path, owner_key)
    x_train, y_train, x_test, y_test = (arrays[name] for name in _NAMES)
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_inputs(path, split, x)
        _check_targets(path, split, x, y)
    owner, owners = _owner(path, arrays, owner_key or "owner", len(x_train))
    if x_train.shape[1:] != x_test.shape[1:] or (x_train.dtype.kind not in "UST" and x_train.dtype != x_test.dtype):
        raise InputError(
            f"{path}: x_train and x_test differ: examples are {list(x_train.shape[1:])} {x_train.dtype} in x_train, "
            f"but {list(x_test.shape[1:])} {x_test.dtype} in x_test"
        )
    if y_train.shape[1:] != y_test.shape[1:] or (y_train.dtype.kind == "f") != (y_test.dtype.kind == "f"):
        raise InputError(
            f"{path}: y_train and y_test differ: {y_train.dtype} {list(y_train.shape)} and {y_test.dtype} "
            f"{list(y_test.shape)}; both need the same kind of target"
        )
    y_train, y_test, outputs, classes, notes = read_targets(
        y_train, y_test, (f"{path}: y_train", f"{path}: y_test"), task
    )
    dataset = Dataset(x_train, y_train, x_test, y_test, outputs, owner, classes=classes, notes=notes, owners=owners)
    return _readied(path, arrays, dataset, sample_rate)


def read_unlabeled(path: str, sample_rate: int = 0) -> Dataset:
    """Read only the array `x_train` of a NumPy archive, for a reference set; other arrays may be missing.

    Inputs are converted as in `read_npz`. All targets are 0, and the test set is empty.

    Raises:
      InputError: the file is missing or cannot be read, or `x_train` is missing or unsuitable.
    """
    arrays = _read(path, names=("x_train",))
    _check_inputs(path, "train", arrays["x_train"])
    return _readied(path, arrays, unlabeled(arrays["x_train"]), sample_rate)


def _readied(path: str, arrays: dict[str, np.ndarray], dataset: Dataset, sample_rate: int) -> Dataset:
    """Convert texts, sounds or numbers to the inputs that models take."""
    train, test, notes = dataset.x_train, dataset.x_test, dataset.notes
    if train.dtype.kind in "UST":
        if sample_rate:
            raise InputError(f"{path}: --sample_rate applies only to sounds, but these inputs are texts; leave it out")
        train, test, more = tokenize(*([str(text) for text in _text(path, x)] for x in (train, test)))
        return dataset._replace(x_train=train, x_test=test, tokens=True, notes=notes + more)
    if rate := sample_rate or _rate(path, arrays):
        train = np.asarray(train)
        return dataset._replace(x_train=log_mel(train, rate), x_test=log_mel(test, rate, train))
    train, test = mapped(train, _number), _number(test)
    if _channels_first(train.shape):
        notes += (
            f"images {list(train.shape[1:])} seem to have their channels first, so the channels are moved to the end",
        )
        train, test = (mapped(x, lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1))) for x in (train, test))
    return dataset._replace(x_train=train, x_test=test, notes=notes)


def _text(path: str, x: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(x, "utf-8") if x.dtype.kind == "S" else x
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the inputs contain bytes that are not UTF-8 text: {error}") from None


def _rate(path: str, arrays: dict[str, np.ndarray]) -> int:
    rate = arrays.get("sample_rate", np.array(0))
    if rate.size != 1 or rate.dtype.kind not in "iuf" or not 0 <= rate.ravel()[0] < 1e9:
        raise InputError(f"{path}: sample_rate must be one number in hertz, got {rate.dtype} {list(rate.shape)}")
    return int(rate.ravel()[0])


def _owner(
    path: str, arrays: dict[str, np.ndarray], name: str, examples: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the owner of each training example as an index into the names of the owners, and these names."""
    if name not in arrays:
        return None, ()
    owner = arrays[name]
    if owner.shape != (examples,) or owner.dtype.kind not in "iubfUS":
        raise InputError(
            f"{path}: {name} must hold one number or name for each of the {examples} training examples, got "
            f"{owner.dtype} {list(owner.shape)}"
        )
    _check_finite(path, name, owner)
    names, place = np.unique(owner, return_inverse=True)
    return place, tuple(map(str, names))


def _read(path: str, owner_key: str = "", names: tuple[str, ...] = _NAMES) -> dict[str, Any]:
    """Read from an archive only the arrays that ddjax uses."""
    name = ""
    try:
        with zipfile.ZipFile(Path(path).expanduser()):  # because np.load also opens other kinds of files
            pass
        with np.load(Path(path).expanduser(), allow_pickle=False) as archive:
            if missing := set(names) - set(archive.files):
                held = ", ".join(archive.files) or "nothing"
                raise InputError(f"{path}: missing {', '.join(sorted(missing))}; the archive contains {held}")
            if owner_key and owner_key not in archive.files:
                raise suggest(f"array of {path}", owner_key, archive.files)
            wanted = {*names, *_OTHERS, owner_key} & set(archive.files)
            found: dict[str, Any] = {}
            for name in sorted(wanted):
                later = _streamed(path, name) if name == "x_train" and _several() else None
                found[name] = np.asanyarray(archive[name]) if later is None else later
            return found
    except FileNotFoundError:
        raise no_file(path) from None
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise many types of exception for a damaged file
        if "Object arrays" in str(error):
            raise InputError(
                f"{path}: {name} holds Python objects; save it as an array of numbers or texts, for example with "
                f"np.array({name}.tolist())"
            ) from None
        raise InputError(f"{path} is not a readable .npz archive: {error or type(error).__name__}") from None


def _several() -> bool:
    """Return whether there are several processes; do not start JAX's backend if there is only one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _streamed(path: str, name: str) -> Streamed | None:
    """Stream an array from an archive, after one pass that checks that the array is readable.

    The result is `None` if the array is stored in column-major order, has only one axis, is empty, or does not contain
    numbers.
    """

    def opened(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(stream)

    def member() -> Any:
        return zipfile.ZipFile(Path(path).expanduser()).open(f"{name}.npy")

    with member() as stream:
        shape, by_column, dtype = opened(stream)
    if by_column or len(shape) < 2 or dtype.kind not in "biuf" or not math.prod(shape):
        return None
    size = math.prod(shape[1:]) * dtype.itemsize
    rows = max(1, _BYTES // size)

    def make() -> Iterator[np.ndarray]:
        with member() as stream:
            opened(stream)
            for start in range(0, shape[0], rows):
                part = min(rows, shape[0] - start)
                yield np.frombuffer(stream.read(part * size), dtype).reshape(part, *shape[1:])

    for _ in make():
        pass
    return Streamed(shape, dtype, make)


def _number(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    return values if values.dtype.kind in "iu" else values.astype(working_dtype(), copy=False)


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether the shape is more likely `[M, channels, height, width]` than `[M, height, width, channels]`."""
    if len(shape) != 4:
        return False
    _, first, rows, last = shape
    return first < rows == last or (first <= 4 < last and first < rows)


def _check_inputs(path: str, split: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "biufUST":
        raise InputError(f"{path}: x_{split} must hold integers, floating-point numbers or texts, got {x.dtype}")
    texts = x.dtype.kind in "UST"
    if texts and (x.ndim != 1 or 0 in x.shape):
        raise InputError(f"{path}: x_{split} holds texts, so its shape must be [examples], got {list(x.shape)}")
    if not texts and (x.ndim < 2 or 0 in x.shape):
        raise InputError(f"{path}: x_{split} must have shape [examples, …] without empty axes, got {list(x.shape)}")
    _check_finite(path, f"x_{split}", x)


def _check_targets(path: str, split: str, x: np.ndarray, y: np.ndarray) -> None:
    if y.dtype.kind not in "biufUST":
        raise InputError(f"{path}: y_{split} must hold labels or numbers to predict, got {y.dtype}")
    if y.ndim not in (1, 2) or len(y) != len(x) or not y.size:
        raise InputError(
            f"{path}: y_{split} must have shape [{len(x)}] because x_{split} has {len(x)} examples (or [{len(x)}, K] "
            f"for numbers to predict and one-hot rows), got {list(y.shape)}"
        )
    _check_finite(path, f"y_{split}", y)


def _check_finite(path: str, name: str, values: np.ndarray) -> None:
    if values.dtype.kind != "f":
        return
    start = 0
    for block in blocks(values):
        with np.errstate(over="ignore"):
            finite = np.isfinite(_number(block))
        if not finite.all():
            bad = start + int(np.argwhere(~finite)[0, 0])
            raise InputError(
                f"{path}: {name} has values that are not finite in {working_dtype()}; the first is in example {bad}"
            )
        start += len(block)


def _build(wanted: Wanted, path: str) -> Dataset:
    if wanted.unlabeled:
        return read_unlabeled(path, wanted.sample_rate)
    return read_npz(path, wanted.task, wanted.sample_rate, wanted.owner_key)


DATASETS.add(
    DatasetEntry(
        "npz",
        _build,
        uses=("task", "sample_rate"),
        form="FILE.npz",
        suffixes=(".npz",),
    )
)
