"""No communication: every device learns from its own data alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.learning.population import Population, round_keys
from ddjax.types import Algorithm, Device, Info, Problem, Traffic


class State(NamedTuple):
    """What the devices carry between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` a group.
    """

    round: jax.Array
    devices: tuple[Device, ...]


def local(population: Population) -> Algorithm:
    """No communication: every device learns from its own data alone, from its own start."""

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), population.init(key))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        devices, phase = population.train(round_keys(key).train, state.round, state.devices, problem)
        info = Info(phase.loss, phase.distillation_loss, phase.steps, Traffic())
        return State(state.round + 1, devices), info

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), lambda problem: Traffic())
