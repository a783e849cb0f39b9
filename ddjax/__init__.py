"""ddjax: devices that learn together over a network by distributed distillation, simulated in JAX."""

__version__ = "0.2.0"

from ddjax import algorithms, data, learning, mixing, models, networks, simulation, theory
from ddjax.algorithms.co_regularization import co_regularization
from ddjax.algorithms.corlsr import corlsr
from ddjax.algorithms.def_kt import def_kt
from ddjax.algorithms.distillation import distillation
from ddjax.algorithms.ds_fl import ds_fl
from ddjax.algorithms.dsgd import dsgd
from ddjax.algorithms.dynamic_averaging import dynamic_averaging
from ddjax.algorithms.exact_diffusion import exact_diffusion
from ddjax.algorithms.fedavg import fedavg, fedprox
from ddjax.algorithms.fedct import fedct, fedct_neighbors
from ddjax.algorithms.fedmd import fedmd
from ddjax.algorithms.gossip import gossip
from ddjax.algorithms.gradient_tracking import gradient_tracking
from ddjax.algorithms.idkd import idkd
from ddjax.algorithms.kt_pfl import kt_pfl
from ddjax.algorithms.local import local
from ddjax.algorithms.quasi_global_momentum import quasi_global_momentum
from ddjax.algorithms.relaysgd import relaysgd
from ddjax.algorithms.scaffold import scaffold
from ddjax.data import load_dataset, make_problem, pool
from ddjax.errors import DivergedError, InputError
from ddjax.learning import Group, Population, supervised_learner
from ddjax.mixing.adaptive import adaptive
from ddjax.mixing.average import weighted_average
from ddjax.mixing.choco import choco
from ddjax.mixing.encoded import encoded
from ddjax.mixing.push_sum import push_sum
from ddjax.mixing.server import server
from ddjax.models import build_model
from ddjax.networks import build_topology
from ddjax.simulation import Evaluation, Simulation, iterate, run
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

__all__ = [
    "Algorithm",
    "Device",
    "DivergedError",
    "Evaluation",
    "Group",
    "Info",
    "InputError",
    "Learner",
    "Mixer",
    "MixerState",
    "Population",
    "Problem",
    "Simulation",
    "StepInfo",
    "Traffic",
    "adaptive",
    "algorithms",
    "build_model",
    "build_topology",
    "choco",
    "co_regularization",
    "corlsr",
    "data",
    "def_kt",
    "distillation",
    "ds_fl",
    "dsgd",
    "dynamic_averaging",
    "encoded",
    "exact_diffusion",
    "fedavg",
    "fedct",
    "fedct_neighbors",
    "fedmd",
    "fedprox",
    "gossip",
    "gradient_tracking",
    "idkd",
    "iterate",
    "kt_pfl",
    "learning",
    "load_dataset",
    "local",
    "make_problem",
    "mixing",
    "models",
    "networks",
    "pool",
    "push_sum",
    "quasi_global_momentum",
    "relaysgd",
    "run",
    "scaffold",
    "server",
    "simulation",
    "supervised_learner",
    "theory",
    "weighted_average",
]
