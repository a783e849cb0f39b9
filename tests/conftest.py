"""Fixtures that the tests share."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version

# Tests compile much and compute little, so less optimized programs are faster overall.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"
if version("jaxlib").startswith("0.10."):  # later ones have no such choice
    # These halve the time to compile.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

# Test workers and the processes that they start share one cache, which is not the user's.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ddjax-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis
import jax
import pytest
from small import small_problem

from ddjax import registry

jax.devices()  # start JAX with one device, whichever test comes first; a command would start one per core
jax.config.update("jax_disable_most_optimizations", True)  # also for fixtures that are set up before `_optimizing`

_SHARED = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck), "database": None}
hypothesis.settings.register_profile("ci", max_examples=60, derandomize=True, **_SHARED)
hypothesis.settings.register_profile("full", max_examples=2500, **_SHARED)
hypothesis.settings.load_profile("ci")


@pytest.fixture
def optimized():
    """For long training tests; other tests do not optimize their programs, which compile in two thirds of the time."""


@pytest.fixture(autouse=True)
def _optimizing(request, monkeypatch):
    quick = "optimized" not in request.fixturenames
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(quick))
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def pictures():
    """For tests of the pictures of train.py; other tests do not draw any, because that takes a third of a short run."""


@pytest.fixture(autouse=True)
def _drawing(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("ddjax.experiments.train._draw", lambda folder: None)


@pytest.fixture
def forgetful(monkeypatch):
    """Entries that a test registers, as by `--include`, are removed before the next test."""
    for each in registry._registries:
        monkeypatch.setattr(each, "_entries", dict(each._entries))


@pytest.fixture
def problem():
    return small_problem()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield
