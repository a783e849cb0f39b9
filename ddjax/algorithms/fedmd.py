"""FedMD: devices learn alternately from the mean of their logits on public examples and from their own data."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Population, round_keys
from ddjax.learning.lessons import approach, check_lessons, draw_reference
from ddjax.types import Algorithm, Device, Info, Problem, Traffic, working_dtype


class State(NamedTuple):
    """State of FedMD between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
    """

    round: jax.Array
    devices: tuple[Device, ...]


def fedmd(
    population: Population,
    *,
    reference_batch_size: int,
    distillation_epochs: int = 1,
    pretraining_steps: int = 0,
    warmup_steps: int = 0,
) -> Algorithm:
    """FedMD (Li and Wang 2019, algorithm 1), with optional pretraining.

    In a round, `b` public examples are drawn. Every device sends its logits `f_n` on these examples, and the server
    sends back the mean `f̄`. The devices first *digest* the mean: they make passes over these examples to minimize the
    mean absolute error `|f_n − f̄|`. Then they *revisit* their own data: they take their local steps. In regression,
    devices send their predictions instead of logits.

    Before the first exchange, devices can learn first from the labelled reference set and then from their own data.
    They take steps on minibatches drawn with replacement, at the learning rate of the first round. These steps and
    their losses count toward the first round. No messages are sent during these steps.

    Args:
      population: the devices; their architectures may differ.
      reference_batch_size: `b`, number of public examples drawn without replacement in each round.
      distillation_epochs: number of passes over these examples.
      pretraining_steps: number of steps on the reference set, whose labels are `Problem.reference_labels`.
      warmup_steps: number of steps on a device's own data after the pretraining steps.

    Raises:
      InputError: a number of steps is negative.

    Examples:
      >>> algorithm = ddjax.fedmd(population, reference_batch_size=32)
      >>> algorithm.message_bytes(problem).up  # 32 vectors of 10 logits
      {'logits': 1280}
    """
    check_number("pretraining_steps", pretraining_steps)
    check_number("warmup_steps", warmup_steps)
    stepping = dataclasses.replace(population, local_steps=1, local_epochs=0)

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), population.init(key))

    def steps_on(
        key: jax.Array, devices: tuple[Device, ...], problem: Problem, count: int
    ) -> tuple[tuple[Device, ...], jax.Array]:
        """Take `count` steps; return the devices, and for each device the sum `[N]` of its minibatch losses."""

        def step(devices: tuple[Device, ...], number: jax.Array):
            devices, phase = stepping.train(jax.random.fold_in(key, number), jnp.int32(0), devices, problem)
            return devices, phase.loss

        devices, losses = jax.lax.scan(step, devices, jnp.arange(count))
        return devices, losses.sum(0)

    def before_exchanges(
        key: jax.Array, devices: tuple[Device, ...], problem: Problem
    ) -> tuple[tuple[Device, ...], jax.Array, jax.Array]:
        """Pretrain and warm up; return the devices, the sum `[N]` of each device's losses, and the number of steps."""
        loss = jnp.zeros(population.size)
        public_key, private_key = jax.random.split(key)
        if pretraining_steps:
            devices, lost = steps_on(public_key, devices, public(problem), pretraining_steps)
            loss += lost
        if warmup_steps:
            devices, lost = steps_on(private_key, devices, problem, warmup_steps)
            loss += lost
        return devices, loss, jnp.int32(pretraining_steps + warmup_steps)

    def public(problem: Problem) -> Problem:
        """Make a problem in which every device's private data are the labelled reference set."""
        size = problem.reference.shape[0]
        return problem._replace(
            x=problem.reference,
            y=jnp.asarray(problem.reference_labels),
            private_indices=jnp.broadcast_to(jnp.arange(size), (population.size, size)),
            private_counts=jnp.full(population.size, size),
        )

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        devices, loss, taken = state.devices, jnp.zeros(population.size), jnp.int32(0)
        if pretraining_steps or warmup_steps:
            devices, loss, taken = jax.lax.cond(
                state.round == 0,
                before_exchanges,
                lambda key, devices, problem: (devices, loss, taken),
                jax.random.fold_in(keys.train, population.size),
                devices,
                problem,
            )
        reference = draw_reference(keys.reference, problem, reference_batch_size)
        scores = population.outputs(devices, reference)
        consensus = jnp.broadcast_to(scores.mean(0), scores.shape)
        devices, distance = approach(
            population,
            keys.mix,
            state.round,
            devices,
            problem,
            reference,
            consensus,
            mean_absolute_error,
            distillation_epochs,
        )
        devices, phase = population.train(keys.train, state.round, devices, problem)
        each = jnp.ones(population.size, jnp.int32)
        sent = Traffic(up={"logits": each}, down={"mean": each})
        steps = phase.steps + taken
        return State(state.round + 1, devices), Info(phase.loss + loss, distance * steps, steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        size = reference_batch_size * population.outputs_count(problem) * working_dtype().itemsize
        return Traffic(up={"logits": size}, down={"mean": size})

    def check(problem: Problem) -> None:
        population.check(problem)
        check_lessons(problem, "fedmd", reference_batch_size, classes=False)
        if pretraining_steps and problem.reference_labels is None:
            raise InputError(
                "pretraining_steps needs the labels of the reference set, but this reference set has no labels; leave "
                "out --pretraining_steps or --reference_dataset"
            )

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def mean_absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Compute the mean absolute error `mean_k |f_k − z_k|`."""
    return jnp.abs(outputs - targets).mean(-1)


ALGORITHMS.add(
    AlgorithmEntry(
        "fedmd",
        fedmd,
        settings={
            "reference_batch_size": "reference_batch_size",
            "distillation_epochs": "distillation_epochs",
            "pretraining_steps": "pretraining_steps",
            "warmup_steps": "warmup_steps",
        },
        uses=TRAINING,
        contents={
            "logits": "{logits} for {batch} reference examples",
            "mean": "the mean {logits} for {batch} reference examples",
        },
    )
)
