"""Comparison of planned rows with a baseline of earlier rows."""

import json
from collections.abc import Sequence
from pathlib import Path

from ddjax.errors import InputError, no_file
from ddjax.experiments.benchmarks.targets import Target
from ddjax.experiments.benchmarks.workloads import Case

# Figures that make a row worse than the baseline if they grow.
FIGURES = ("temporary_bytes", "estimate_ms", "traffic_bytes", "collectives", "collective_bytes", "kernels")


def load(path: str, planned: Sequence[tuple[Target, Case]]) -> list[dict]:
    """Load the rows of a baseline.

    Args:
      path: file that `--save` or `--output` wrote.
      planned: targets and cases to compare with the baseline.

    Raises:
      InputError: the file does not exist, holds something else, or holds none of the planned rows.
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
        raise InputError(f"{path!r} does not hold rows that --save wrote with a --target")
    asked = {_key({"target": target.name, **case._asdict()}) for target, case in planned}
    if not asked & {_key(row) for row in rows}:
        raise InputError(f"{path!r} has none of the rows to compare; give the flags with which it was written")
    return rows


def worse(row: dict, baseline: Sequence[dict], tolerance: float) -> str:
    """Describe in one line the figures of a row that grew by more than `tolerance`; return an empty text if none did.

    Args:
      row: row from `planning.plan`.
      baseline: earlier rows; a row without an earlier one is not compared.
      tolerance: largest fraction by which a figure may grow.
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
    """Return what identifies a row: its target and its case."""
    return tuple(row.get(name) for name in ("target", *Case._fields))
