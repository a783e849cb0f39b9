"""Federated averaging: a server averages the parameters of the devices that it draws."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Group, Phase, Population, draw, round_keys, single_group
from ddjax.stacked import stacked_bytes
from ddjax.types import Algorithm, Info, Problem, PyTree, Traffic


class State(NamedTuple):
    """State of federated averaging between rounds.

    Attributes:
      round: `[]` number of rounds done.
      params: the server's parameters, unstacked.
    """

    round: jax.Array
    params: PyTree


def fedavg(population: Population, *, fraction: float = 1.0) -> Algorithm:
    """Federated averaging (McMahan et al., AISTATS 2017, algorithm 1).

    In each round, the server draws `m = max(⌊C · N⌋, 1)` devices and sends them its parameters. Each of these devices
    starts from the server's parameters with a fresh optimizer, and takes its local epochs (`E`,
    `population.local_epochs`) or local steps. The server averages the results with the weights `n_k / Σ n_k`, where
    `n_k` is the number of examples of a drawn device. (The paper's later versions use these weights.) A
    message in either direction contains the parameters. Every device predicts with the server's parameters.

    Args:
      population: devices of one architecture. With `local_epochs=1` and `batch_size=0`, the algorithm is FedSGD.
      fraction: `C` in (0, 1], the fraction of the devices that take part in a round.

    Raises:
      InputError: the devices have several architectures, or `C` is outside (0, 1].

    Examples:
      >>> algorithm = ddjax.fedavg(population, fraction=0.25)
      >>> algorithm.message_bytes(problem).up  # 650 parameters of 4 bytes
      {'parameters': 2600}
    """
    return _federated("fedavg", population, fraction)


def fedprox(population: Population, *, fraction: float = 1.0, proximal_weight: float) -> Algorithm:
    """FedProx (Li et al., MLSys 2020, algorithm 2): `fedavg` with a pull toward the server's parameters.

    A device's local steps minimize `F_n(θ) + μ/2 ‖θ − θ_server‖²`, where `F_n` is its private loss, so each gradient
    has the additional term `μ (θ − θ_server)`. As in the authors' code, the server draws devices uniformly and weights
    them by their example counts. The paper draws them in proportion to these counts and weights them equally. Unlike in
    the paper, no device is slow: each drawn device takes all its steps.

    Args:
      population: devices of one architecture.
      fraction: `C` in (0, 1], the fraction of the devices that take part in a round.
      proximal_weight: `μ ≥ 0`; with 0 the algorithm is `fedavg`.

    Raises:
      InputError: the devices have several architectures, `C` is outside (0, 1], or `μ` is negative.

    Examples:
      >>> algorithm = ddjax.fedprox(population, fraction=0.25, proximal_weight=0.1)
      >>> algorithm.message_bytes(problem).down  # 650 parameters of 4 bytes
      {'parameters': 2600}
    """
    check_number("proximal_weight", proximal_weight)
    return _federated("fedprox", population, fraction, proximal_weight)


def _toward_server(key: jax.Array, gradient: PyTree, params: PyTree, correction: tuple[PyTree, jax.Array]) -> PyTree:
    server, weight = correction
    return jax.tree.map(lambda g, p, s: g + weight * (p - s), gradient, params, server)


def _federated(name: str, population: Population, fraction: float, proximal_weight: float | None = None) -> Algorithm:
    group = single_group(population, name)
    taking = clients_per_round(population, fraction)

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), group.learner.init(key).params)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        chosen = draw(keys.mix, population.size, taking)
        clients = repeated(group.learner.restart(state.params), taking)
        correct, corrections = None, None
        if proximal_weight is not None:
            correct, corrections = _toward_server, (clients.params, jnp.full(taking, proximal_weight, float))
        clients, phase = population.train_group(
            group, keys.train, state.round, clients, problem, chosen, correct=correct, corrections=corrections
        )
        counts = problem.private_counts[chosen].astype(float)
        params = jax.tree.map(lambda leaf: jnp.tensordot(counts / counts.sum(), leaf, 1), clients.params)
        info = info_of_clients(phase, chosen, population.size, "parameters")
        return State(state.round + 1, params), info

    def message_bytes(problem: Problem) -> Traffic:
        size = stacked_bytes(population.parameters)
        return Traffic(up={"parameters": size}, down={"parameters": size})

    return Algorithm(init, round, predict_as_server(group, population.size), message_bytes, population.check)


def clients_per_round(population: Population, fraction: float) -> int:
    """Count the devices in a round, `max(⌊C · N⌋, 1)`; raise `InputError` if `C` is outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise InputError(f"client_fraction must lie in (0, 1], got {fraction:g}")
    # The small addition is needed because 0.29 × 100 is below 29 in floating point.
    return max(int(fraction * population.size + 1e-9), 1)


def repeated(tree: PyTree, count: int) -> PyTree:
    """Stack `count` copies of a pytree."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), tree)


def info_of_clients(phase: Phase, chosen: jax.Array, size: int, message: str) -> Info:
    """Describe a round in which `chosen` `[m]` of `size` devices train and exchange messages with the server."""

    def of_all(values: jax.Array) -> jax.Array:
        return jnp.zeros(size, values.dtype).at[chosen].set(values, unique_indices=True)

    each = of_all(jnp.ones(len(chosen), jnp.int32))
    messages = Traffic(up={message: each}, down={message: each})
    return Info(of_all(phase.loss), of_all(phase.distillation_loss), of_all(phase.steps), messages)


def predict_as_server(group: Group, size: int) -> Callable:
    """Make `Algorithm.predict` for `size` devices that all have the server's parameters, `state.params`."""

    def predict(state, x: jax.Array) -> jax.Array:
        s = group.learner.predict(group.learner.restart(state.params), x)
        return jnp.broadcast_to(s, (size, *s.shape))

    return predict


_CLIENTS = {"fraction": "client_fraction"}
ALGORITHMS.add(AlgorithmEntry("fedavg", fedavg, settings=_CLIENTS, uses=TRAINING))
ALGORITHMS.add(
    AlgorithmEntry("fedprox", fedprox, settings=_CLIENTS | {"proximal_weight": "proximal_weight"}, uses=TRAINING)
)
