"""Checks that authors run on their own parts: mixers, algorithms, models or data sets.

A check that fails raises an `AssertionError` that says what is wrong. The tests of ddjax check all parts in the
registries. With several accelerators, the checks compare results on one shard with results on all shards. (With the XLA
flag `--xla_force_host_platform_device_count=2`, a CPU counts as two.)
"""

from ddjax.testing.algorithms import check_algorithm
from ddjax.testing.data import check_dataset
from ddjax.testing.mixers import check_mixer
from ddjax.testing.models import check_model

__all__ = ["check_algorithm", "check_dataset", "check_mixer", "check_model"]
