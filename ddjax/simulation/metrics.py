"""Measures of a network of devices."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import forms, sharding
from ddjax.footprint import peak_bytes, size_on
from ddjax.learning import infer_task
from ddjax.types import Problem

# Number of soft decisions (examples times devices) that a CPU evaluates at a time; so few stay in cache.
_BLOCK = 16_384
_SAMPLE = 8  # examples from which the memory of an evaluation is estimated


class Measures(NamedTuple):
    """Result of one evaluation.

    Attributes:
      score: `[N]` metric of each device on the test set: accuracy, or the mean of `‖f(x) − y‖²`.
      ensemble_score: `[]` metric of the mean soft decision on the test set.
      disagreement: `[]` mean over devices and reference examples of `‖s_n(x) − s̄(x)‖²`.
      finite: `[N]` whether the score of a device and the squares of all its soft decisions on the reference set are
        finite.
    """

    score: jax.Array
    ensemble_score: jax.Array
    disagreement: jax.Array
    finite: jax.Array


def evaluate(predict: Callable[[jax.Array], jax.Array], problem: Problem) -> Measures:
    """Measure soft decisions on the test set and the reference set, a block of examples at a time.

    Args:
      predict: `x [B, …] → [N, B, K]` soft decisions.
      problem: problem whose test set and reference set are used.
    """
    devices, measure = problem.private_counts.shape[0], infer_task(problem.y).measure

    def test(x, y):
        s = predict(x)
        return measure(s, y), measure(s.mean(0), y)

    def spread(x):
        s = predict(x)
        return jnp.sum((s - s.mean(0)) ** 2, axis=-1).mean(0), jnp.isfinite(s**2).all(-1)

    scores, ensemble_scores = _blocks(test, devices, problem.x_test, problem.y_test)
    tests, references = problem.x_test.shape[0], problem.reference.shape[0]
    variances, finite = _blocks(spread, devices, problem.reference)
    score = scores.sum(-1) / tests
    return Measures(
        score=score,
        ensemble_score=ensemble_scores.sum() / tests,
        disagreement=variances.sum() / references,
        finite=finite.all(-1) & jnp.isfinite(score),
    )


def _blocks(function: Callable, devices: int, *examples: jax.Array):
    """Apply `function` to blocks of examples, and join its results (`[…, block]`) into `[…, examples]`."""
    size = examples[0].shape[0]
    block = min(size, max(16, _BLOCK // devices))
    if (platform := sharding.platform()) != "cpu":
        some = [jax.ShapeDtypeStruct((_SAMPLE, *each.shape[1:]), each.dtype) for each in examples]
        made = peak_bytes(jax.make_jaxpr(function)(*some).jaxpr, sharding.shard_count(), size_on(platform))
        # A block takes half of the memory that a chunk of devices may take in a round; a larger block is no faster.
        block = forms.at_a_time(platform, size, 2 * made / sharding.shard_count() / _SAMPLE)
    rows = jnp.arange(math.ceil(size / block) * block).reshape(-1, block) % size

    def join(parts: jax.Array) -> jax.Array:
        return jnp.moveaxis(parts, 0, -2).reshape(*parts.shape[1:-1], -1)[..., :size]

    return jax.tree.map(join, jax.lax.map(lambda r: function(*(e[r] for e in examples)), rows))
