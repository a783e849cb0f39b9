"""Quasi-global momentum: D-SGD whose momentum follows the path of the mixed parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddjax.algorithms.registry import ALGORITHMS, MIXING, TRAINING, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Population, round_keys, single_group
from ddjax.mixing import check_mixing
from ddjax.stacked import expand
from ddjax.theory.convergence import measure_averaging
from ddjax.types import Algorithm, Device, Info, Learner, Mixer, MixerState, Problem, PyTree, Traffic


class State(NamedTuple):
    """State of D-SGD with quasi-global momentum between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      momentum: `m̂_n`, the momentum of each device, stacked like the parameters.
      mixer: the mixer's state.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    momentum: PyTree
    mixer: MixerState


def quasi_global_momentum(
    population: Population, mixer: Mixer, *, learning_rate: optax.ScalarOrSchedule, momentum: float = 0.9
) -> Algorithm:
    """QG-DSGDm (Lin, Karimireddy, Stich, Jaggi, ICML 2021, algorithm 1): D-SGD with quasi-global momentum.

    Local steps follow `g_n + β m̂_n`, and then the parameters are mixed. The momentum follows the change of the
    parameters over the round, `m̂_n ← β m̂_n + (1 − β) (θ_n^before − θ_n^after) / (η τ)`, where `τ` is the number of
    local steps of the device (1 in the paper). The momentum is the same in all these steps; it is initially 0 and is
    not sent. As in the paper's experiments, both formulas use the same `β` (`μ = β` in the paper). All devices start
    from common parameters. A message contains the parameters. Any mixer works.

    Args:
      population: devices of one architecture, which take plain SGD steps.
      mixer: operation that replaces `Σ_m W[n, m] ·`.
      learning_rate: `η`, the learning rate of the devices' SGD steps: a positive number, or a schedule over rounds.
      momentum: `β` in [0, 1].

    Raises:
      InputError: the devices have several architectures, `η` is not positive, or `β` is outside [0, 1]. `check` raises
        this error if the devices do not take plain SGD steps with learning rate `η`.

    Examples:
      >>> algorithm = ddjax.quasi_global_momentum(population, ddjax.weighted_average(), learning_rate=0.1)
      >>> algorithm.message_bytes(problem).peer  # 650 parameters of 4 bytes; the momentum is not sent
      {'value': 2600}
    """
    group = single_group(population, "quasi_global_momentum")
    check_number("learning_rate", learning_rate, positive=True)
    check_number("momentum", momentum, maximum=1)

    def rate(round: jax.Array | int) -> jax.Array | float:
        return learning_rate(round) if callable(learning_rate) else learning_rate

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        zeros = jax.tree.map(jnp.zeros_like, devices[0].params)
        return State(jnp.zeros((), jnp.int32), devices, zeros, mixer.init(devices[0].params, 1))

    def correct(key: jax.Array, gradient: PyTree, params: PyTree, push: PyTree) -> PyTree:
        return jax.tree.map(jnp.add, gradient, push)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys, before = round_keys(key), state.devices[0].params
        push = jax.tree.map(lambda m: momentum * m, state.momentum)
        (devices,), phase = population.train(
            keys.train, state.round, state.devices, problem, correct=correct, corrections=(push,)
        )
        network = problem.network.at_round(keys.graph, state.round)
        after, mixer_state, sent = mixer.mix(keys.mix, devices.params, state.mixer, network)
        share = (1 - momentum) / (rate(state.round) * phase.steps)
        followed = jax.tree.map(lambda m, old, new: m + expand(share, old) * (old - new), push, before, after)
        state = State(state.round + 1, (devices._replace(params=after),), followed, mixer_state)
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        return mixer.message_bytes(population.parameters, 1)

    def check(problem: Problem) -> None:
        population.check(problem)
        check_mixing(mixer, problem.network)
        _check_steps(group.learner, float(rate(0)))

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def _check_steps(learner: Learner, rate: float) -> None:
    """Raise `InputError` if the first steps of a learner are not plain SGD with this learning rate."""
    shapes = jax.eval_shape(learner.init, jax.random.key(0)).params
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradient = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape).astype(leaf.dtype), zeros)
    first = learner.update(learner.restart(zeros), gradient)
    second = learner.update(first, zeros)  # an optimizer with momentum would move further
    for params in (first.params, second.params):
        for found, g in zip(jax.tree.leaves(params), jax.tree.leaves(gradient), strict=True):
            if not np.allclose(found, -rate * g, rtol=0, atol=1e-3 * rate):
                raise InputError(
                    "quasi_global_momentum adds its momentum to plain SGD, but these devices do not take plain SGD "
                    f"steps with learning rate {rate:g}; use the optimizer sgd"
                )


ALGORITHMS.add(
    AlgorithmEntry(
        "quasi_global_momentum",
        quasi_global_momentum,
        settings={"learning_rate": "learning_rate", "momentum": "momentum"},
        uses=(*TRAINING, *MIXING),
        mixes="parameters",
        contents={"value": "parameters"},
        measure=measure_averaging,
    )
)
