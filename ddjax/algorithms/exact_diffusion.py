"""Exact diffusion, also known as D²: D-SGD with a correction that removes the bias from heterogeneous data."""

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
    """State of exact diffusion between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      adapted: `ψ_n`, the stacked parameters after the last local phase, before they were corrected and mixed.
      mixer: the mixer's state.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    adapted: PyTree
    mixer: MixerState


def exact_diffusion(population: Population, mixer: Mixer) -> Algorithm:
    """Exact diffusion (Yuan, Ying, Zhao, Sayed, IEEE Transactions on Signal Processing 2019): adapt, correct, combine.

    In a round, `ψ_n ← θ_n − η g_n`, `φ_n = ψ_n + θ_n − ψ_n^last`, and `θ_n ← Σ_m W̄[n, m] φ_m`, where
    `W̄ = (I + W) / 2`. Initially, `ψ_n^last` is `θ_n`. Together, the three steps are D² (Tang, Lian, Yan, Zhang, Liu,
    ICML 2018) with `W̄`: `θ_n ← Σ_m W̄[n, m] (2 θ_m − θ_m^last − η (g_m − g_m^last))`. The paper on D² uses `W` itself,
    so the eigenvalues of `W` must be above −1/3. A ring with an even number of devices and `metropolis_hastings`
    weights does not meet this condition, whereas `W̄` has no eigenvalue below 0. `W` must be symmetric and must not
    change. Otherwise, the recursion can grow without bound for any step size.

    With another optimizer or several local steps, `ψ_n` is the result of the local phase that starts at `θ_n`. The
    correction applies to the whole phase, not to each step. With several steps, the devices therefore stop at a point
    where their changes over a round, not their gradients, sum to zero. Optimizer state is not sent. All devices start
    from common parameters. A message contains the corrected parameters `φ_n`.

    The mixer must keep the mean and have no memory: `average` and `server` qualify. Compressed messages make the
    recursion grow, and so does a changing `W`.

    Args:
      population: devices of one architecture.
      mixer: operation that mixes the parameters with the matrix `W`.

    Raises:
      InputError: the devices have several architectures, or the mixer is unsuitable. `check` raises this error if the
        network changes, loses messages, or is not symmetric.

    Examples:
      >>> algorithm = ddjax.exact_diffusion(population, ddjax.weighted_average())
      >>> algorithm.message_bytes(problem).peer  # 650 parameters of 4 bytes
      {'value': 2600}
      >>> ddjax.exact_diffusion(population, ddjax.push_sum())
      Traceback (most recent call last):
      ddjax.errors.InputError: exact_diffusion needs a mixer that applies one matrix and keeps the mean, but ...
    """
    single_group(population, "exact_diffusion")
    if mixer.running or mixer.compressed or not mixer.keeps_mean:
        raise InputError(
            f"exact_diffusion needs a mixer that applies one matrix and keeps the mean, but {mixer.name} "
            f"{'with a compressor ' if mixer.compressed else ''}is not such a mixer; use average or "
            "server, without a compressor"
        )

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        params = devices[0].params
        adapted = jax.tree.map(jnp.copy, params)  # two buffers, because both are donated
        return State(jnp.zeros((), jnp.int32), devices, adapted, mixer.init(params, 1))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        (devices,), phase = population.train(keys.train, state.round, state.devices, problem)
        adapted, start = devices.params, state.devices[0].params
        corrected = jax.tree.map(lambda psi, theta, last: psi + theta - last, adapted, start, state.adapted)
        network = problem.network.at_round(keys.graph, state.round)
        mixed, mixer_state, sent = mixer.mix(keys.mix, corrected, state.mixer, network)
        params = jax.tree.map(lambda own, mixed: (own + mixed) / 2, corrected, mixed)
        state = State(state.round + 1, (devices._replace(params=params),), adapted, mixer_state)
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        return mixer.message_bytes(population.parameters, 1)

    def check(problem: Problem) -> None:
        population.check(problem)
        check_mixing(mixer, problem.network, lossless="exact_diffusion")
        if not mixer.uses_graph:
            return
        if problem.network.changes:
            raise InputError("exact_diffusion needs a fixed graph, but this graph changes; use gradient_tracking")
        (matrix,) = problem.network.sample_matrices()
        if abs(matrix - matrix.T).max() > 1e-6:
            raise InputError(
                "exact_diffusion needs a symmetric mixing matrix; use an undirected graph, or gradient_tracking"
            )

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


ALGORITHMS.add(
    AlgorithmEntry(
        "exact_diffusion",
        exact_diffusion,
        uses=(*TRAINING, *MIXING),
        mixes="parameters",
        contents={"value": "corrected parameters"},
        measure=measure_averaging,
    )
)
