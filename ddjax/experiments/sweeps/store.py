"""Folder of a sweep: its plan, a folder per finished cell, and the tables made from the cells.

Each file or folder is written under another name and then renamed, so that it is always complete. A sweep may therefore
be killed at any time, and several processes may share the folder.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ddjax.errors import InputError
from ddjax.experiments import files
from ddjax.experiments.scalars import Scalars
from ddjax.experiments.sweeps.cells import Outcome, failed
from ddjax.experiments.sweeps.plan import Cell, cell_name
from ddjax.experiments.sweeps.tables import read_tables

COLLECT_EVERY = 60.0  # seconds between two updates of the tables while cells run


class Store:
    """Folder of one sweep.

    Args:
      path: path of the folder, which need not exist.
      cells: all cells of the sweep, whichever process runs them.

    Attributes:
      cells: the cells, under their names in the folder; an earlier version of ddjax may have chosen other names.

    Raises:
      InputError: the path is a file or a broken link, or the folder holds another sweep, other files, or a damaged
        cell.
    """

    def __init__(self, path: Path, cells: Sequence[Cell]):
        self.path = path
        if path.exists() and not path.is_dir():
            raise InputError(f"sweep_dir {str(path)!r} is a file")
        if path.is_symlink() and not path.exists():
            raise InputError(f"sweep_dir {str(path)!r} is a link to {os.readlink(path)!r}, which does not exist")
        if path.is_dir() and any(path.glob("[!.]*")) and not (path / "sweep.json").exists():
            raise InputError(f"sweep_dir {str(path)!r} holds something other than a sweep; name a new folder")
        former = {cell_name(_flags(saved)): name for name, saved in self._plan().items()}
        self.cells = [cell._replace(name=former.get(cell.name, cell.name)) for cell in cells]
        self._check()
        read_tables(self._plan(), self._folder, self._failure)  # so that damage shows before anything is run
        self._digests = self._saved_digests()

    def _check(self) -> None:
        path = self.path
        saved, names = self._plan(), {cell.name for cell in self.cells}
        strange = [settings for name, settings in saved.items() if name not in names]
        if strange and names < set(saved):
            raise InputError(
                f"sweep_dir {str(path)!r} has {len(strange)} cells that this sweep leaves out; name a new folder (a "
                "sweep may grow, but it keeps its cells)"
            )
        if strange:
            raise InputError(
                f"sweep_dir {str(path)!r} holds another sweep, in which a cell has {_nearest(strange[0], self.cells)}; "
                "name a new folder (a sweep may grow, but it keeps its cells)"
            )

    def _plan(self) -> dict[str, dict[str, Any]]:
        """Read the cells of the sweep in the folder, by name; empty before the folder is created."""
        try:
            plan = json.loads((self.path / "sweep.json").read_text())["cells"]
            return {name: {"algorithm": "", **settings} for name, settings in plan.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            where = str(self.path / "sweep.json")
            raise InputError(f"{where!r} is damaged; restore it, or name a new sweep_dir") from None

    def _saved_digests(self) -> dict[str, str]:
        """Return path → digest that the file had when a finished cell read it."""
        found: dict[str, str] = {}
        for cell in filter(self.holds, self.cells):
            where = self._folder(cell.name) / "config.json"
            try:
                found |= json.loads(where.read_text(encoding="utf-8")).get("data", {}).get("files", {})
            except (OSError, ValueError, AttributeError):
                raise InputError(
                    f"{str(where)!r} is damaged; remove {str(where.parent)!r} to run that cell again"
                ) from None
        return found

    def check_data(self, digests: Mapping[str, str]) -> None:
        """Refuse a cell whose data or graph comes from a file that has changed since other cells were run.

        Args:
          digests: path → digest, for each file that the cell reads.

        Raises:
          InputError: a file has changed.
        """
        for path, now in digests.items():
            if self._digests.setdefault(path, now) != now:
                raise InputError(
                    f"{path!r} has changed since other cells of {str(self.path)!r} were run; restore the old file, or "
                    "name a new sweep_dir"
                )

    def holds(self, cell: Cell) -> bool:
        """Return whether a cell is finished."""
        return self._folder(cell.name).is_dir()

    def create(self, command: str, environment: Mapping[str, Any]) -> None:
        """Create the folder and write the plan; raise `InputError` if another process has begun another sweep there."""
        self._check()
        self.path.mkdir(parents=True, exist_ok=True)
        cells = {cell.name: cell.values | {"target_accuracy": cell.settings.target_accuracy} for cell in self.cells}
        plan = {"command": command, "cells": cells, **environment}
        files.replace(self.path / "sweep.json", json.dumps(plan, indent=1) + "\n")
        (self.path / "cells").mkdir(exist_ok=True)

    def scalars(self, cell: Cell) -> Scalars:
        """Open the TensorBoard records of a cell, if requested; remove those of an earlier start that was killed."""
        folder = self.path / "tensorboard" / cell.name
        shutil.rmtree(folder, ignore_errors=True)
        return Scalars(folder if cell.settings.tensorboard else None, cell.values)

    def keep(self, cell: Cell, outcome: Outcome) -> str:
        """Store the outcome of a cell, and return its result in a few words."""
        try:
            self.check_data(outcome.files)
        except InputError as error:
            outcome = failed(error)
        if outcome.texts:
            self.put(cell, outcome.texts)
        else:
            self.fail(cell, outcome.reason, outcome.trace)
        return outcome.result

    def put(self, cell: Cell, texts: Mapping[str, str]) -> None:
        """Store the texts of a finished cell, given by file name: either all of them or none."""
        fresh = self.path / "cells" / f".{cell.name}-{uuid.uuid4().hex[:8]}"
        try:
            fresh.mkdir()
            for name, text in texts.items():
                files.write(fresh / name, text)
            try:
                fresh.rename(self._folder(cell.name))
            except OSError:
                if not self.holds(cell):  # otherwise, another process stored the same results first
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        self._failure(cell.name).unlink(missing_ok=True)

    def fail(self, cell: Cell, reason: str, trace: str) -> None:
        """Record why a cell could not be run; the next start of the sweep tries the cell again."""
        self._failure(cell.name).parent.mkdir(exist_ok=True)
        files.replace(self._failure(cell.name), json.dumps({"reason": reason, "trace": trace}, indent=1) + "\n")

    def collect(self) -> pd.DataFrame:
        """Write the tables that cover all cells of the folder, and return the table of failures.

        If another process has stored a cell in the meantime, write the tables again, so that the last process leaves
        them complete.
        """
        while True:
            before = self._present()
            results, timings, failures = read_tables(self._plan(), self._folder, self._failure)
            for name, frame in (("results", results), ("timings", timings), ("failures", failures)):
                files.replace(self.path / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
            files.replace(self.path / "results.parquet", results.to_parquet(index=False))
            if before == self._present():
                return failures

    def _present(self) -> set[Path]:
        return {path for kind in ("cells", "failed") for path in self.path.glob(f"{kind}/[!.]*")}

    def _folder(self, name: str) -> Path:
        return self.path / "cells" / name

    def _failure(self, name: str) -> Path:
        return self.path / "failed" / f"{name}.json"


def _flags(saved: dict[str, Any]) -> dict[str, Any]:
    """Select the settings of a saved cell that identify it."""
    return {name: value for name, value in saved.items() if name != "target_accuracy"}


def _nearest(settings: dict[str, Any], cells: Sequence[Cell]) -> str:
    """List up to three settings in which a cell differs from the cell in `cells` that is most like it."""
    others = [
        [
            f"{name}={value}, here {cell.values.get(name)}"
            for name, value in _flags(settings).items()
            if cell.values.get(name) != value
        ]
        for cell in cells
    ]
    return "; ".join(min(others, key=len)[:3])
