"""Distance of devices from the solution on the pooled data, in linear regression with unlike devices."""

import jax
import numpy as np
import optax

import ddjax
from ddjax.algorithms import ALGORITHMS
from ddjax.data.synthetic import synthetic_regression
from ddjax.learning import REGRESSION
from ddjax.models import build_model
from ddjax.networks import build_topology
from ddjax.theory import least_squares
from ddjax.theory.convergence import coefficients

DEVICES = 6


def regression():
    """Devices on a ring, whose data all have different solutions."""
    dataset = synthetic_regression(0, DEVICES, 150, 60, 4, 0.1, 1.0)
    network = build_topology("ring", DEVICES).network
    return ddjax.make_problem(dataset, network, partition="iid", reference_size=30)


def distance(name, problem, mixer, local_steps=1, count=20_000):
    """Relative distance to the pooled solution after full-batch rounds."""
    model = build_model("linear", problem.x.shape[1:], 1)
    learner = ddjax.supervised_learner(model, optax.sgd(0.02), task=REGRESSION)
    population = ddjax.Population([ddjax.Group(learner, DEVICES)], 0, local_steps)
    simulation = ddjax.Simulation(ALGORITHMS[name].build(population, mixer), problem)
    key = jax.random.key(0)
    state, _ = simulation.advance(key, simulation.init(key), simulation.zeros(), count)
    expected = least_squares.averaged(least_squares.normal_equations(problem, 1))
    return np.linalg.norm(coefficients(state.devices) - expected) / np.linalg.norm(expected)
