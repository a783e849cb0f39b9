"""FedMD: devices approach the mean of their logits on public examples, and go back to their own data, in turns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.learning import Population, round_keys
from ddjax.learning.lessons import approach, check_lessons, draw_reference
from ddjax.types import Algorithm, Device, Info, Problem, Traffic, working_dtype


class State(NamedTuple):
    """What FedMD carries between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` for each group.
    """

    round: jax.Array
    devices: tuple[Device, ...]


def fedmd(population: Population, *, reference_batch_size: int, distillation_epochs: int = 1) -> Algorithm:
    """FedMD (Li and Wang 2019, algorithm 1), without its pretraining: reference examples have no labels.

    A round draws `b` public examples. Every device sends its logits `f_n` on them, and the server sends the mean back.
    The devices *digest*: passes over these examples to bring down the mean absolute error `|f_n − f̄|`. Then they
    *revisit*: their local steps, on their own data alone. Where numbers are predicted they are what is sent.

    Args:
      population: the devices; they may be of different architectures.
      reference_batch_size: `b`, drawn without replacement each round.
      distillation_epochs: passes over them.
    """

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), population.init(key))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        reference = draw_reference(keys.reference, problem, reference_batch_size)
        scores = population.outputs(state.devices, reference)
        consensus = jnp.broadcast_to(scores.mean(0), scores.shape)
        devices, distance = approach(
            population,
            keys.mix,
            state.round,
            state.devices,
            problem,
            reference,
            consensus,
            mean_absolute_error,
            distillation_epochs,
        )
        devices, phase = population.train(keys.train, state.round, devices, problem)
        each = jnp.ones(population.size, jnp.int32)
        sent = Traffic(up={"logits": each}, down={"mean": each})
        return State(state.round + 1, devices), Info(phase.loss, distance * phase.steps, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        size = reference_batch_size * population.outputs_count(problem) * working_dtype().itemsize
        return Traffic(up={"logits": size}, down={"mean": size})

    def check(problem: Problem) -> None:
        population.check(problem)
        check_lessons(problem, "fedmd", reference_batch_size, classes=False)

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def mean_absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """`mean_k |f_k − z_k|`."""
    return jnp.abs(outputs - targets).mean(-1)


ALGORITHMS.add(
    AlgorithmEntry(
        "fedmd",
        fedmd,
        settings={"reference_batch_size": "reference_batch_size", "distillation_epochs": "distillation_epochs"},
        uses=TRAINING,
    )
)
