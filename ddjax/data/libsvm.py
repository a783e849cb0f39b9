"""Files in the format of LIBSVM and SVMlight."""

import bz2
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.labels import read_targets
from ddjax.data.registry import DATASETS, DatasetEntry
from ddjax.data.splits import note, split
from ddjax.errors import InputError, no_file
from ddjax.types import working_dtype

_LINE = re.compile(rb"[-+]?[\d.]+(e[-+]?\d+)?(\s+(qid:\d+\s+)?\d+:\S+)+\s*(#.*)?", re.IGNORECASE)
_OPEN = {".gz": gzip.decompress, ".bz2": bz2.decompress}
_LARGEST = 2**34  # largest size of the dense array, in bytes; sparse data can have any number of columns


def read_libsvm(path: str, seed: int, task: str = "") -> Dataset:
    """Read a file with one line `target column:value …` per example; the value of an omitted column is 0.

    The test set is a file in the same folder whose name has an additional `.t` (`a9a.t` for `a9a`; `a.t.libsvm` or
    `a.libsvm.t` for `a.libsvm`). If there is no such file, a fifth of the examples is drawn for testing. Both files may
    be compressed (`.gz`, `.bz2`). Columns are numbered from 1, or from 0 if one of the files has a column 0.

    Args:
      path: path of the file.
      seed: seed of the random split into training and test examples; unused if there is a test file.
      task: `classification` or `regression`; empty to decide from the targets.

    Raises:
      InputError: the file does not exist, or a line is malformed; the message names the line.
    """
    from sklearn.datasets import load_svmlight_files

    beside = _beside(Path(path).expanduser())
    names = [path] if beside is None else [path, str(beside)]
    contents = [_content(name) for name in names]
    try:
        found = load_svmlight_files([io.BytesIO(content) for content in contents], dtype=working_dtype())
    except (ValueError, OverflowError, IndexError) as error:
        for name, content in zip(names, contents, strict=True):
            _refuse_line(name, content)
        raise InputError(f"{path} is not a readable LIBSVM file: {error}") from None
    xs, ys = found[::2], found[1::2]
    for name, x, y in zip(names, xs, ys, strict=True):
        if not len(y):
            raise InputError(f"{name} is not a readable LIBSVM file: it is empty")
        for values, what in ((x.data, "a value"), (y, "a target")):
            if not np.isfinite(values).all():
                raise InputError(f"{name} holds {what} that is not finite")
    columns, rows = xs[0].shape[1], sum(len(y) for y in ys)
    if (size := columns * rows * working_dtype().itemsize) > _LARGEST:
        raise InputError(
            f"{path} has {columns:,} columns in {rows:,} rows, which need {size / 1e9:.0f} GB as a dense array; "
            "use fewer columns"
        )
    notes: tuple[str, ...]
    x, y = xs[0].toarray(), ys[0]
    if beside is None:
        notes = (note(len(y)),)
        if len(y) < 5:
            raise InputError(f"{path}: at least 5 rows are needed to hold out a fifth for testing, got {len(y)}")
        train, test = split(len(y), seed)
        x, y, x_test, y_test = x[train], y[train], x[test], y[test]
    else:
        notes = (f"the test set is {beside.name}",)
        if new := int(((xs[0].getnnz(0) == 0) & (xs[1].getnnz(0) > 0)).sum()):
            notes += (f"{new:,} columns have values only in {beside.name}",)
        x_test, y_test = xs[1].toarray(), ys[1]
    targets = read_targets(y, y_test, (f"{names[0]}: target", f"{names[-1]}: target"), task)
    return Dataset(
        x, targets.y_train, x_test, targets.y_test, targets.outputs, classes=targets.classes,
        notes=notes + targets.notes,
    )  # fmt: skip


def _beside(file: Path) -> Path | None:
    """Return the test file that belongs to a training file; `None` if there is no test file."""
    whole = file.name
    packed = next((end for end in _OPEN if whole.lower().endswith(end)), "")
    name = whole[: len(whole) - len(packed)]
    stem, dot, ending = name.rpartition(".")
    plain = [f"{name}.t", *([f"{stem}.t.{ending}"] if dot and stem else [])]
    for each in plain:
        for end in dict.fromkeys((packed, "", *_OPEN)):
            if (beside := file.with_name(each + end)).is_file():
                return beside
    return None


def _content(path: str) -> bytes:
    file = Path(path).expanduser()
    try:
        return _OPEN.get(file.suffix.lower(), bytes)(file.read_bytes())
    except FileNotFoundError:
        raise no_file(path) from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path} is not a readable LIBSVM file: {getattr(error, 'strerror', None) or error}") from None


def _refuse_line(path: str, content: bytes) -> None:
    """Find the first unreadable line, by bisection, and raise `InputError`; do nothing if all lines are readable."""
    lines = content.split(b"\n")
    good, bad = 0, len(lines)
    if _reads(lines):
        return
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _reads(lines[:middle]) else (good, middle)
    text = lines[bad - 1].decode("utf-8", "replace").strip()
    raise InputError(
        f"{path}: line {bad} cannot be read ({text[:60]!r}); a line must be `target column:value …` with increasing "
        "columns, such as `-1 3:1 11:0.5`"
    )


def _reads(lines: list[bytes]) -> bool:
    from sklearn.datasets import load_svmlight_file

    try:
        load_svmlight_file(io.BytesIO(b"\n".join(lines)))
    except (ValueError, OverflowError, IndexError):
        return False
    return True


def _recognize(path: Path) -> bool:
    """Return whether the first line that is neither empty nor a comment has the format of LIBSVM."""
    if not path.is_file():
        return False
    try:
        opens: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
        with opens.get(path.suffix.lower(), open)(path, "rb") as file:
            for _ in range(100):
                line = file.readline(1_000_000)
                if line.split(b"#")[0].strip():
                    return bool(_LINE.fullmatch(line.strip()))
    except (OSError, EOFError, ValueError, zlib.error):
        pass
    return False


DATASETS.add(
    DatasetEntry(
        "libsvm",
        lambda wanted, path: read_libsvm(path, wanted.seed, wanted.task),
        uses=("task",),
        form="FILE.libsvm",
        suffixes=(".libsvm", ".svm", ".libsvm.bz2", ".svm.bz2", ".libsvm.t", ".svmlight"),
        recognize=_recognize,
        beside=_beside,
    )
)
