"""Folders of IDX files, the format in which MNIST and its likes are distributed."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.labels import read_targets
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.data.splits import note, split
from ddjax.errors import InputError, no_file

_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str) -> np.ndarray:
    """The array in an IDX file, which may be gzipped.

    Raises:
      InputError: no file, or not one of this format.
    """
    file = Path(path).expanduser()
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise no_file(path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a readable IDX file: {getattr(error, 'strerror', None) or error}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES or not content[3]:
        raise InputError(f"{path} is not an IDX file: it begins with the bytes {content[:4].hex(' ') or 'of none'}")
    dtype, axes = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    shape = tuple(int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    if len(content) != start + math.prod(shape) * dtype.itemsize:
        raise InputError(
            f"{path} is not a whole IDX file: its header says {list(shape)} of {dtype.itemsize} bytes, and "
            f"{len(content) - start} bytes follow"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx_folder(wanted: Wanted, path: str) -> Dataset:
    """A folder with IDX files of training images and labels, and of test images and labels.

    They are known by their names: `train` or `t10k` (or `test`), and `images` or `labels`. Without a test set a fifth
    is drawn.

    Raises:
      InputError: the file that is missing, there twice or malformed.
    """
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(Path(path).expanduser().iterdir()):
        if (key := _key(file)) is None:
            continue
        if key in files:
            raise InputError(
                f"{path} holds {files[key].name} and {file.name}, both {' '.join(key)}; a folder holds one data set"
            )
        files[key] = file
    splits = ("train", "test") if any(split == "test" for split, _ in files) else ("train",)
    arrays: dict[tuple[str, str], np.ndarray] = {}
    for key in ((each, part) for each in splits for part in ("images", "labels")):
        if key not in files:
            raise InputError(f"{path} has no IDX file of {' '.join(key)}; it holds " + _held(files))
        arrays[key] = read_idx(str(files[key]))
    for each in splits:
        x, y = arrays[each, "images"], arrays[each, "labels"]
        if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or not len(y):
            raise InputError(
                f"{files[each, 'labels']} holds {list(y.shape)}, which are not the labels of the images {list(x.shape)}"
            )
    x, y = arrays["train", "images"], arrays["train", "labels"]
    notes: tuple[str, ...] = ()
    if len(splits) == 2:
        x_test, y_test = arrays["test", "images"], arrays["test", "labels"]
    else:
        notes = (note(len(y)),)
        train, test = split(len(y), wanted.seed)
        x, y, x_test, y_test = x[train], y[train], x[test], y[test]
    if x.shape[1:] != x_test.shape[1:]:
        raise InputError(f"{path}: images are {list(x.shape[1:])} in training and {list(x_test.shape[1:])} in testing")
    targets = read_targets(y, y_test, (f"{path}: labels to train on", f"{path}: labels to test on"), wanted.task)
    return Dataset(
        x, targets.y_train, x_test, targets.y_test, targets.outputs, classes=targets.classes,
        notes=notes + targets.notes,
    )  # fmt: skip


def _key(file: Path) -> tuple[str, str] | None:
    """Split and part that a file of the folder is; `None` for another file."""
    name = file.name.lower()
    if "idx" not in name or name.startswith("."):
        return None
    part = "labels" if "label" in name else "images" if "image" in name else ""
    if not part:
        return None
    return ("train" if "train" in name else "test"), part


def _held(files: dict[tuple[str, str], Path]) -> str:
    return ", ".join(file.name for file in files.values())


def _recognize(path: Path) -> bool:
    return path.is_dir() and any(_key(file) for file in path.iterdir())


DATASETS.add(DatasetEntry("idx", read_idx_folder, uses=("task",), form="FOLDER of IDX files", recognize=_recognize))
