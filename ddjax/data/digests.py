"""Digests of data sets, arrays and files, by which a resumed run recognizes its data."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.rows import blocks


def digest(dataset: Dataset, reference: Dataset | None = None) -> str:
    """Compute the digest of a data set that is not yet standardized.

    Args:
      dataset: data set; its inputs, targets and owners enter the digest.
      reference: data set from which the reference set is drawn; its training inputs enter the digest. `None` if there
        is no such data set.

    Returns:
      16 hexadecimal digits, as in `digest_arrays`.

    Examples:
      >>> ddjax.data.digest(dataset) == ddjax.data.digest(dataset._replace(notes=("made by hand",)))
      True
      >>> ddjax.data.digest(dataset) == ddjax.data.digest(dataset._replace(y_train=1 - dataset.y_train))
      False
    """
    others = (dataset.owner, None if reference is None else reference.x_train)
    return digest_arrays([*dataset[:4], *(array for array in others if array is not None)])


def digest_arrays(arrays: Iterable[np.ndarray]) -> str:
    """Compute the digest of the shapes, dtypes and contents of arrays.

    Returns:
      16 hexadecimal digits (BLAKE2b).

    Examples:
      >>> ddjax.data.digest_arrays([np.zeros((2, 3), np.float32)])
      '819c360ee7712758'
      >>> ddjax.data.digest_arrays([np.zeros((3, 2), np.float32)])  # another shape, another digest
      'c87c8bc166e89b2e'
    """
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        for block in blocks(array):
            found.update(np.ascontiguousarray(block).data)
    return found.hexdigest()


def digest_path(path: str | Path) -> str:
    """Compute the digest of the content of a file, or of the names and contents of all files in a folder.

    Returns:
      16 hexadecimal digits (BLAKE2b).

    Raises:
      OSError: a file is missing or cannot be read.

    Examples:
      >>> for name in ("a.txt", "b.txt"):
      ...     _ = (folder / name).write_text("the same words")
      >>> ddjax.data.digest_path(folder / "a.txt") == ddjax.data.digest_path(folder / "b.txt")
      True
    """
    root, found = Path(path).expanduser(), hashlib.blake2b(digest_size=8)
    for file in sorted(each for each in root.rglob("*") if each.is_file()) if root.is_dir() else [root]:
        found.update(str(file.relative_to(root)).encode())
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "blake2b").digest())
    return found.hexdigest()
