"""Checks that an author runs on a part of their own: a mixer, an algorithm, a model, a data set.

Each check raises `AssertionError` with what is wrong. They are run over the registries in ddjax's own tests. With
several accelerators (`--xla_force_host_platform_device_count=2` makes two of a CPU) they compare one shard with all.
"""

from ddjax.testing.algorithms import check_algorithm
from ddjax.testing.data import check_dataset
from ddjax.testing.mixers import check_mixer
from ddjax.testing.models import check_model

__all__ = ["check_algorithm", "check_dataset", "check_mixer", "check_model"]
