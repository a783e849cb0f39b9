"""Decentralized SGD: devices of one architecture mix their parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, MIXING, TRAINING, AlgorithmEntry
from ddjax.learning import Population, round_keys, single_group
from ddjax.mixing import check_mixing
from ddjax.theory.convergence import measure_averaging
from ddjax.types import Algorithm, Device, Info, Mixer, MixerState, Problem, Traffic


class State(NamedTuple):
    """State of D-SGD between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      mixer: the mixer's state.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    mixer: MixerState


def dsgd(population: Population, mixer: Mixer) -> Algorithm:
    """Decentralized SGD (Lian et al., NeurIPS 2017, algorithm 1): local steps, then `θ_n ← Σ_m W[n, m] θ_m`.

    This is the order adapt-then-combine: devices mix the parameters after this round's local steps. Lian et al. use
    combine-then-adapt, `θ_n ← Σ_m W[n, m] θ_m − η g_n`, with the gradient at the unmixed `θ_n`. They note that both
    orders work. All devices start from common parameters, and optimizer state is not sent. A message contains the
    parameters. Which published algorithm results depends on the mixer and the local phase:

    - `weighted_average()` gives D-SGD.
    - `choco(compressor, γ)` gives CHOCO-SGD (Koloskova, Stich, Jaggi, ICML 2019, algorithm 2).
    - `push_sum()` gives stochastic gradient push (Assran et al., ICML 2019, algorithm 1, synchronous). Every device
      trains and predicts with its de-biased parameters.
    - One local epoch per round gives local D-SGD (`--algorithm=local_dsgd`).

    Args:
      population: devices of one architecture.
      mixer: operation that mixes the parameters.

    Raises:
      InputError: the devices have several architectures.

    Examples:
      >>> algorithm = ddjax.dsgd(population, ddjax.weighted_average())
      >>> algorithm.message_bytes(problem).peer  # 650 parameters of 4 bytes
      {'value': 2600}
    """
    single_group(population, "dsgd")

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        return State(jnp.zeros((), jnp.int32), devices, mixer.init(devices[0].params, 1))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        (devices,), phase = population.train(keys.train, state.round, state.devices, problem)
        network = problem.network.at_round(keys.graph, state.round)
        params, mixer_state, sent = mixer.mix(keys.mix, devices.params, state.mixer, network)
        state = State(state.round + 1, (devices._replace(params=params),), mixer_state)
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        return mixer.message_bytes(population.parameters, 1)

    def check(problem: Problem) -> None:
        population.check(problem)
        check_mixing(mixer, problem.network)

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


_ENTRY = AlgorithmEntry(
    "dsgd",
    dsgd,
    uses=(*TRAINING, *MIXING),
    mixes="parameters",
    contents={"value": "parameters"},
    measure=measure_averaging,
)
ALGORITHMS.add(_ENTRY)
ALGORITHMS.add(_ENTRY.named("local_dsgd", local_epochs=1))
ALGORITHMS.add(_ENTRY.named("choco", mixing="choco"))
ALGORITHMS.add(_ENTRY.named("push_sum", mixing="push_sum"))
