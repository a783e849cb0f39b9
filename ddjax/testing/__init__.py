"""Checks that an author runs on their own part: a mixer, an algorithm, a model or a data set.

Each check raises `AssertionError` with what is wrong. The tests of ddjax run them over the registries. With several
accelerators (`--xla_force_host_platform_device_count=2` makes two of a CPU) they compare one shard with all.
"""

from ddjax.testing.algorithms import check_algorithm
from ddjax.testing.data import check_dataset
from ddjax.testing.mixers import check_mixer
from ddjax.testing.models import check_model

__all__ = ["check_algorithm", "check_dataset", "check_mixer", "check_model"]
