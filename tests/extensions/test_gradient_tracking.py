"""Gradient tracking reaches the pooled solution with a constant step size, where D-SGD does not."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import ddjax
from ddjax.algorithms import ALGORITHMS
from ddjax.data.synthetic import synthetic_regression
from ddjax.experiments.extensions import include
from ddjax.learning import REGRESSION
from ddjax.mixing import MIXERS
from ddjax.models import build_model
from ddjax.networks import build_topology
from ddjax.theory import least_squares
from ddjax.theory.convergence import coefficients

FILE = Path(__file__).with_name("gradient_tracking.py")
DEVICES = 6


@pytest.fixture(scope="module", autouse=True)
def _included():
    include([str(FILE)])


def regression():
    dataset = synthetic_regression(0, DEVICES, 150, 60, 4, 0.1, 1.0)
    network = build_topology("ring", DEVICES).network
    return ddjax.make_problem(dataset, network, partition="iid", reference_size=30)


def distance(name, problem, mixer, local_steps=1, count=20_000):
    """To the pooled solution, relative, after full-batch rounds."""
    model = build_model("linear", problem.x.shape[1:], 1)
    learner = ddjax.supervised_learner(model, optax.sgd(0.02), task=REGRESSION)
    population = ddjax.Population([ddjax.Group(learner, DEVICES)], 0, local_steps)
    simulation = ddjax.Simulation(ALGORITHMS[name].build(population, mixer), problem)
    key = jax.random.key(0)
    state, _ = simulation.advance(key, simulation.init(key), simulation.zeros(), count)
    expected = least_squares.averaged(least_squares.normal_equations(problem, 1))
    return np.linalg.norm(coefficients(state.devices) - expected) / np.linalg.norm(expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("local_steps", [1, 3])
def test_tracking_reaches_the_pooled_solution_where_dsgd_stays_biased(local_steps):
    problem = regression()
    assert distance("gradient_tracking", problem, ddjax.weighted_average(), local_steps) < 1e-9
    assert distance("dsgd", problem, ddjax.weighted_average(), local_steps) > 1e-3


@pytest.mark.usefixtures("float64")
def test_any_mixer_that_keeps_the_mean_will_do():
    problem = regression()
    assert distance("gradient_tracking", problem, ddjax.push_sum()) < 1e-9
    with pytest.raises(ddjax.InputError, match="keeps the mean"):
        distance("gradient_tracking", problem, MIXERS["adaptive"].build())


def test_the_file_is_short():
    assert len(FILE.read_text().splitlines()) <= 60
