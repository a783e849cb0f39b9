"""Algorithms: a local phase and a mixed quantity each. To add one, see BUILD_NOTES."""

from ddjax.algorithms.averaging import centralized, dsgd, local
from ddjax.algorithms.co_regularization import co_regularization
from ddjax.algorithms.distillation import CONSENSUS, distillation, fedmd
from ddjax.algorithms.federated import dynamic_averaging, fedavg
from ddjax.algorithms.gossip import gossip

__all__ = [
    "CONSENSUS",
    "centralized",
    "co_regularization",
    "distillation",
    "dsgd",
    "dynamic_averaging",
    "fedavg",
    "fedmd",
    "gossip",
    "local",
]
