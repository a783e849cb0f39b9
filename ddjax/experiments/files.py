"""Files that are written completely or not at all, and folders into which only one process may write at a time."""

import contextlib
import csv
import io
import itertools
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ddjax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock"


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Format rows, which all have the same columns, as CSV; return an empty text if there are no rows."""
    text, writer = io.StringIO(newline=""), None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, row)
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


class Claim:
    """Exclusive right of a process to write into a folder, until the process releases the folder or ends.

    The process locks the file `.lock` in the folder. The operating system drops the lock when the process ends, even
    if it is killed. On a file system without locks, the existence of the file serves as the lock.

    Args:
      given: path of a new or empty folder; an empty text makes a new folder at `default`.
      default: path of the folder if `given` is empty; if this path exists, a number is added to its name.
      resume: whether the folder must already exist, because a run continues there.
      hint: end of the error message for a folder that is not empty.

    Attributes:
      path: path of the folder.

    Raises:
      InputError: the path is a file, or the folder cannot be made, belongs to a running process, is missing although a
        run continues there, or is not empty although no run continues there.
    """

    def __init__(self, given: str, default: str, resume: bool = False, hint: str = ""):
        try:
            self.path = path = Path(given or default).expanduser()
            self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
            if not given:
                self.path = _new_folder(path)
                self._made[:1] = [self.path]
            name = f"output_dir {str(self.path)!r}"
            if self.path.is_symlink() and not self.path.exists():
                raise InputError(f"{name} is a link to {os.readlink(self.path)!r}, which does not exist")
            if self.path.exists() and not self.path.is_dir():
                raise InputError(f"{name} is a file; name a folder")
            if resume and not self.path.exists():
                raise InputError(f"{name} holds no run to resume: there is no such folder")
            self._lock(name)
            if not resume and any(path.name != _LOCK for path in self.path.iterdir()):
                self.release()
                raise InputError(f"{name} is not empty; name a new one{hint}")
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"output_dir {given or default!r}: {reason}") from None

    def _lock(self, name: str) -> None:
        path = self.path / _LOCK
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                file, fresh = _opened(path)
            except FileNotFoundError:  # another run found the folder empty and removed it
                continue
            try:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
                file.close()  # meanwhile another run released and removed the lock file
            except BlockingIOError:
                holder = file.read().strip() or "another process"
                file.close()
                raise InputError(f"{name} is in use by {holder}; name another folder") from None
            except OSError:
                if fresh:
                    break
                raise InputError(f"{name} may be in use by another run; if it is not, remove {str(path)!r}") from None
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Release the folder, and remove each folder that was made for this claim and is empty."""
        with contextlib.suppress(OSError):
            (self.path / _LOCK).unlink()
            for folder in self._made:
                folder.rmdir()  # fails if the folder is not empty
        self._file.close()


def _opened(lock: Path) -> tuple[IO[str], bool]:
    """Open the lock file of a claim; return the file and whether it is new."""
    try:
        return lock.open("x+"), True
    except FileExistsError:
        return lock.open("r+"), False


def _new_folder(path: Path) -> Path:
    """Make a folder with this name or, if it exists, with the first free name that ends in a number."""
    for name in itertools.chain([path.name], (f"{path.name}-{number}" for number in itertools.count(2))):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # the name is taken, or the parent is gone
            (fresh := path.with_name(name)).mkdir()
            return fresh
    raise AssertionError("numbers do not end")


def write(path: Path, content: str | bytes) -> None:
    """Write a file and flush it to disk, so that a later rename never exposes a partial file, even after a crash."""
    with naming(path), path.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an `OSError`, because the error for a full disk lacks the name."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def replace(path: Path, content: str | bytes) -> None:
    """Write a file completely or not at all."""
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with naming(path):
            write(fresh, content)
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def cut(path: Path, length: int) -> None:
    """Truncate a file, completely or not at all, and flush it to disk.

    Args:
      path: file to truncate.
      length: number of bytes to keep, counted from the beginning.
    """
    with naming(path), path.open("r+b") as file:
        file.truncate(length)
        os.fsync(file.fileno())
