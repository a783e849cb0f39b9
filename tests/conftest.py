"""Small problems that the tests share."""

import os

# Tests compile much and compute little: less optimized programs are ready in half the time.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"

import jax
import numpy as np
import pytest

import ddjax
from ddjax.data.sources import synthetic_classification
from ddjax.networks.topology import topology

DEVICES, CLASSES, DIMENSIONS = 6, 3, 5


def small_problem(spec="ring", partition="quantity", devices=DEVICES, product="", **kwargs):
    dataset = synthetic_classification(0, devices, 120, 60, CLASSES, DIMENSIONS, heterogeneity=0.5)
    matrix = topology(spec, devices, product=product).network
    return ddjax.make_problem(dataset, matrix, partition=partition, reference_size=20, **kwargs)


def image_problem(devices=4, side=8):
    """Random images: enough to run every architecture, nothing to learn."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (100, side, side), dtype=np.uint8)
    y = rng.integers(0, CLASSES, 100).astype(np.int32)
    dataset = ddjax.data.Dataset(x[:80], y[:80], x[80:], y[80:], CLASSES)
    return ddjax.make_problem(dataset, topology("ring", devices).network, partition="iid", reference_size=20)


@pytest.fixture
def problem():
    return small_problem()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield
