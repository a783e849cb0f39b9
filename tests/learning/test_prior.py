"""The private loss where logits are adjusted by the class shares that a device holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import call
from small import CLASSES, DIMENSIONS, make_learners, rounds, small_problem

import ddjax
from ddjax.errors import InputError
from ddjax.learning.supervised import LEAST_SHARE
from ddjax.learning.tasks import REGRESSION
from ddjax.models import build_model

TAU, RATE = 0.7, 0.2


def test_a_step_is_that_of_the_formula():
    """Gradient descent on all that a device holds, device by device in NumPy: `(softmax(f + τ log π) − e_y) xᵀ / m`."""
    problem = small_problem(partition="dirichlet", dirichlet_alpha=0.3)
    population = make_learners(batch_size=0, prior_adjustment=TAU, optimizer=optax.sgd(RATE))
    _, states = rounds(ddjax.local(population), problem, 3)
    lacking = 0
    for n, count in enumerate(np.asarray(problem.private_counts)):
        rows = np.asarray(problem.private_indices)[n, :count]
        x, y = np.asarray(problem.x)[rows], np.asarray(problem.y)[rows]
        shares = np.bincount(y, minlength=CLASSES) / count
        lacking += (shares == 0).any()
        shift = TAU * np.log(np.maximum(shares, LEAST_SHARE))
        layer = jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[n], states[0].devices[0].params["dense"])
        weights, bias = layer["kernel"], layer["bias"]
        for state in states[1:]:
            logits = x @ weights.T + bias + shift
            s = np.exp(logits - logits.max(1, keepdims=True))
            error = (s / s.sum(1, keepdims=True) - np.eye(CLASSES)[y]) / count
            weights, bias = weights - RATE * error.T @ x, bias - RATE * error.sum(0)
            found = jax.tree.map(lambda leaf, n=n: leaf[n], state.devices[0].params["dense"])
            np.testing.assert_allclose(found["kernel"], weights, rtol=2e-5, atol=2e-6)
            np.testing.assert_allclose(found["bias"], bias, rtol=2e-5, atol=2e-6)
    assert lacking


def test_equal_shares_adjust_nothing():
    """Adding one number to all logits leaves the softmax as it is."""
    model = build_model("linear", (DIMENSIONS,), CLASSES)
    learner = ddjax.supervised_learner(model, optax.sgd(RATE), prior_adjustment=2)
    params = learner.init(jax.random.key(0)).params
    x, y = jax.random.normal(jax.random.key(1), (6, DIMENSIONS)), jnp.arange(6) % CLASSES
    held = jnp.full(CLASSES, 1 / CLASSES)
    plain = ddjax.supervised_learner(model, optax.sgd(RATE))
    for ours, theirs in zip(
        jax.tree.leaves(learner.gradient(None, params, (x, y, None, held))[0]),
        jax.tree.leaves(plain.gradient(None, params, (x, y, None))[0]),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    with pytest.raises(ValueError, match="needs the shares of the classes"):
        learner.gradient(None, params, (x, y, None))


def test_numbers_to_predict_have_no_classes(tmp_path, capsys):
    with pytest.raises(InputError, match="only for classification"):
        ddjax.supervised_learner(lambda rngs: None, optax.sgd(RATE), task=REGRESSION, prior_adjustment=1.0)
    flags = [
        "--dataset=synthetic_regression",
        "--models=linear",
        "--prior_adjustment=1",
        f"--output_dir={tmp_path / 'a'}",
    ]
    assert call(*flags) == 2
    assert "--prior_adjustment=1.0 is only for classification" in capsys.readouterr().err
