"""Push-sum: exact averages on directed graphs."""

import math

import jax
import jax.numpy as jnp

from ddjax.mixing.registry import MIXERS, MixerEntry
from ddjax.networks import NetworkRound
from ddjax.stacked import expand, stacked_bytes
from ddjax.types import Mixer, MixerState, PyTree, Traffic, working_dtype


def push_sum() -> Mixer:
    """Push-sum (Kempe, Dobra, Gehrke, FOCS 2003): exact averages on directed graphs.

    A device needs to know only its out-neighbours. It stores a numerator `u_n` and a weight `w_n`, which are mixed with
    a column-stochastic matrix; the device's value is `x_n = u_n / w_n`. Changes of `x` since the last mixing are added
    to the numerator. Within `dsgd` these changes are gradient steps, and the result is stochastic gradient push (Assran
    et al., ICML 2019, algorithm 1). A message contains the numerator and the weight. The weight is one number for
    parameters, and one number per row for soft decisions.

    Examples:
      >>> mixer = ddjax.push_sum()
      >>> mixer.message_bytes(x, 1).peer  # a number and its weight, 4 bytes each
      {'numerator and weight': 8}
    """

    def init(x: PyTree, leading: int) -> MixerState:
        weight = jnp.ones(jax.tree.leaves(x)[0].shape[:leading])
        return MixerState((weight, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)))

    def mix(key: jax.Array, x: PyTree, state: MixerState, network: NetworkRound):
        weight, last = state.rows
        # The numerator is u + (x − last), where u = w · last. Before the first mixing, w is 1 and last is 0, so the
        # numerator is x.
        numerator = jax.tree.map(lambda x, last: x + (expand(weight, x) - 1) * last, x, last)
        weight = network.received.product(weight)
        x = jax.tree.map(lambda u: u / expand(weight, u), network.received.product(numerator))
        return x, MixerState((weight, x)), Traffic({"numerator and weight": network.sent.links()})

    def message_bytes(x: PyTree, leading: int) -> Traffic:
        rows = math.prod(jax.tree.leaves(x)[0].shape[1:leading])
        return Traffic({"numerator and weight": stacked_bytes(x) + working_dtype().itemsize * rows})

    return Mixer(init, mix, message_bytes, name="push_sum", weights="column", lossless=True, running=True, linear=True)


MIXERS.add(MixerEntry("push_sum", push_sum, contents={"numerator and weight": "numerators of {value}, with weights"}))
