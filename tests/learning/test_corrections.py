"""Gradient and update apart: an update is an Optax step, and what corrects a gradient is as in a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import Drawn, numpy_step
from small import CLASSES, DEVICES, DIMENSIONS, RATE, close, make_learners, small_problem

import ddjax
from ddjax.learning import Population, round_keys

KEY, PULL = jax.random.key(7), 0.7


def proximal(key, gradient, params, start):
    """The gradient of `½ μ ‖θ − θ⁰‖²` added, as in FedProx."""
    return jax.tree.map(lambda g, p, s: g + PULL * (p - s), gradient, params, start)


def trained(population, problem, **arguments):
    devices = population.init(jax.random.key(3))
    start = (devices[0].params,) if "correct" in arguments else None
    keys = round_keys(KEY)
    (moved,), phase = population.train(keys.train, jnp.int32(0), devices, problem, corrections=start, **arguments)
    return devices[0].params, moved.params, phase


def test_a_proximal_term_is_that_of_a_loop_in_numpy():
    problem, steps = small_problem(), 3
    start, moved, phase = trained(make_learners(local_steps=steps), problem, correct=proximal)
    drawn = Drawn(KEY, problem, steps)
    x, y = np.asarray(problem.x, float), np.asarray(problem.y)
    for n in range(DEVICES):
        first = tuple(np.asarray(start["dense"][name][n], float) for name in ("kernel", "bias"))
        now, total = first, [np.zeros_like(part) for part in first]
        for rows in drawn.private[n]:
            after = numpy_step(*now, x[rows], y[rows], x[:1], None)[:2]
            gradient = [(old - new) / RATE for old, new in zip(now, after, strict=True)]
            total = [sum + part for sum, part in zip(total, gradient, strict=True)]
            now = tuple(p - RATE * (g + PULL * (p - s)) for p, g, s in zip(now, gradient, first, strict=True))
        for name, params, sum in zip(("kernel", "bias"), now, total, strict=True):
            close(moved["dense"][name][n], params, 1e-5)
            close(phase.gradients[0]["dense"][name][n], sum / steps, 1e-5)  # before they were corrected


def test_correcting_nothing_changes_nothing(problem):
    population = make_learners(local_steps=2)
    _, plain, without = trained(population, problem)
    _, same, phase = trained(population, problem, correct=lambda key, gradient, params, correction: gradient)
    close(plain, same, 1e-6)
    assert without.gradients is None
    assert jax.tree.map(jnp.shape, phase.gradients[0]) == jax.tree.map(jnp.shape, plain)


def test_the_mean_gradient_is_over_the_steps_that_were_taken():
    """With epochs a device of few examples takes fewer steps; under plain SGD its way is `−η` times their sum."""
    problem = small_problem()
    population = Population(make_learners().groups, batch_size=4, local_epochs=2)
    start, moved, phase = trained(population, problem, correct=lambda key, gradient, params, correction: gradient)
    assert len(set(phase.steps.tolist())) > 1
    way = jax.tree.map(lambda a, b: (a - b) / RATE, start, moved)
    total = jax.tree.map(lambda g: g * phase.steps.reshape(-1, *[1] * (g.ndim - 1)), phase.gradients[0])
    close(way, total, 1e-4)


def test_corrections_are_given_group_by_group_and_those_who_rest_stay(problem):
    population = make_learners(("linear", "mlp"))
    devices = population.init(jax.random.key(3))
    start, active = tuple(device.params for device in devices), jnp.arange(DEVICES) % 2 == 0
    moved, phase = population.train(
        KEY, jnp.int32(0), devices, problem, active=active, correct=proximal, corrections=start
    )
    for first, before, after, gradient in zip((0, DEVICES // 2), start, moved, phase.gradients, strict=True):
        taking = np.asarray(active)[first : first + DEVICES // 2]
        for old, new, g in zip(*map(jax.tree.leaves, (before, after.params, gradient)), strict=True):
            np.testing.assert_array_equal(np.asarray(old)[~taking], np.asarray(new)[~taking])
            assert not np.asarray(g)[~taking].any()
            assert np.asarray(g)[taking].any()


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.adam(0.01)])
def test_an_update_is_an_optax_step(optimizer):
    model = ddjax.models.build_model("linear", (DIMENSIONS,), CLASSES)
    learner = ddjax.supervised_learner(model, optimizer)
    device = learner.init(jax.random.key(0))
    gradient = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=float)).reshape(leaf.shape), device.params)
    updates, state = optimizer.update(gradient, device.optimizer, device.params)
    moved = learner.update(device, gradient)
    jax.tree.map(np.testing.assert_array_equal, moved.params, optax.apply_updates(device.params, updates))
    jax.tree.map(np.testing.assert_array_equal, moved.optimizer, state)


def test_a_gradient_is_that_of_the_objective(problem):
    learner = make_learners().groups[0].learner
    params = learner.init(jax.random.key(0)).params
    batch, targets = (problem.x[:4], problem.y[:4], None), jnp.full((20, CLASSES), 1 / CLASSES)
    for given in ((None, None), (problem.reference, targets)):
        found, _ = learner.gradient(KEY, params, batch, *given)
        close(found, jax.grad(learner.objective)(params, batch, *given), 1e-6)
