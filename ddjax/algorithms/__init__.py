"""Algorithms, each of which has a local phase and mixes one quantity.

Each module contains a function of the same name. For example, `ddjax.algorithms.dsgd.dsgd` is also `ddjax.dsgd`.
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
