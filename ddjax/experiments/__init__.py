"""Experiments: settings, what is built from them, and the commands that run one, many, or a study.

From Python or a notebook, without flags:

    experiment = ddjax.experiments.build(Settings(algorithm="dsgd", devices=64))
    history = experiment.run()
"""

from ddjax.experiments.build import Experiment
from ddjax.experiments.build import build as _build
from ddjax.experiments.settings import Settings

build = _build

__all__ = ["Experiment", "Settings", "build"]
