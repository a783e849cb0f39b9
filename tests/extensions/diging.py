"""DIGing (Nedić, Olshevsky, Shi 2017) of stochastic gradients, as a user's own file: `--include=diging.py`.
It combines, then adapts: `θ_n ← Σ_m W[n, m] θ_m − η y_n`, `y_n ← Σ_m W[n, m] y_m + g_n^{t+1} − g_n^t`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms import ALGORITHMS, AlgorithmEntry
from ddjax.algorithms.registry import MIXING, TRAINING
from ddjax.errors import InputError
from ddjax.learning import Population, round_keys, single_group
from ddjax.mixing import check_mixing
from ddjax.types import Algorithm, Device, Info, Mixer, MixerState, Problem, Traffic


class State(NamedTuple):
    round: jax.Array
    devices: tuple[Device, ...]
    correction: Any  # the mixed `y_n`, less the gradient `g_n` that is in it
    mixer: MixerState


def diging(population: Population, mixer: Mixer) -> Algorithm:
    single_group(population, "diging")
    if not mixer.keeps_mean:
        raise InputError(f"diging needs a mixer that keeps the mean, but {mixer.name} does not")

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        zeros = jax.tree.map(jnp.zeros_like, devices[0].params)
        return State(jnp.zeros((), jnp.int32), devices, zeros, mixer.init((devices[0].params, zeros), 1))

    def correct(key: jax.Array, gradient: Any, params: Any, correction: Any) -> Any:
        return jax.tree.map(jnp.add, gradient, correction)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys, c = round_keys(key), state.correction
        (devices,), phase = population.train(
            keys.train, state.round, state.devices, problem, correct=correct, corrections=(c,)
        )
        (gradients,), network = phase.gradients, problem.network.at_round(keys.graph, state.round)
        x = state.devices[0].params, jax.tree.map(jnp.add, gradients, c)
        (mixed, y), mixer_state, sent = mixer.mix(keys.mix, x, state.mixer, network)
        params = jax.tree.map(lambda mixed, new, old: mixed + new - old, mixed, devices.params, x[0])
        devices, c = devices._replace(params=params), jax.tree.map(jnp.subtract, y, gradients)
        state = State(state.round + 1, (devices,), c, mixer_state)
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        return mixer.message_bytes((population.parameters,) * 2, 1)

    def check(problem: Problem) -> None:
        population.check(problem)
        check_mixing(mixer, problem.network, lossless="diging")

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


ALGORITHMS.add(AlgorithmEntry("diging", diging, uses=(*TRAINING, *MIXING), mixes="parameters"))
