"""KT-pFL: a server learns how much each device should learn from the soft decisions of every device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import check_number
from ddjax.learning import Population, round_keys
from ddjax.learning.lessons import approach, check_lessons, draw_reference, soft_cross_entropy
from ddjax.types import Algorithm, Device, Info, Problem, Traffic, working_dtype


class State(NamedTuple):
    """State of KT-pFL between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      coefficients: `[N, N]` `c[n, m]`, the weight with which device `n` learns from device `m`; initially `1 / N`.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    coefficients: jax.Array


def kt_pfl(
    population: Population,
    *,
    reference_batch_size: int,
    distillation_epochs: int = 1,
    knowledge_step_size: float = 0.1,
    knowledge_penalty: float = 0.5,
) -> Algorithm:
    """KT-pFL, parameterized knowledge transfer (Zhang et al., NeurIPS 2021, algorithm 1).

    In a round, devices take their local steps and send their soft decisions `s_n` on `b` public examples. The server
    then takes one gradient step on its knowledge coefficients. For each device, the objective is
    `mean_b ‖s_n − Σ_m c[n, m] s_m‖² + ρ Σ_m (c[n, m] − 1 / N)²`. The server sets negative coefficients to 0 and divides
    the coefficients of each device by their sum. It sends device `n` the mixture `z_n = Σ_m c[n, m] s_m`. The devices
    make passes over the public examples to minimize the cross-entropy `−Σ z_n log s_n`. Soft decisions are
    computed at temperature 1.

    Args:
      population: the devices; their architectures may differ.
      reference_batch_size: `b`, number of public examples drawn without replacement in each round.
      distillation_epochs: number of passes over these examples.
      knowledge_step_size: step size of the server's gradient step; with 0, the mixture is the mean.
      knowledge_penalty: `ρ ≥ 0`; a larger value keeps the coefficients nearer to `1 / N`.

    Raises:
      InputError: the step size or the penalty is negative.

    Examples:
      >>> algorithm = ddjax.kt_pfl(population, reference_batch_size=32)
      >>> algorithm.message_bytes(problem).down  # 32 soft decisions over 10 classes
      {'mixture': 1280}
    """
    check_number("knowledge_step_size", knowledge_step_size)
    check_number("knowledge_penalty", knowledge_penalty)

    def init(key: jax.Array, problem: Problem) -> State:
        coefficients = jnp.full((population.size, population.size), 1 / population.size)
        return State(jnp.zeros((), jnp.int32), population.init(key), coefficients)

    def mix(coefficients: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.einsum("nm,mbk->nbk", coefficients, s, precision=jax.lax.Precision.HIGHEST)

    def unlike(coefficients: jax.Array, s: jax.Array) -> jax.Array:
        distances = jnp.sum((s - mix(coefficients, s)) ** 2, axis=-1).mean(1)
        return distances.sum() + knowledge_penalty * jnp.sum((coefficients - 1 / population.size) ** 2)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        reference = draw_reference(keys.reference, problem, reference_batch_size)
        devices, phase = population.train(keys.train, state.round, state.devices, problem)
        s = jax.nn.softmax(population.outputs(devices, reference))
        step = knowledge_step_size * jax.grad(unlike)(state.coefficients, s)
        coefficients = jnp.maximum(state.coefficients - step, 0)
        sums = coefficients.sum(1, keepdims=True)
        coefficients = jnp.where(sums > 0, coefficients / jnp.where(sums > 0, sums, 1), 1 / population.size)
        devices, distance = approach(
            population,
            keys.mix,
            state.round,
            devices,
            problem,
            reference,
            mix(coefficients, s),
            soft_cross_entropy,
            distillation_epochs,
        )
        each = jnp.ones(population.size, jnp.int32)
        sent = Traffic(up={"soft decisions": each}, down={"mixture": each})
        info = Info(phase.loss, distance * phase.steps, phase.steps, sent)
        return State(state.round + 1, devices, coefficients), info

    def message_bytes(problem: Problem) -> Traffic:
        size = reference_batch_size * population.outputs_count(problem) * working_dtype().itemsize
        return Traffic(up={"soft decisions": size}, down={"mixture": size})

    def check(problem: Problem) -> None:
        population.check(problem)
        check_lessons(problem, "kt_pfl", reference_batch_size)

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


_OWN = ("reference_batch_size", "distillation_epochs", "knowledge_step_size", "knowledge_penalty")
ALGORITHMS.add(
    AlgorithmEntry(
        "kt_pfl",
        kt_pfl,
        settings={name: name for name in _OWN},
        uses=TRAINING,
        contents={
            "soft decisions": "{batch} {decisions}",
            "mixture": "{batch} {decisions}, mixed with weights for this device",
        },
    )
)
