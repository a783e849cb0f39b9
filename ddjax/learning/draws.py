"""Random draws: the streams of a round, and the minibatches of a device."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class RoundKeys(NamedTuple):
    """The random streams of one round, the same for every algorithm: two runs see the same minibatches and graphs."""

    train: jax.Array
    reference: jax.Array
    mix: jax.Array
    graph: jax.Array


def round_keys(key: jax.Array) -> RoundKeys:
    """Splits a round's key into its streams."""
    return RoundKeys(*jax.random.split(key, 4))


def draw(key: jax.Array, size: int, count: int) -> jax.Array:
    """Draws `[count]` of the numbers `0 … size − 1`, without replacement and in random order.

    They are the places of the largest of random numbers: `jax.random.choice` sorts several times, which on CPU takes
    ten times as long.
    """
    return jax.lax.top_k(jax.random.uniform(key, (size,)), count)[1]


class Minibatch(NamedTuple):
    """The minibatch of one step of one device.

    Attributes:
      key: of the step.
      rows: `[B]` rows of the data.
      weight: `[B]`; `None` where all count the same.
      takes: `[]` whether the step is taken; `None` where all are.
    """

    key: jax.Array
    rows: jax.Array
    weight: jax.Array | None
    takes: jax.Array | None


def minibatches(
    key: jax.Array, held: jax.Array, size: jax.Array, batch_size: int, epochs: int
) -> Callable[[jax.Array], Minibatch]:
    """The minibatches of ONE device in one round, as a function of the number of the step.

    Args:
      key: of the device and round.
      held: `[n_max]` rows of the data that it holds, padded on the right.
      size: `[]` how many of them count.
      batch_size: 0 for all that it holds.
      epochs: passes over its examples, shuffled anew each time; 0 to draw uniformly with replacement.
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
