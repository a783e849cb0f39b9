"""Random draws: the streams of a round, and the minibatches of a device."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class RoundKeys(NamedTuple):
    """Random streams of one round.

    The streams are the same for every algorithm, so two algorithms see the same minibatches and graphs.
    """

    train: jax.Array
    reference: jax.Array
    mix: jax.Array
    graph: jax.Array


def round_keys(key: jax.Array) -> RoundKeys:
    """Split the key of a round into its streams.

    Examples:
      >>> keys = round_keys(jax.random.key(0))
      >>> keys._fields
      ('train', 'reference', 'mix', 'graph')
    """
    return RoundKeys(*jax.random.split(key, 4))


def draw(key: jax.Array, size: int, count: int) -> jax.Array:
    """Draw `count` of the numbers `0 … size − 1`, without replacement and in random order.

    The function draws `size` random numbers and returns the positions `[count]` of the largest ones. On a CPU,
    `jax.random.choice` takes ten times as long, because it sorts several times.

    Examples:
      >>> rows = draw(jax.random.key(0), 10, 10)
      >>> sorted(rows.tolist())
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    return jax.lax.top_k(jax.random.uniform(key, (size,)), count)[1]


class Minibatch(NamedTuple):
    """Minibatch of one step of one device.

    Attributes:
      key: key of the step.
      rows: `[B]` row numbers of the examples in the data.
      weight: `[B]` weights of the examples; `None` if all are equal.
      takes: `[]` whether the step is taken; `None` if every step is taken.
    """

    key: jax.Array
    rows: jax.Array
    weight: jax.Array | None
    takes: jax.Array | None


def minibatches(
    key: jax.Array, held: jax.Array, size: jax.Array, batch_size: int, epochs: int
) -> Callable[[jax.Array], Minibatch]:
    """Make the function that maps the number of a step to its minibatch, for ONE device in one round.

    Args:
      key: key of the device in this round.
      held: `[n_max]` row numbers of the examples that the device holds, padded on the right.
      size: `[]` number of entries of `held` that are not padding.
      batch_size: examples per minibatch; 0 for all examples of the device.
      epochs: passes over the device's examples, shuffled anew each time; 0 to draw uniformly with replacement.
    """
    n_max = held.shape[0]
    batch = batch_size or n_max

    def with_replacement(number):
        drawing, own = jax.random.split(jax.random.fold_in(key, number))
        return Minibatch(own, held[jax.random.randint(drawing, (batch,), 0, size)], None, None)

    def everything(number):
        return Minibatch(jax.random.fold_in(key, number), held, (jnp.arange(n_max) < size).astype(float), None)

    if not epochs:
        return with_replacement if batch_size else everything
    shuffling, stepping = jax.random.split(key)
    drawn = jax.random.uniform(shuffling, (epochs, n_max))
    orders = jnp.argsort(jnp.where(jnp.arange(n_max) < size, drawn, 2.0), axis=1)
    per_epoch = math.ceil(n_max / batch)

    def shuffled(number):
        at = number % per_epoch * batch + jnp.arange(batch)
        rows = held[orders[number // per_epoch, jnp.minimum(at, n_max - 1)]]
        # A step that is not taken must not divide by zero.
        takes = at[0] < size
        weight = ((at < size) | ~takes).astype(float)
        return Minibatch(jax.random.fold_in(stepping, number), rows, weight, takes)

    return shuffled
