"""Simulation: an algorithm compiled on a problem, run, evaluated and kept."""

from ddjax.simulation.accounting import Bytes
from ddjax.simulation.checkpoint import Checkpoints
from ddjax.simulation.metrics import Measures
from ddjax.simulation.runner import Evaluation, Progress, iterate, run
from ddjax.simulation.simulation import Simulation, Snapshot

__all__ = [
    "Bytes",
    "Checkpoints",
    "Evaluation",
    "Measures",
    "Progress",
    "Simulation",
    "Snapshot",
    "iterate",
    "run",
]
