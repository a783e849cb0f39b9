"""Commands as a user calls them, and the files that they write."""

import csv
import json

from ddjax.experiments import Settings, train
from ddjax.experiments.fields import fields
from ddjax.experiments.flags import parse
from ddjax.experiments.sweeps import sweep as sweeps
from ddjax.experiments.sweeps.plan import SweepSettings, list_fields

FAST = ["--rounds=6", "--eval_every=3", "--devices=4", "--models=linear"]


def call(*flags):
    """The exit code of train.py with these flags."""
    return train.main(["train.py", *flags])


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def rows(folder):
    """metrics.csv without the columns that depend on the clock."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


def settings(*flags):
    """The settings that flags of train.py stand for."""
    return parse(fields(Settings), ["", *flags]).take(Settings)


def sweep(*flags):
    """The exit code of sweep.py with these flags."""
    return sweeps.main(["sweep.py", *flags])


def cells(*flags):
    """The cells that flags of sweep.py stand for."""
    given = parse(fields(SweepSettings) | list_fields(), ["", *flags])
    return sweeps.planned(given, given.take(SweepSettings))
