"""Folder of one run, with its settings, a row per evaluation, a row per device and evaluation, and a summary."""

import csv
import dataclasses
import datetime
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ddjax import __version__
from ddjax.errors import InputError
from ddjax.experiments import records
from ddjax.experiments.experiment import Experiment
from ddjax.experiments.extensions import digests
from ddjax.experiments.fields import Role, fields
from ddjax.experiments.files import Claim, csv_text, cut, naming, replace
from ddjax.experiments.settings import Settings
from ddjax.experiments.usage import used
from ddjax.schedules import SCHEDULES, schedule

_SCHEDULES = [name for name, field in fields(Settings).items() if field.registry is SCHEDULES]


class RunFolder:
    """Folder of a run, claimed by this process.

    If there are several processes, only process 0 writes into the folder, and it tells the others what it found.

    Args:
      settings: settings of the run.

    Attributes:
      path: path of the folder.

    Raises:
      InputError: the folder is not empty although no run is resumed, a running process uses it, or it holds no
        run that these settings can resume.
    """

    def __init__(self, settings: Settings):
        if settings.resume and not settings.output_dir:
            raise InputError("--resume needs the --output_dir of the run to continue")
        self._settings = settings
        self._writes = jax.process_index() == 0
        self._claim: Claim | None = None
        self.path = Path(_said_by_first(self._take))
        self._metrics, self._devices = self.path / "metrics.csv", self.path / "devices.csv"

    def _take(self) -> str:
        """Claim the folder, check the tables of a resumed run, and return the path."""
        settings = self._settings
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = Path(settings.dataset.split(":")[0]).name.split(".")[0]
        default = f"runs/{settings.algorithm.replace(':', '_')}-{name}-{stamp}"
        claim = Claim(settings.output_dir, default, settings.resume, ", or continue with --resume")
        try:
            self._metrics, self._devices = claim.path / "metrics.csv", claim.path / "devices.csv"
            if settings.resume:
                check_resume(settings, saved_config(claim.path))
                self.rows()
                heads = {self._metrics: b"round,", self._devices: b"round,device,"}
                self._starts = {path: _starts(path, head) for path, head in heads.items()}
        except InputError:
            claim.release()
            raise
        self._claim = claim
        return str(claim.path)

    def check_data(self, facts: Mapping[str, Any]) -> None:
        """Refuse to resume a run on other data or on another graph.

        Args:
          facts: the experiment's facts; see `Experiment.facts`.

        Raises:
          InputError: the digest of the data or the graph differs from the digest that the run recorded.
        """
        if not (self._settings.resume and self._writes):
            return
        known = saved_config(self.path).get("data", {})
        if known.get("digest", facts["digest"]) == facts["digest"]:
            return
        if facts["digest"].split(",")[0] != known["digest"].split(",")[0]:
            counts = (
                f"{each['examples'].get('reference', '?')} reference and {each['examples'].get('test', '?')} test "
                f"examples, {each['outputs']} outputs, inputs {each['inputs']['shape']}"
                for each in (known, facts)
            )
            raise InputError(
                f"cannot resume: {self._settings.dataset} has changed since the run began "
                f"(then {'; now '.join(counts)}); bring the old data back, or begin a new run in another --output_dir"
            )
        raise InputError(
            f"cannot resume: the graph of --topology={self._settings.topology} has changed since the run began; "
            "bring the old file back, or begin a new run in another --output_dir"
        )

    def close(self) -> None:
        """Release the folder, and remove it if nothing was written into it."""
        if self._claim:
            self._claim.release()

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of `metrics.csv`, except a last row that was cut short.

        There are no rows if the run was killed after `create` had cut the table back to round 0.

        Raises:
          InputError: the file is missing or damaged.
        """
        try:
            text = self._metrics.read_bytes().decode()
            table = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), strict=True)
            rows = list(table)
            whole = all(int(row["round"]) >= 0 and None not in row and None not in row.values() for row in rows)
            if "round" in (table.fieldnames or ()) and whole:
                return rows
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            pass
        raise InputError(f"cannot resume: {str(self._metrics)!r} is missing or damaged")

    def create(self, built: Experiment, resumed_round: int = 0) -> None:
        """Write `config.json`, and cut the tables of a resumed run back to the checkpoint.

        The tables are cut in place. If the run is killed here, rows before the checkpoint are untouched, and the next
        resume cuts the rest.

        Args:
          built: the experiment.
          resumed_round: round of the checkpoint's evaluation; rows of this round and of later rounds are dropped.

        Raises:
          InputError: the folder is not writable.
        """
        if not self._writes:
            return
        try:
            replace(self.path / "config.json", json.dumps(records.config(built), indent=2) + "\n")
            if self._settings.resume:
                for name in ("summary.json", "links.csv"):
                    (self.path / name).unlink(missing_ok=True)
                for path, starts in self._starts.items():
                    if starts:
                        cut(path, min(start for round, start in starts.items() if round >= resumed_round))
        except OSError as error:
            raise InputError(f"cannot write to output_dir {str(self.path)!r}: {error.strerror}") from None

    def add(self, row: dict, devices: Sequence[dict]) -> None:
        """Add an evaluation to the tables.

        Args:
          row: row of `metrics.csv`.
          devices: rows of `devices.csv`, one per device.
        """
        if self._writes:
            _append(self._metrics, [row])
            _append(self._devices, devices)

    def add_links(self, rows: Iterable[dict]) -> None:
        """Write `links.csv` if any link carried a message."""
        if text := csv_text(rows):
            replace(self.path / "links.csv", text)

    def summarize(self, summary: dict) -> None:
        """Write `summary.json`."""
        replace(self.path / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")


def _append(path: Path, rows: Sequence[dict]) -> None:
    """Append rows to a table, after a header if the file is new."""
    with naming(path), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def _starts(path: Path, head: bytes) -> dict[float, int]:
    """Map each round of a table to the byte at which its first row begins, and infinity to the end of the full rows.

    The map is empty if there is no file: runs of earlier versions have no `devices.csv`. Raise `InputError` if the file
    is damaged.
    """
    starts: dict[float, int] = {}
    end, last = 0, b"-1"
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):  # cut short
                    break
                name = line.partition(b",")[0]
                if end == 0 and not line.startswith(head):
                    raise ValueError
                if end > 0 and name != last:
                    if int(name) <= int(last):
                        raise ValueError
                    starts[int(name)], last = end, name
                end += len(line)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise InputError(f"cannot resume: {str(path)!r} is damaged") from None
    return starts | {math.inf: end}


def _said_by_first(function: Callable[[], str]) -> str:
    """Call a function in process 0 only; return its answer, or raise its `InputError`, in every process."""
    if jax.process_count() == 1:
        return function()
    said = ""
    if jax.process_index() == 0:
        try:
            said = f"+{function()}"
        except InputError as error:
            said = f"-{error}"
    letters = np.zeros(4096, np.uint8)
    letters[: len(said.encode())] = list(said.encode())
    heard = bytes(np.asarray(multihost_utils.broadcast_one_to_all(letters))).rstrip(b"\0").decode()
    if heard[0] == "-":
        raise InputError(heard[1:])
    return heard[1:]


def saved_config(path: Path) -> dict[str, Any]:
    """Return the content of a run's `config.json`; raise `InputError` if the file cannot be read."""
    try:
        config = json.loads((path / "config.json").read_text())
        return {**config, "flags": dict(config["flags"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"output_dir {str(path)!r} holds no run to resume (no readable config.json)") from None


def resumed(settings: Settings, given: Collection[str]) -> Settings:
    """Replace settings that were not given with the settings of the saved run, instead of this version's defaults.

    Most output and execution settings are not replaced, because they may change when a run is resumed.

    Args:
      settings: settings to complete, with the `output_dir` of the run.
      given: names of the settings that were given; `check_resume` checks them later.

    Raises:
      InputError: the folder holds no run, or the run has settings that this version does not know.
    """
    if not (settings.resume and settings.output_dir):
        return settings
    path = Path(settings.output_dir).expanduser()
    config, known = saved_config(path), fields(Settings)
    if strange := [name for name in config["flags"] if name not in known]:
        raise InputError(
            f"cannot resume: the run was last written by {_version(config)} and has the setting {strange[0]!r}, which "
            f"this version, {__version__}, does not know"
        )
    free, followed = (Role.OUTPUT, Role.EXECUTION), ("include", "target_accuracy", "checkpoint_every")
    taken: dict[str, Any] = {
        name: tuple(value) if known[name].kind is tuple else value
        for name, value in config["flags"].items()
        if name not in given and (known[name].role not in free or name in followed)
    }
    return dataclasses.replace(settings, **taken)


def _version(config: Mapping[str, Any]) -> str:
    return f"ddjax {config.get('versions', {}).get('ddjax', 'of an unknown version')}"


def check_resume(settings: Settings, config: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings, unless the differences do not affect the results so far.

    If a later version added a setting, the run is treated as if it had the setting's default.

    Args:
      settings: settings with which to resume the run.
      config: content of the run's `config.json`.

    Raises:
      InputError: a setting differs; the message names the first such setting.
    """
    saved = config["flags"]
    for name, field in fields(settings).items():
        value = settings.values()[name]
        free = field.role in (Role.OUTPUT, Role.EXECUTION) or name == "rounds"
        if not free and saved.get(name, field.default) != value:
            raise InputError(f"cannot resume with --{name}={value}: the run had {saved.get(name, field.default)}")
    known, given = config.get("include", ""), digests(settings.include)
    if known != given:
        raise InputError(f"cannot resume with the included files {given or 'none'}: the run had {known or 'none'}")
    if saved.get("rounds") == settings.rounds:
        return
    for name in _SCHEDULES:
        if name in used(settings) and schedule(getattr(settings, name)).stretches:
            raise InputError(
                f"cannot resume with --rounds={settings.rounds}: the run had {saved.get('rounds')}, over which its "
                f"{name} {getattr(settings, name)!r} is stretched"
            )
