"""ddjax: devices that learn together over a network by distributed distillation, simulated in JAX."""

from ddjax import algorithms, compression, data, losses, mixing, models, networks, tasks, topology
from ddjax.algorithms import (
    centralized,
    co_regularization,
    distillation,
    dsgd,
    dynamic_averaging,
    fedavg,
    fedmd,
    gossip,
    local,
)
from ddjax.data import make_problem
from ddjax.learners import Group, Learners
from ddjax.mixing import adaptive, choco, encoded, push_sum, server, weighted_average
from ddjax.simulate import Evaluation, Simulation, evaluations, run
from ddjax.supervised import learner
from ddjax.types import (
    Algorithm,
    Device,
    Info,
    InputError,
    Learner,
    Mixer,
    MixerState,
    NonFiniteError,
    Problem,
    StepInfo,
    Traffic,
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
    "MixerState",
    "NonFiniteError",
    "Problem",
    "Simulation",
    "StepInfo",
    "Traffic",
    "adaptive",
    "algorithms",
    "centralized",
    "choco",
    "co_regularization",
    "compression",
    "data",
    "distillation",
    "dsgd",
    "dynamic_averaging",
    "encoded",
    "evaluations",
    "fedavg",
    "fedmd",
    "gossip",
    "learner",
    "local",
    "losses",
    "make_problem",
    "mixing",
    "models",
    "networks",
    "push_sum",
    "run",
    "server",
    "tasks",
    "topology",
    "weighted_average",
]
