"""ddjax: devices that learn together over a network by distributed distillation, simulated in JAX."""

from ddjax import algorithms, data, losses, models, topology
from ddjax.algorithms import centralized, distillation, dsgd, local
from ddjax.data import make_problem
from ddjax.learners import Group, Learners, learner
from ddjax.mixing import weighted_average
from ddjax.simulate import Evaluation, Simulation, evaluations, run
from ddjax.types import (
    Algorithm,
    Device,
    Info,
    InputError,
    Learner,
    Mixer,
    NonFiniteError,
    Problem,
    StepInfo,
)

__all__ = [
    "Algorithm",
    "Device",
    "Evaluation",
    "Group",
    "Info",
    "InputError",
    "Learner",
    "Learners",
    "Mixer",
    "NonFiniteError",
    "Problem",
    "Simulation",
    "StepInfo",
    "algorithms",
    "centralized",
    "data",
    "distillation",
    "dsgd",
    "evaluations",
    "learner",
    "local",
    "losses",
    "make_problem",
    "models",
    "run",
    "topology",
    "weighted_average",
]
