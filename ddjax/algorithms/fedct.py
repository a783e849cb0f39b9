"""Federated co-training: devices send hard labels of public examples and learn from the majority vote."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.learning import Population, round_keys
from ddjax.learning.lessons import check_lessons, train_beside
from ddjax.mixing.registry import OVER_LINKS
from ddjax.networks import NetworkRound, check_network
from ddjax.types import Algorithm, Device, Info, Problem, Traffic, working_dtype

# Number of examples that are labelled at a time. The soft decisions on all of a large public set would fill the memory.
_BLOCK = 1024


class State(NamedTuple):
    """State of co-training between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      labels: `[N, R]` int32, pseudo-labels of the public examples; they have no meaning before the first exchange.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    labels: jax.Array


# `(labels [N, b], network, classes) → [N, b]`, the pseudo-label of each example on each device.
Vote = Callable[[jax.Array, NetworkRound, int], jax.Array]


def fedct(population: Population) -> Algorithm:
    """Federated co-training, FedCT (Abourayya et al., AAAI 2025, algorithm 1), with a server.

    The local steps of a round use minibatches of the device's own examples `D_n`. After the first exchange, each
    minibatch also contains equally many examples from `P_n`, the pseudo-labelled public examples. After the local
    steps, every device sends a label for each of the `R` reference examples. The server sends back the majority label
    of each example, and these labels form the new `P_n`. The smallest label wins a tie. A round is the paper's
    communication period. A message contains `R` labels of one byte each, or of two bytes each if there are more than
    256 classes.

    Args:
      population: the devices; their architectures may differ.

    Examples:
      >>> algorithm = ddjax.fedct(population)
      >>> algorithm.message_bytes(problem).up  # 359 labels of one byte
      {'labels': 359}
    """

    def vote(labels: jax.Array, network: NetworkRound, classes: int) -> jax.Array:
        votes = jax.nn.one_hot(labels, classes, dtype=jnp.int32).sum(0)
        return jnp.broadcast_to(votes.argmax(-1), labels.shape)

    def sent(network: NetworkRound) -> Traffic:
        each = jnp.ones(population.size, jnp.int32)
        return Traffic(up={"labels": each}, down={"consensus": each})

    def message_bytes(problem: Problem) -> Traffic:
        size = _labels_bytes(population, problem)
        return Traffic(up={"labels": size}, down={"consensus": size})

    return _co_training("fedct", population, vote, sent, message_bytes)


def fedct_neighbors(population: Population) -> Algorithm:
    """FedCT without a server: each device counts its own vote and its neighbours' votes.

    Only the links of the mixing matrix are used; its weights have no effect.

    Args:
      population: the devices; their architectures may differ.

    Examples:
      >>> algorithm = ddjax.fedct_neighbors(population)
      >>> algorithm.message_bytes(problem).peer  # 359 labels of one byte
      {'labels': 359}
    """

    def vote(labels: jax.Array, network: NetworkRound, classes: int) -> jax.Array:
        heard = network.received.links().astype(working_dtype())
        alike = network.received.weighted(jnp.ones(population.size), heard)
        shares = alike.product_with(jax.nn.one_hot(labels, classes))
        # All weights of a device are 1 / (number of votes that it counts). Division by this weight turns shares into
        # numbers of votes, up to rounding errors.
        return jnp.round(shares / alike.own_weights[:, None, None]).argmax(-1)

    def sent(network: NetworkRound) -> Traffic:
        return Traffic({"labels": network.sent.links()})

    def message_bytes(problem: Problem) -> Traffic:
        return Traffic({"labels": _labels_bytes(population, problem)})

    algorithm = _co_training("fedct_neighbors", population, vote, sent, message_bytes)

    def check(problem: Problem) -> None:
        algorithm.check(problem)
        check_network(problem.network, "links")

    return algorithm._replace(check=check)


def _co_training(name: str, population: Population, vote: Vote, sent: Callable, message_bytes: Callable) -> Algorithm:
    def init(key: jax.Array, problem: Problem) -> State:
        labels = jnp.zeros((population.size, problem.reference.shape[0]), jnp.int32)
        return State(jnp.zeros((), jnp.int32), population.init(key), labels)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        network = problem.network.at_round(keys.graph, state.round)
        devices, phase = jax.lax.cond(
            state.round > 0,
            lambda: train_beside(population, keys.train, state.round, state.devices, problem, state.labels),
            lambda: population.train(keys.train, state.round, state.devices, problem),
        )

        def consensus(rows: jax.Array) -> jax.Array:
            s = population.predict(devices, problem.reference[rows])
            return vote(s.argmax(-1), network, s.shape[-1])

        size = problem.reference.shape[0]
        block = min(size, _BLOCK)
        rows = jnp.arange(math.ceil(size / block) * block).reshape(-1, block) % size
        found = jnp.moveaxis(jax.lax.map(consensus, rows), 0, 1).reshape(population.size, -1)[:, :size]
        state = State(state.round + 1, devices, found.astype(jnp.int32))
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent(network))

    def check(problem: Problem) -> None:
        population.check(problem)
        check_lessons(problem, name, joins=population)

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def _labels_bytes(population: Population, problem: Problem) -> int:
    """Return the size in bytes of a message, which contains one label for each reference example."""
    return problem.reference.shape[0] * (1 if population.outputs_count(problem) <= 256 else 2)


_CONTENTS = {"labels": "labels of {reference} reference examples", "consensus": "{reference} labels by majority vote"}
ALGORITHMS.add(AlgorithmEntry("fedct", fedct, uses=TRAINING, contents=_CONTENTS))
ALGORITHMS.add(AlgorithmEntry("fedct_neighbors", fedct_neighbors, uses=(*TRAINING, *OVER_LINKS), contents=_CONTENTS))
