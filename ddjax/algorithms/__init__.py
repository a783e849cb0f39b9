"""Algorithms: a local phase and a mixed quantity each. To add one, see BUILD_NOTES."""

from ddjax.algorithms.averaging import centralized, dsgd, local
from ddjax.algorithms.distillation import CONSENSUS, distillation

__all__ = ["CONSENSUS", "centralized", "distillation", "dsgd", "local"]
