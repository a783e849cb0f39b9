"""Gradient tracking: devices step along an estimate of the mean gradient, and mix it as they mix parameters."""

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
    """What gradient tracking carries between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` for each group.
      correction: `c_n`, stacked like the parameters: what the network's mean gradient has beyond the device's own.
      mixer: the mixer's state, of parameters and `y` together.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    correction: PyTree
    mixer: MixerState


def gradient_tracking(population: Population, mixer: Mixer) -> Algorithm:
    """D-SGD with gradient tracking (DSGT, Pu and Nedić, Mathematical Programming 2021; GT-DSGD, Koloskova, Lin, Stich,
    NeurIPS 2021): `θ_n ← Σ_m W[n, m] (θ_m − η y_m)`, `y_n ← Σ_m W[n, m] y_m + g_n^new − g_n^old`.

    The mean of `y` is always that of the last gradients. With `c_n = Σ_m W[n, m] y_m − g_n^old`, at first 0, a device
    steps along `y_n = g_n + c_n` and sends both `θ` and `y`, which are mixed alike. With several local steps `c_n` is
    the same in all of them, and `g_n` is their mean gradient. The optimizer is given `y`; its state stays at home. All
    devices start from common parameters. One message is parameters and `y`, twice the bytes of D-SGD; to a compressor
    they are one vector.

    It does with every mixer that keeps the mean, also one for a running value (`choco`, `push_sum`): `y` is one. Of the
    mixers that compress only `choco` makes up for what is lost; with others `y` drifts.

    Raises:
      InputError: devices of several architectures, or a mixer that does not keep the mean. `check` refuses networks
        that lose messages.
    """
    single_group(population, "gradient_tracking")
    if mixer.compressed:
        raise InputError(
            f"gradient_tracking drifts where messages of {mixer.name} are compressed and what is lost is not sent "
            "later; compress with --mixing=choco"
        )
    if not mixer.keeps_mean:
        raise InputError(
            f"gradient_tracking needs a mixing that keeps the mean over devices, which {mixer.name} does not; use "
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
        measure=measure_averaging,
    )
)
