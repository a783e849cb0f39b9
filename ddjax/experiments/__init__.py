"""Experiments: their settings, what is built from these, and the commands that run one, many or a study.

From Python or a notebook, without flags::

    experiment = ddjax.experiments.build(ddjax.experiments.Settings(algorithm="dsgd", devices=64))
    history = experiment.run()
"""

from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.settings import Settings

__all__ = ["Experiment", "Settings", "build"]
