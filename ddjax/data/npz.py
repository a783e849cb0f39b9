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
_BYTES = 2**24  # read at a time by each of several processes
_OTHERS = ("owner", "sample_rate")  # which may be there, too


def read_npz(path: str, task: str = "", sample_rate: int = 0, owner_key: str = "") -> Dataset:
    """A NumPy archive with `x_train, y_train, x_test, y_test`.

    Inputs have any shape, and are integers, truth values or finite floating-point numbers. Targets are classes or
    numbers as `labels.read_targets` decides. Images whose channels stand before their rows are turned, and a note
    says so. Texts `[M]` become token ids, see `tokens.tokenize`. Sounds `[M, samples]` become log-mel spectrograms, see
    `sounds.log_mel`, where the archive holds a `sample_rate` or one is given. An array `owner` `[M]` of numbers or
    names says who holds each training example.

    Args:
      path: of the file.
      task: `classification` or `regression`; empty to decide.
      sample_rate: in hertz, where inputs are sounds.
      owner_key: another name of `owner`.

    Raises:
      InputError: a missing or unreadable file, or the key, shape, dtype or value that does not fit.
    """
    arrays = _read(path, owner_key)
    x_train, y_train, x_test, y_test = (arrays[name] for name in _NAMES)
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_inputs(path, split, x)
        _check_targets(path, split, x, y)
    owner, owners = _owner(path, arrays, owner_key or "owner", len(x_train))
    if x_train.shape[1:] != x_test.shape[1:] or (x_train.dtype.kind not in "UST" and x_train.dtype != x_test.dtype):
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
    dataset = Dataset(x_train, y_train, x_test, y_test, outputs, owner, classes=classes, notes=notes, owners=owners)
    return _readied(path, arrays, dataset, sample_rate)


def read_unlabeled(path: str, sample_rate: int = 0) -> Dataset:
    """The array `x_train` of a NumPy archive, for a reference set; other arrays may be missing, and are not read.

    Inputs become what `read_npz` makes of them. The targets are zeros, and there is no test set.

    Raises:
      InputError: a missing or unreadable file, no `x_train`, or what is wrong with it.
    """
    arrays = _read(path, names=("x_train",))
    _check_inputs(path, "train", arrays["x_train"])
    return _readied(path, arrays, unlabeled(arrays["x_train"]), sample_rate)


def _readied(path: str, arrays: dict[str, np.ndarray], dataset: Dataset, sample_rate: int) -> Dataset:
    """The data set with inputs that models take, of texts, sounds or numbers."""
    train, test, notes = dataset.x_train, dataset.x_test, dataset.notes
    if train.dtype.kind in "UST":
        if sample_rate:
            raise InputError(f"{path}: --sample_rate is for sounds, and inputs are texts here; leave it out")
        train, test, more = tokenize(*([str(text) for text in _text(path, x)] for x in (train, test)))
        return dataset._replace(x_train=train, x_test=test, tokens=True, notes=notes + more)
    if rate := sample_rate or _rate(path, arrays):
        train = np.asarray(train)
        return dataset._replace(x_train=log_mel(train, rate), x_test=log_mel(test, rate, train))
    train, test = mapped(train, _number), _number(test)
    if _channels_first(train.shape):
        notes += (f"images {list(train.shape[1:])} are taken to have their channels first, and are turned",)
        train, test = (mapped(x, lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1))) for x in (train, test))
    return dataset._replace(x_train=train, x_test=test, notes=notes)


def _text(path: str, x: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(x, "utf-8") if x.dtype.kind == "S" else x
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: inputs hold bytes that are not UTF-8 text: {error}") from None


def _rate(path: str, arrays: dict[str, np.ndarray]) -> int:
    rate = arrays.get("sample_rate", np.array(0))
    if rate.size != 1 or rate.dtype.kind not in "iuf" or not 0 <= rate.ravel()[0] < 1e9:
        raise InputError(f"{path}: sample_rate must be one number in hertz, got {rate.dtype} {list(rate.shape)}")
    return int(rate.ravel()[0])


def _owner(
    path: str, arrays: dict[str, np.ndarray], name: str, examples: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Who holds each training example, as numbers, and their names."""
    if name not in arrays:
        return None, ()
    owner = arrays[name]
    if owner.shape != (examples,) or owner.dtype.kind not in "iubfUS":
        raise InputError(
            f"{path}: {name} must hold a number or a name for each of the {examples} training examples, got "
            f"{owner.dtype} {list(owner.shape)}"
        )
    _check_finite(path, name, owner)
    names, place = np.unique(owner, return_inverse=True)
    return place, tuple(map(str, names))


def _read(path: str, owner_key: str = "", names: tuple[str, ...] = _NAMES) -> dict[str, Any]:
    """The arrays that mean something."""
    name = ""
    try:
        with zipfile.ZipFile(Path(path).expanduser()):  # np.load opens other kinds of file too
            pass
        with np.load(Path(path).expanduser(), allow_pickle=False) as archive:
            if missing := set(names) - set(archive.files):
                held = ", ".join(archive.files) or "nothing"
                raise InputError(f"{path}: missing {', '.join(sorted(missing))}; it holds {held}")
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
    except Exception as error:  # NumPy and zipfile raise a dozen kinds on a damaged file
        if "Object arrays" in str(error):
            raise InputError(
                f"{path}: {name} holds Python objects, which may be of any kind; save it as an array of numbers or of "
                f"texts, as by np.array({name}.tolist())"
            ) from None
        raise InputError(f"{path} is not a readable .npz archive: {error or type(error).__name__}") from None


def _several() -> bool:
    """Whether this is one of several processes; a single one does not start JAX's backend by asking."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _streamed(path: str, name: str) -> Streamed | None:
    """An array of an archive, gone through once to see that it can be read; `None` for what does not lie row by row."""

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
    """Whether `[M, channels, height, width]` is more likely than `[M, height, width, channels]`."""
    if len(shape) != 4:
        return False
    _, first, rows, last = shape
    return first < rows == last or (first <= 4 < last and first < rows)


def _check_inputs(path: str, split: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "biufUST":
        raise InputError(f"{path}: x_{split} must hold integers, floating-point numbers or texts, but is {x.dtype}")
    texts = x.dtype.kind in "UST"
    if texts and (x.ndim != 1 or 0 in x.shape):
        raise InputError(f"{path}: x_{split} holds texts, and must have shape [examples], got {list(x.shape)}")
    if not texts and (x.ndim < 2 or 0 in x.shape):
        raise InputError(f"{path}: x_{split} must have shape [examples, …], none of it 0, got {list(x.shape)}")
    _check_finite(path, f"x_{split}", x)


def _check_targets(path: str, split: str, x: np.ndarray, y: np.ndarray) -> None:
    if y.dtype.kind not in "biufUST":
        raise InputError(f"{path}: y_{split} must hold labels or numbers to predict, its dtype is {y.dtype}")
    if y.ndim not in (1, 2) or len(y) != len(x) or not y.size:
        raise InputError(
            f"{path}: y_{split} must have shape [{len(x)}] as x_{split} has examples (or [{len(x)}, K] for numbers to "
            f"predict and one-hot rows), got {list(y.shape)}"
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
                f"{path}: {name} has values that are not finite in {working_dtype()}, first in example {bad}"
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
