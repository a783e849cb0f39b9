"""The folder of one run: its settings, a row per evaluation, a summary."""

import csv
import datetime
import json
from collections.abc import Iterable
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from ddjax.errors import InputError
from ddjax.experiments import records
from ddjax.experiments.extensions import digests
from ddjax.experiments.fields import Role, fields
from ddjax.experiments.files import csv_text, output_folder, replace
from ddjax.experiments.settings import Settings
from ddjax.experiments.usage import used
from ddjax.schedules import SCHEDULES, schedule

_SCHEDULES = [name for name, field in fields(Settings).items() if field.registry is SCHEDULES]


class RunFolder:
    """The folder of a run: refused if it holds anything, unless a run is resumed. Process 0 alone writes into it.

    Args:
      settings: of the run.

    Raises:
      InputError: the folder is not empty, or holds no run that these settings can go on with.
    """

    def __init__(self, settings: Settings):
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = Path(settings.dataset.split(":")[0]).stem
        if settings.resume and not settings.output_dir:
            raise InputError("--resume needs the --output_dir of the run to go on with")
        default = f"runs/{settings.algorithm.replace(':', '_')}-{name}-{stamp}"
        self.path = output_folder(settings.output_dir, default, settings.resume)
        self._settings = settings
        self._metrics = self.path / "metrics.csv"
        self._writes = jax.process_index() == 0
        if settings.resume:
            self._check_config()
            self._rows = self.rows()

    def _check_config(self) -> None:
        try:
            config = json.loads((self.path / "config.json").read_text())
            saved = dict(config["flags"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"output_dir {str(self.path)!r} holds no run to resume (no readable config.json)"
            ) from None
        check_resume(self._settings, saved)
        known, given = config.get("include", ""), digests(self._settings.include)
        if known != given:
            raise InputError(f"cannot resume with the included files {given or 'none'}: the run had {known or 'none'}")

    def rows(self) -> list[dict[str, str]]:
        """The rows of `metrics.csv`; raises `InputError` where it is missing or damaged."""
        try:
            with self._metrics.open(newline="") as file:
                rows = list(csv.DictReader(file, strict=True))
            whole = all(int(row["round"]) >= 0 and None not in row and None not in row.values() for row in rows)
            if rows and whole:
                return rows
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            pass
        raise InputError(f"cannot resume: {str(self._metrics)!r} is missing or damaged")

    def create(self, resumed_round: int = 0) -> None:
        """Makes the folder and writes `config.json`; of a resumed `metrics.csv`, keeps the rows before a round."""
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("all have seen the folder as it was")
        if not self._writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=bool(self._settings.output_dir))
            replace(self.path / "config.json", json.dumps(records.config(self._settings), indent=2) + "\n")
            if self._settings.resume:
                for name in ("summary.json", "links.csv"):
                    (self.path / name).unlink(missing_ok=True)
                kept = (row for row in self._rows if int(row["round"]) < resumed_round)
                replace(self._metrics, csv_text(kept))
        except OSError as error:
            raise InputError(f"cannot write to output_dir {str(self.path)!r}: {error.strerror}") from None

    def add(self, row: dict) -> None:
        """Adds a row to `metrics.csv`, after a header if it is the first."""
        if not self._writes:
            return
        with self._metrics.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    def add_links(self, rows: Iterable[dict]) -> None:
        """Writes `links.csv`, if there is anything to write."""
        if text := csv_text(rows):
            replace(self.path / "links.csv", text)

    def summarize(self, summary: dict) -> None:
        """Writes `summary.json`."""
        replace(self.path / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")


def check_resume(settings: Settings, saved: dict) -> None:
    """Refuses to go on with a run that had other settings, unless they change none of its numbers.

    Args:
      settings: to go on with.
      saved: the settings as the run had them, from its `config.json`.

    Raises:
      InputError: the first setting that differs.
    """
    for name, field in fields(settings).items():
        value = settings.values()[name]
        free = field.role in (Role.OUTPUT, Role.EXECUTION) or name == "rounds"
        if not free and saved.get(name, field.default) != value:
            raise InputError(f"cannot resume with --{name}={value}: the run had {saved.get(name, field.default)}")
    if saved.get("rounds") == settings.rounds:
        return
    for name in _SCHEDULES:
        if name in used(settings) and schedule(getattr(settings, name)).stretches:
            raise InputError(
                f"cannot resume with --rounds={settings.rounds}: the run had {saved.get('rounds')}, over which its "
                f"{name} {getattr(settings, name)!r} is stretched"
            )
