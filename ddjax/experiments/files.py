"""Files that commands write: whole or not at all."""

import csv
import io
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddjax.errors import InputError


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of the same columns as CSV; empty of none."""
    text, writer = io.StringIO(newline=""), None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, row)
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


def output_folder(given: str, default: str, resume: bool | None = None) -> Path:
    """The folder to write into, which need not be there.

    Args:
      given: `--output_dir`.
      default: where that is empty.
      resume: whether it may hold something, since what is there is gone on with; `None` where that cannot be.

    Raises:
      InputError: it is a file, or holds something.
    """
    try:
        path = Path(given or default).expanduser()
        if path.exists() and not path.is_dir():
            raise InputError(f"output_dir {str(path)!r} is a file")
        if not resume and path.is_dir() and any(path.iterdir()):
            hint = "" if resume is None else ", or go on with --resume"
            raise InputError(f"output_dir {str(path)!r} is not empty; name a new one{hint}")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"output_dir {given!r}: {getattr(error, 'strerror', None) or error}") from None
    return path


def write(path: Path, content: str | bytes) -> None:
    """Writes a file and sees it on the disk, so that what is renamed after it is whole even if the machine stops."""
    with path.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        write(fresh, content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
