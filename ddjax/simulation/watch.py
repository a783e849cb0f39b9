"""Detection of runs that have diverged although their numbers are finite."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.learning import CLASSIFICATION, infer_task
from ddjax.types import Info, Problem, working_dtype

# A device has diverged if its smoothed private loss is more than this many times the loss at the start.
FACTOR = 30.0
_KEPT = 0.95  # share of the smoothed loss that each optimizer step keeps; one bad minibatch is no divergence
_EXAMPLES = 16  # private examples, from all devices, on which the models are measured before the first round


class Watch(NamedTuple):
    """Smoothed private losses of the devices, and the losses at the start with which they are compared.

    A device has diverged if `level > 30 · start`. `start` is the larger of two losses: the loss of the device's model
    before the first round, on private examples of all devices; and the loss of a model without an opinion (uniform
    probabilities, or zeros), on the device's own examples. Neither loss depends on the length of a run, or on where the
    run is cut.

    Attributes:
      level: `[N]` private loss, smoothed over about twenty optimizer steps; it begins at `start`.
      start: `[N]` loss at the start; infinite if nothing is watched.
    """

    level: jax.Array
    start: jax.Array

    def follow(self, info: Info) -> "Watch":
        """Return the watch, updated with the losses of one more round."""
        kept = _KEPT ** info.steps.astype(self.level.dtype)
        loss = info.loss / jnp.maximum(info.steps, 1)
        return self._replace(level=kept * self.level + (1 - kept) * loss)

    @property
    def diverged(self) -> jax.Array:
        """Whether each device has diverged, `[N]`."""
        return self.level > FACTOR * self.start


def begin(predict: Callable[[jax.Array], jax.Array], problem: Problem) -> Watch:
    """Make the watch before the first round.

    Args:
      predict: `x [B, …] → [N, B, K]` soft decisions of every device.
      problem: problem whose private examples are used.
    """
    task, dtype = infer_task(problem.y), working_dtype()
    counts, held = problem.private_counts, problem.private_indices
    total = counts.sum()
    seen = jnp.minimum(_EXAMPLES, total)
    number = jnp.arange(_EXAMPLES) % seen * (total // seen)  # evenly spaced among all private examples
    device = jnp.searchsorted(counts.cumsum(), number, side="right")
    rows = held[device, number - (counts.cumsum() - counts)[device]]
    s = predict(problem.x[rows])
    outputs = jnp.log(jnp.maximum(s, jnp.finfo(s.dtype).tiny)) if task is CLASSIFICATION else s
    models = jax.vmap(task.loss, (0, None))(outputs, problem.y[rows]).mean(-1)

    none = jnp.zeros((1, s.shape[-1]), dtype)  # one row: with one per example, XLA would fold a large constant
    no_opinion = jax.vmap(jax.vmap(lambda y: task.loss(none, y[None])[0]))(problem.y[held])
    counted = jnp.arange(held.shape[1]) < counts[:, None]
    own = jnp.where(counted, no_opinion, 0).sum(-1) / jnp.maximum(counts, 1)
    start = jnp.maximum(models, own).astype(dtype)
    return Watch(start, start)
