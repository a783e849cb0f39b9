"""Records of a run for TensorBoard."""

import importlib.util
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddjax.errors import InputError


def check_tensorboard() -> None:
    """Raise `InputError` if TensorBoard is not installed."""
    if not importlib.util.find_spec("tensorboard"):
        raise InputError("--tensorboard needs TensorBoard, which is not installed: pip install -e '.[tensorboard]'")


class Scalars:
    """Event file of a run: a scalar per column of `metrics.csv`, settings, scores of devices, and figures.

    Args:
      folder: folder of the event file, made when the first row is added; `None` to write no file.
      settings: settings of the run, by name.

    Raises:
      InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any] | None = None):
        self._folder, self._settings = folder, settings or {}
        self._writer: Any = None
        self._round = 0
        if folder:
            check_tensorboard()

    def add(self, row: Mapping[str, Any], score: np.ndarray | None = None) -> None:
        """Add an evaluation.

        Args:
          row: row of `metrics.csv`; each column becomes a scalar.
          score: `[N]` scores of the devices, which become a histogram.
        """
        if not self._folder:
            return
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb  # an optional extra
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        self._round = int(row["round"])
        if not self._writer:
            self._start()
        for name, value in row.items():
            if name != "round" and value != "":
                self._put(scalar_pb(name, value))
        if score is not None:
            metric = next(name for name in row if name.endswith("_mean")).removesuffix("_mean")
            self._put(histogram_pb(f"{metric}_of_devices", score))
        self._writer.flush()

    def close(self, figures: Iterable[Path] = ()) -> None:
        """Add figures to the event file, and close it.

        Args:
          figures: PNG files to add.
        """
        if not self._writer:
            return
        from PIL import Image
        from tensorboard.plugins.image.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        for path in sorted(figures):
            with Image.open(path) as image:
                sizes = [str(size).encode() for size in image.size]
            about = create_summary_metadata(display_name=None, description="")
            self._put(_summary(path.stem, make_tensor_proto([*sizes, path.read_bytes()]), about))
        self._writer.close()

    def _start(self) -> None:
        """Open the file, and write the settings as text and as hyperparameters."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(self._folder))
        if self._settings:
            lines = [f"| {name} | {_text(value)} |" for name, value in self._settings.items()]
            self._put(text_pb("settings", "\n".join(["| setting | value |", "|---|---|", *lines])))
            self._put(hparams_pb({name: _plain(value) for name, value in self._settings.items()}, str(self._folder)))

    def _put(self, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=self._round, summary=summary))


def _summary(tag: str, tensor: Any, metadata: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else ",".join(map(str, value or ()))


def _text(value: Any) -> str:
    return str(_plain(value)).replace("|", "\\|")
