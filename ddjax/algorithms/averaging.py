"""Systems in which the devices share one architecture and, if anything, parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddjax.learners import Learners, round_keys, single_group
from ddjax.types import Algorithm, Device, Info, Mixer, Problem


class State(NamedTuple):
    """What these systems carry between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` a group.
      mixer: the mixer's state.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    mixer: Any


def dsgd(learners: Learners, mixer: Mixer) -> Algorithm:
    """Decentralized SGD (Lian et al., NeurIPS 2017): local steps, then `θ_n ← Σ_m W[n, m] θ_m`.

    Adapt-then-combine: what is mixed has already taken this round's steps. All devices start from common parameters;
    optimizer state stays at home. One message is the parameters.

    Raises:
      InputError: devices of several architectures.
    """
    single_group(learners, "dsgd")

    def init(key: jax.Array, problem: Problem) -> State:
        devices = learners.init(key, common=True)
        return State(jnp.zeros((), jnp.int32), devices, mixer.init(devices[0].params))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        (devices,), info = learners.train(keys.train, state.devices, problem)
        params, mixer_state, sent = mixer.mix(keys.mix, devices.params, state.mixer, problem.mixing_matrix)
        state = State(state.round + 1, (devices._replace(params=params),), mixer_state)
        return state, Info(info.loss, info.distillation_loss, sent)

    def message_bytes(problem: Problem) -> int:
        return mixer.message_bytes(jax.eval_shape(learners.init, jax.random.key(0))[0].params)

    return Algorithm(init, round, lambda state, x: learners.predict(state.devices, x), message_bytes)


def local(learners: Learners) -> Algorithm:
    """No communication: every device learns from its own data alone, from its own start."""

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), learners.init(key), ())

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        devices, info = learners.train(round_keys(key).train, state.devices, problem)
        none = jnp.zeros(learners.size, jnp.int32)
        return State(state.round + 1, devices, ()), Info(info.loss, info.distillation_loss, none)

    return Algorithm(init, round, lambda state, x: learners.predict(state.devices, x), lambda problem: 0)


def centralized(problem: Problem) -> Problem:
    """The same data as one device that holds all of it; `local` on this problem is centralized training.

    Give its one learner `N` times the batch size, so that a round sees as many examples as a round of the others.
    """
    held = jnp.arange(problem.private.shape[1]) < problem.sizes[:, None]
    rows = problem.private[held]
    return problem._replace(
        private=rows[None], sizes=jnp.array([rows.size], jnp.int32), mixing_matrix=jnp.ones((1, 1), jnp.float32)
    )
