"""No communication: every device learns only from its own data."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.learning import Population, round_keys
from ddjax.theory.convergence import measure_separate
from ddjax.types import Algorithm, Device, Info, Problem, Traffic


class State(NamedTuple):
    """State of the devices between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
    """

    round: jax.Array
    devices: tuple[Device, ...]


def local(population: Population) -> Algorithm:
    """No communication: every device starts from its own initial parameters and learns only from its own data.

    Args:
      population: the devices; their architectures may differ.

    Examples:
      >>> algorithm = ddjax.local(population)
      >>> state = algorithm.init(jax.random.key(0), problem)
      >>> algorithm.predict(state, problem.x_test).shape  # [N, B, K]
      (8, 360, 10)
    """

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), population.init(key))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        devices, phase = population.train(round_keys(key).train, state.round, state.devices, problem)
        info = Info(phase.loss, phase.distillation_loss, phase.steps, Traffic())
        return State(state.round + 1, devices), info

    def predict(state: State, x: jax.Array) -> jax.Array:
        return population.predict(state.devices, x)

    return Algorithm(init, round, predict, lambda problem: Traffic(), population.check)


_ENTRY = AlgorithmEntry("local", local, uses=TRAINING, measure=measure_separate)
ALGORITHMS.add(_ENTRY)
ALGORITHMS.add(dataclasses.replace(_ENTRY, name="centralized", pooled=True))
