"""Compares planned rows with a baseline of earlier ones."""

import json
from collections.abc import Sequence
from pathlib import Path

from ddjax.errors import InputError, no_file
from ddjax.experiments.benchmarks.targets import Target
from ddjax.experiments.benchmarks.workloads import Case

# What a row may not have much more of than the baseline.
FIGURES = ("temporary_bytes", "estimate_ms", "traffic_bytes", "collectives", "collective_bytes", "kernels")


def load(path: str, planned: Sequence[tuple[Target, Case]]) -> list[dict]:
    """The rows of a baseline.

    Args:
      path: a file written by `--save` or `--output`.
      planned: what it shall be compared with.

    Raises:
      InputError: no such file, one of something else, or one with none of the planned rows.
    """
    try:
        rows = json.loads(Path(path).expanduser().read_text())
    except FileNotFoundError:
        raise no_file(path) from None
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"target", "fits", "versions", *FIGURES} <= row.keys() for row in rows
    ):
        raise InputError(f"{path!r} is no file of rows that --save wrote with a --target")
    asked = {_key({"target": target.name, **case._asdict()}) for target, case in planned}
    if not asked & {_key(row) for row in rows}:
        raise InputError(f"{path!r} has none of the rows that are asked for, so there is nothing to compare")
    return rows


def worse(row: dict, baseline: Sequence[dict], tolerance: float) -> str:
    """The line that says what got worse in a row: figures that grew by more than a share. Empty if none did.

    Args:
      row: as `planning.plan` made it.
      baseline: earlier ones; one that is not among them is not compared.
      tolerance: the share.
    """
    before = next((before for before in baseline if _key(before) == _key(row)), row)
    found = ["no longer fits"] if before["fits"] and not row["fits"] else []
    for name in FIGURES:
        old, new = before[name], row[name]
        if old is not None and new is not None and new > old * (1 + tolerance):
            found.append(f"{name} {old:.4g} → {new:.4g}")
    if found and before["versions"] != row["versions"]:
        found.append(f"compiled with {row['versions']}, before with {before['versions']}")
    what = f"{row['target']} {row['work']} {row['models']} {row['devices']}×{row['batch_size']}"
    return f"{what}: {', '.join(found)}" if found else ""


def _key(row: dict) -> tuple:
    """What a row is about."""
    return tuple(row.get(name) for name in ("target", *Case._fields))
