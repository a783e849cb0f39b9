"""Algorithms: each has a local phase and mixes one quantity.

Each module has a function of the same name, such as `ddjax.algorithms.dsgd.dsgd`. `ddjax.dsgd` is this function.
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
