"""The numbers of a run for TensorBoard."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddjax.errors import InputError


class Scalars:
    """The numbers of each row for TensorBoard.

    Args:
      folder: of the event files, made when the first row comes; `None` where they are not wanted.

    Raises:
      InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._writer: Any = None
        if folder and not importlib.util.find_spec("tensorboard"):
            raise InputError("--tensorboard needs TensorBoard, which is not installed: pip install -e '.[tensorboard]'")

    def add(self, row: Mapping[str, Any]) -> None:
        """A scalar a column, at the row's round."""
        if not self._folder:
            return
        if not self._writer:
            from tensorboard.summary import Writer  # an optional extra

            self._writer = Writer(str(self._folder))
        for name, value in row.items():
            if name != "round" and value != "":
                self._writer.add_scalar(name, value, row["round"])
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer:
            self._writer.close()
