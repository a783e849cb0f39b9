"""Settings of experiments, experiments built from them, and commands for single runs, sweeps and studies.

From Python or a notebook, without flags::

    experiment = ddjax.experiments.build(ddjax.experiments.Settings(algorithm="dsgd", devices=64))
    history = experiment.run()
"""

from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.settings import Settings

__all__ = ["Experiment", "Settings", "build"]
