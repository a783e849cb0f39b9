"""Gradient tracking: devices step along estimates of the mean gradient, and mix these estimates like the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, MIXING, TRAINING, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.learning import Population, round_keys, single_group
from ddjax.mixing import check_mixing
from ddjax.theory.convergence import measure_averaging
from ddjax.types import Algorithm, Device, Info, Mixer, MixerState, Problem, PyTree, Traffic


class State(NamedTuple):
    """State of gradient tracking between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      correction: `c_n`, stacked like the parameters: estimate of the network's mean gradient, minus the device's own
        gradient.
      mixer: the mixer's state for parameters and `y` together.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    correction: PyTree
    mixer: MixerState


def gradient_tracking(population: Population, mixer: Mixer) -> Algorithm:
    """D-SGD with gradient tracking: `θ_n ← Σ_m W[n, m] (θ_m − η y_m)`, `y_n ← Σ_m W[n, m] y_m + g_n^new − g_n^old`.

    The algorithm was published as DSGT (Pu and Nedić, Mathematical Programming 2021) and GT-DSGD (Koloskova, Lin,
    Stich, NeurIPS 2021). The mean of `y` always equals the mean of the last gradients. Let
    `c_n = Σ_m W[n, m] y_m − g_n^old`, which is initially 0. A device steps along `y_n = g_n + c_n` and sends both `θ`
    and `y`, which are mixed in the same way. With several local steps, `c_n` is the same in all steps, and `g_n` is the
    mean gradient over these steps. The optimizer receives `y` as the gradient; optimizer state is not sent. All devices
    start from common parameters. A message contains the parameters and `y`, so it is twice as large as in D-SGD. A
    compressor treats the two as one vector.

    Every mixer that preserves the mean works. This includes `choco` and `push_sum`: they need a running value, and `y`
    is one. Among the mixers that compress, only `choco` sends the compression error later; with the other mixers, `y`
    drifts.

    Args:
      population: devices of one architecture.
      mixer: operation that mixes parameters and `y`.

    Raises:
      InputError: the devices have several architectures, or the mixer never sends its compression errors or does not
        preserve the mean. `check` raises this error if the network loses messages.

    Examples:
      >>> algorithm = ddjax.gradient_tracking(population, ddjax.weighted_average())
      >>> algorithm.message_bytes(problem).peer  # 650 parameters and as many gradients
      {'value': 5200}
    """
    single_group(population, "gradient_tracking")
    if mixer.compressed:
        raise InputError(
            f"gradient_tracking drifts if the mixer {mixer.name!r} compresses messages, because the compression "
            "error is never sent; to compress, use --mixing=choco"
        )
    if not mixer.keeps_mean:
        raise InputError(
            f"gradient_tracking needs a mixer that keeps the mean over devices, but {mixer.name} does not; use "
            "average, choco, push_sum or server"
        )

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        zeros = jax.tree.map(jnp.zeros_like, devices[0].params)
        return State(jnp.zeros((), jnp.int32), devices, zeros, mixer.init((devices[0].params, zeros), 1))

    def correct(key: jax.Array, gradient: PyTree, params: PyTree, correction: PyTree) -> PyTree:
        return jax.tree.map(jnp.add, gradient, correction)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        (devices,), phase = population.train(
            keys.train, state.round, state.devices, problem, correct=correct, corrections=(state.correction,)
        )
        (gradients,) = phase.gradients
        y = jax.tree.map(jnp.add, gradients, state.correction)
        network = problem.network.at_round(keys.graph, state.round)
        (params, y), mixer_state, sent = mixer.mix(keys.mix, (devices.params, y), state.mixer, network)
        correction = jax.tree.map(jnp.subtract, y, gradients)
        state = State(state.round + 1, (devices._replace(params=params),), correction, mixer_state)
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        return mixer.message_bytes((population.parameters, population.parameters), 1)

    def check(problem: Problem) -> None:
        population.check(problem)
        check_mixing(mixer, problem.network, lossless="gradient_tracking")

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


ALGORITHMS.add(
    AlgorithmEntry(
        "gradient_tracking",
        gradient_tracking,
        uses=(*TRAINING, *MIXING),
        mixes="parameters",
        contents={"value": "parameters and gradient estimate"},
        measure=measure_averaging,
    )
)
