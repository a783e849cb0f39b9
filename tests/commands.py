"""Commands as a user calls them, and what they leave."""

import csv
import json

from ddjax.experiments import train

FAST = ["--rounds=6", "--eval_every=3", "--devices=4", "--models=linear"]


def call(*flags):
    """The exit code of train.py with these flags."""
    return train.main(["train.py", *flags])


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def rows(folder):
    """metrics.csv without what depends on the clock."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
