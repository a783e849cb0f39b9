"""Algorithms: a local phase and a mixed quantity each, one a module.

Each module's function has the module's name, as in `ddjax.algorithms.dsgd.dsgd`; `ddjax.dsgd` is the function.
"""

from ddjax.algorithms import (
    co_regularization,
    corlsr,
    def_kt,
    distillation,
    ds_fl,
    dsgd,
    dynamic_averaging,
    exact_diffusion,
    fedavg,
    fedct,
    fedmd,
    gossip,
    gradient_tracking,
    idkd,
    kt_pfl,
    local,
    quasi_global_momentum,
    relaysgd,
    scaffold,
)
from ddjax.algorithms.registry import ALGORITHMS, CONSENSUS, DETECTORS, AlgorithmEntry

__all__ = [
    "ALGORITHMS",
    "CONSENSUS",
    "DETECTORS",
    "AlgorithmEntry",
    "co_regularization",
    "corlsr",
    "def_kt",
    "distillation",
    "ds_fl",
    "dsgd",
    "dynamic_averaging",
    "exact_diffusion",
    "fedavg",
    "fedct",
    "fedmd",
    "gossip",
    "gradient_tracking",
    "idkd",
    "kt_pfl",
    "local",
    "quasi_global_momentum",
    "relaysgd",
    "scaffold",
]
