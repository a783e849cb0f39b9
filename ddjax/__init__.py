"""ddjax: devices that learn together over a network by distributed distillation, simulated in JAX."""

from ddjax import algorithms, data, learning, mixing, models, networks, simulation, theory
from ddjax.algorithms.centralized import centralized
from ddjax.algorithms.co_regularization import co_regularization
from ddjax.algorithms.distillation import distillation, fedmd
from ddjax.algorithms.dsgd import dsgd
from ddjax.algorithms.dynamic_averaging import dynamic_averaging
from ddjax.algorithms.fedavg import fedavg
from ddjax.algorithms.gossip import gossip
from ddjax.algorithms.local import local
from ddjax.data import make_problem
from ddjax.errors import InputError, NonFiniteError
from ddjax.learning.population import Group, Population
from ddjax.learning.supervised import learner
from ddjax.mixing.mixers import adaptive, choco, encoded, push_sum, server, weighted_average
from ddjax.networks.topology import topology
from ddjax.simulation.engine import Evaluation, Simulation, evaluations, run
from ddjax.types import (
    Algorithm,
    Device,
    Info,
    Learner,
    Mixer,
    MixerState,
    Problem,
    StepInfo,
    Traffic,
)

__version__ = "0.2.0"

__all__ = [
    "Algorithm",
    "Device",
    "Evaluation",
    "Group",
    "Info",
    "InputError",
    "Learner",
    "Mixer",
    "MixerState",
    "NonFiniteError",
    "Population",
    "Problem",
    "Simulation",
    "StepInfo",
    "Traffic",
    "adaptive",
    "algorithms",
    "centralized",
    "choco",
    "co_regularization",
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
    "learning",
    "local",
    "make_problem",
    "mixing",
    "models",
    "networks",
    "push_sum",
    "run",
    "server",
    "simulation",
    "theory",
    "topology",
    "weighted_average",
]
