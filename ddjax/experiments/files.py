"""Files that commands write: whole or not at all."""

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
    """Rows of the same columns as CSV; empty of none."""
    text, writer = io.StringIO(newline=""), None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, row)
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


class Claim:
    """The right of one process to write into a folder, held until it is released or the process ends.

    It is a lock on the file `.lock` in the folder, which the system gives up with its process, even where that is
    killed. Where a file system has no locks, the file itself is the claim.

    Args:
      given: the folder, new or empty; if empty, a new one is made.
      default: the folder where none is given; a number follows its name where that is taken.
      resume: whether it must be there, since what it holds is gone on with.
      hint: said where the folder holds something.

    Attributes:
      path: the folder.

    Raises:
      InputError: it is a file, holds something, cannot be made, or belongs to a run that is alive.
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
                raise InputError(f"{name} is a link to {os.readlink(self.path)!r}, which is not there")
            if self.path.exists() and not self.path.is_dir():
                raise InputError(f"{name} is a file")
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
            except FileNotFoundError:  # removed by another run that found it empty
                continue
            try:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
                file.close()  # released and removed by another run meanwhile
            except BlockingIOError:
                holder = file.read().strip() or "another process"
                file.close()
                raise InputError(f"{name} belongs to a run that is alive, {holder}; name a new one") from None
            except OSError:
                if fresh:
                    break
                raise InputError(
                    f"{name} may belong to a run that is alive; if it does not, remove {str(path)!r}"
                ) from None
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Gives the folder up, and removes what was made for it where nothing was written into it."""
        with contextlib.suppress(OSError):
            (self.path / _LOCK).unlink()
            for folder in self._made:
                folder.rmdir()  # an error where it holds anything
        self._file.close()


def _opened(lock: Path) -> tuple[IO[str], bool]:
    """The file of a claim, and whether it is new."""
    try:
        return lock.open("x+"), True
    except FileExistsError:
        return lock.open("r+"), False


def _new_folder(path: Path) -> Path:
    """Makes a folder of that name, or of the first free one with a number behind it."""
    for name in itertools.chain([path.name], (f"{path.name}-{number}" for number in itertools.count(2))):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # taken, or the parent removed as empty
            (fresh := path.with_name(name)).mkdir()
            return fresh
    raise AssertionError("numbers do not end")


def write(path: Path, content: str | bytes) -> None:
    """Writes a file and sees it on the disk, so that what is renamed after it is whole even if the machine stops."""
    with naming(path), path.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error of the system, which a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with naming(path):
            write(fresh, content)
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
