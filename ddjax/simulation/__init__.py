"""Simulation: compile an algorithm for a problem, run and evaluate it, and save checkpoints."""

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
