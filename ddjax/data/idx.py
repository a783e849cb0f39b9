"""Folders of IDX files, the format of MNIST and similar data sets."""

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
    """Read the array in an IDX file, which may be gzipped.

    Raises:
      InputError: the file does not exist, or is not in the IDX format.
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
        begins = f"begins with the bytes {content[:4].hex(' ')}" if content else "is empty"
        raise InputError(f"{path} is not an IDX file: it {begins}")
    dtype, axes = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    shape = tuple(int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    if len(content) != start + math.prod(shape) * dtype.itemsize:
        raise InputError(
            f"{path} is not a complete IDX file: its header announces shape {list(shape)} with {dtype.itemsize} bytes "
            f"per number, but {len(content) - start} bytes follow"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx_folder(wanted: Wanted, path: str) -> Dataset:
    """Read a folder of IDX files: training images, training labels, test images and test labels.

    The name of a file shows what the file contains: `train` or `t10k` (or `test`), and `images` or `labels`. If there
    is no test set, a fifth of the examples is drawn for testing.

    Raises:
      InputError: a file is missing or malformed, the names of two files announce the same content, or images and labels
        do not match.
    """
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(Path(path).expanduser().iterdir()):
        if (key := _key(file)) is None:
            continue
        if key in files:
            raise InputError(
                f"{path} contains both {files[key].name} and {file.name} for {' '.join(key)}; "
                "keep one data set per folder"
            )
        files[key] = file
    splits = ("train", "test") if any(split == "test" for split, _ in files) else ("train",)
    arrays: dict[tuple[str, str], np.ndarray] = {}
    for key in ((each, part) for each in splits for part in ("images", "labels")):
        if key not in files:
            raise InputError(f"{path} has no IDX file of {' '.join(key)}; this folder contains {_held(files)}")
        arrays[key] = read_idx(str(files[key]))
    for each in splits:
        x, y = arrays[each, "images"], arrays[each, "labels"]
        if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or not len(y):
            raise InputError(
                f"{files[each, 'labels']} has shape {list(y.shape)}, which does not match the shape {list(x.shape)} of "
                "the images; one label per image is needed"
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
        raise InputError(
            f"{path}: training images have shape {list(x.shape[1:])}, but test images have shape "
            f"{list(x_test.shape[1:])}; all images must have the same shape"
        )
    targets = read_targets(y, y_test, (f"{path}: training labels", f"{path}: test labels"), wanted.task)
    return Dataset(
        x, targets.y_train, x_test, targets.y_test, targets.outputs, classes=targets.classes,
        notes=notes + targets.notes,
    )  # fmt: skip


def _key(file: Path) -> tuple[str, str] | None:
    """Return the split and the part that an IDX file contains; `None` for any other file."""
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
