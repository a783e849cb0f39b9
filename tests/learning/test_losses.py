"""Divergences against SciPy and their textbook relations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from ddjax.learning import losses
from ddjax.learning.losses import DIVERGENCES

RNG = np.random.default_rng(0)
S, Z = RNG.dirichlet(np.ones(5), 8), RNG.dirichlet(np.ones(5), 8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("squared_euclidean", ((S - Z) ** 2).sum(1)),
        ("kl", entropy(Z, S, axis=1)),
        ("cross_entropy", entropy(Z, S, axis=1) + entropy(Z, axis=1)),
        ("jensen_shannon", jensenshannon(S, Z, axis=1) ** 2),
    ],
)
def test_values(name, expected):
    np.testing.assert_allclose(DIVERGENCES[name].build()(jnp.log(S), jnp.asarray(Z)), expected, rtol=2e-5)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_extreme_decisions_and_targets_have_finite_gradients(name):
    logits = jnp.array([[0.0, 200.0, -200.0], [0.0, 0.0, 0.0]])
    target = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    value, gradient = jax.value_and_grad(lambda x: DIVERGENCES[name].build()(jax.nn.log_softmax(x), target).sum())(
        logits
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradient_vanishes_where_decision_equals_target(name):
    gradient = jax.grad(lambda x: DIVERGENCES[name].build()(jax.nn.log_softmax(x), jnp.asarray(Z)).sum())(jnp.log(Z))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_softmax_cross_entropy():
    logits, labels = RNG.normal(size=(6, 4)), RNG.integers(0, 4, 6)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(6), labels])
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-5
    )
