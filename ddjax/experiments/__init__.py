"""Settings of experiments, experiments that are built from settings, and commands for single runs, sweeps and studies.

To run an experiment from Python or a notebook::

    experiment = ddjax.experiments.build(ddjax.experiments.Settings(algorithm="dsgd", devices=64))
    history = experiment.run()
"""

from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.settings import Settings

__all__ = ["Experiment", "Settings", "build"]
