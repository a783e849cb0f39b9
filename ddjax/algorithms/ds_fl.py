"""DS-FL: devices learn from the sharpened mean of their soft decisions on public examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import check_number
from ddjax.learning import LEAST_TEMPERATURE, Population, round_keys
from ddjax.learning.lessons import approach, check_lessons, draw_reference, soft_cross_entropy
from ddjax.types import Algorithm, Device, Info, Problem, Traffic, working_dtype


class State(NamedTuple):
    """State of DS-FL between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
    """

    round: jax.Array
    devices: tuple[Device, ...]


def ds_fl(
    population: Population,
    *,
    reference_batch_size: int,
    distillation_epochs: int = 1,
    sharpening_temperature: float = 0.1,
) -> Algorithm:
    """DS-FL with entropy reduction aggregation (Itahara et al., IEEE TMC 2021, algorithm 1).

    In a round, devices take their local steps and send their soft decisions `s_n` on `b` public examples. The server
    sends back `z = softmax(s̄ / T)`, where `s̄` is the mean of the soft decisions. According to the paper, the mean
    over devices with heterogeneous data has too much entropy; a small `T` reduces the entropy of the targets. The
    devices then make passes over the public examples to minimize the cross-entropy `−Σ z log softmax(f_n)`, where `f_n`
    are a device's logits. Soft decisions are computed at temperature 1.

    Args:
      population: the devices; their architectures may differ.
      reference_batch_size: `b`, number of public examples drawn without replacement in each round.
      distillation_epochs: number of passes over these examples.
      sharpening_temperature: `T`, the temperature of the targets.

    Raises:
      InputError: `T` is below `learning.LEAST_TEMPERATURE`.

    Examples:
      >>> algorithm = ddjax.ds_fl(population, reference_batch_size=32)
      >>> algorithm.message_bytes(problem).down  # 32 soft decisions over 10 classes
      {'sharpened mean': 1280}
    """
    check_number("sharpening_temperature", sharpening_temperature, LEAST_TEMPERATURE)

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), population.init(key))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        reference = draw_reference(keys.reference, problem, reference_batch_size)
        devices, phase = population.train(keys.train, state.round, state.devices, problem)
        s = jax.nn.softmax(population.outputs(devices, reference))
        targets = jnp.broadcast_to(jax.nn.softmax(s.mean(0) / sharpening_temperature), s.shape)
        devices, distance = approach(
            population,
            keys.mix,
            state.round,
            devices,
            problem,
            reference,
            targets,
            soft_cross_entropy,
            distillation_epochs,
        )
        each = jnp.ones(population.size, jnp.int32)
        sent = Traffic(up={"soft decisions": each}, down={"sharpened mean": each})
        return State(state.round + 1, devices), Info(phase.loss, distance * phase.steps, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        size = reference_batch_size * population.outputs_count(problem) * working_dtype().itemsize
        return Traffic(up={"soft decisions": size}, down={"sharpened mean": size})

    def check(problem: Problem) -> None:
        population.check(problem)
        check_lessons(problem, "ds_fl", reference_batch_size)

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


ALGORITHMS.add(
    AlgorithmEntry(
        "ds_fl",
        ds_fl,
        settings={
            "reference_batch_size": "reference_batch_size",
            "distillation_epochs": "distillation_epochs",
            "sharpening_temperature": "sharpening_temperature",
        },
        uses=TRAINING,
        contents={
            "soft decisions": "{batch} {decisions}",
            "sharpened mean": "the sharpened mean of {batch} {decisions}",
        },
    )
)
