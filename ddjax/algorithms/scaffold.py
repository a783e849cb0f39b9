"""SCAFFOLD: federated averaging whose local steps are corrected by control variates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.fedavg import clients_per_round, info_of_clients, predict_as_server, repeated
from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import check_number
from ddjax.learning import Population, draw, round_keys, single_group
from ddjax.stacked import stacked_bytes
from ddjax.types import Algorithm, Info, Problem, PyTree, Traffic


class State(NamedTuple):
    """State of SCAFFOLD between rounds.

    Attributes:
      round: `[]` number of rounds done.
      params: `x`, the server's parameters, unstacked.
      control: `c`, the server's control variate, unstacked.
      controls: `c_n`, the control variates of the devices, stacked.
    """

    round: jax.Array
    params: PyTree
    control: PyTree
    controls: PyTree


def _controlled(key: jax.Array, gradient: PyTree, params: PyTree, drift: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, gradient, drift)


def scaffold(population: Population, *, fraction: float = 1.0, server_step_size: float = 1.0) -> Algorithm:
    """SCAFFOLD (Karimireddy et al., ICML 2020, algorithm 1, option II of the control variates).

    In each round, the server draws `m = max(⌊C · N⌋, 1)` devices and sends them `x` and `c`. A device starts at
    `y_n = x` with a fresh optimizer and takes its `K` local steps along `g_n(y_n) − c_n + c`. Then it sets
    `c_n⁺ ← c_n − c + (x − y_n) / (K η)` and sends `y_n − x` and `c_n⁺ − c_n`. The server adds `η_g` times the mean of
    `y_n − x` to `x`, and `m/N` times the mean of `c_n⁺ − c_n` to `c`. Devices have equal weights. Control variates are
    initially zero. A message in either direction contains parameters and a control variate. Every device predicts with
    `x`.

    With SGD at a constant step size, `c_n⁺` is the mean of the local gradients `g_n` over the steps. ddjax always
    computes `c_n⁺` as this mean, which is also defined for other optimizers and schedules.

    Args:
      population: devices of one architecture.
      fraction: `C` in (0, 1], the fraction of the devices that take part in a round.
      server_step_size: `η_g ≥ 0`.

    Raises:
      InputError: the devices have several architectures, `C` is outside (0, 1], or `η_g` is negative.

    Examples:
      >>> algorithm = ddjax.scaffold(population, fraction=0.25)
      >>> algorithm.message_bytes(problem).up  # twice 650 numbers of 4 bytes
      {'parameters and control variate': 5200}
    """
    group = single_group(population, "scaffold")
    check_number("server_step_size", server_step_size)
    taking = clients_per_round(population, fraction)

    def init(key: jax.Array, problem: Problem) -> State:
        params = group.learner.init(key).params
        nothing = jax.tree.map(jnp.zeros_like, params)
        return State(jnp.zeros((), jnp.int32), params, nothing, repeated(nothing, population.size))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        chosen = draw(keys.mix, population.size, taking)
        clients = repeated(group.learner.restart(state.params), taking)
        before = jax.tree.map(lambda leaf: leaf[chosen], state.controls)
        drift = jax.tree.map(jnp.subtract, before, state.control)  # c_n − c
        clients, phase = population.train_group(
            group, keys.train, state.round, clients, problem, chosen, correct=_controlled, corrections=drift
        )
        after = phase.gradients
        params = jax.tree.map(lambda x, y: x + server_step_size * (y - x).mean(0), state.params, clients.params)
        control = jax.tree.map(
            lambda c, new, old: c + (new - old).sum(0) / population.size, state.control, after, before
        )
        controls = jax.tree.map(lambda leaf, new: leaf.at[chosen].set(new, unique_indices=True), state.controls, after)
        info = info_of_clients(phase, chosen, population.size, "parameters and control variate")
        return State(state.round + 1, params, control, controls), info

    def message_bytes(problem: Problem) -> Traffic:
        size = {"parameters and control variate": 2 * stacked_bytes(population.parameters)}
        return Traffic(up=size, down=size)

    return Algorithm(init, round, predict_as_server(group, population.size), message_bytes, population.check)


ALGORITHMS.add(
    AlgorithmEntry(
        "scaffold",
        scaffold,
        settings={"fraction": "client_fraction", "server_step_size": "server_step_size"},
        uses=TRAINING,
    )
)
