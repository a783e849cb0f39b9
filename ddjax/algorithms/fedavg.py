"""Federated averaging: a server averages the parameters of the devices it draws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.learning import Population, draw, round_keys, single_group
from ddjax.stacked import stacked_bytes
from ddjax.types import Algorithm, Info, Problem, PyTree, Traffic


class State(NamedTuple):
    """What federated averaging carries between rounds.

    Attributes:
      round: `[]` rounds done.
      params: the server's parameters, unstacked.
    """

    round: jax.Array
    params: PyTree


def fedavg(population: Population, *, fraction: float = 1.0) -> Algorithm:
    """Federated averaging (McMahan et al., AISTATS 2017, algorithm 1).

    Each round the server draws `m = max(C · N, 1)` devices (rounded down) and sends them its parameters; each takes its
    local epochs (`E`, `population.local_epochs`) or steps from there, with a fresh optimizer; the server averages what
    comes back, weighted by the devices' example counts `n_k / Σ n_k` over those drawn (the form of the paper's later
    versions). A message is the parameters, down and up. Every device predicts with the server's parameters.

    Args:
      population: devices of one architecture; with `local_epochs=1` and `batch_size=0` it is FedSGD.
      fraction: `C` in (0, 1], the part of the devices that takes part in a round.

    Raises:
      InputError: several architectures, or `C` outside (0, 1].
    """
    group = single_group(population, "fedavg")
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction C of devices in a round must lie in (0, 1], got {fraction:g}")
    # A hair more, since 0.29 × 100 falls short of 29 in floating point.
    taking = max(int(fraction * population.size + 1e-9), 1)

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), group.learner.init(key).params)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        chosen = draw(keys.mix, population.size, taking)
        clients = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (taking, *leaf.shape)), group.learner.restart(state.params)
        )
        clients, phase = population.train_group(group, keys.train, state.round, clients, problem, chosen)
        counts = problem.private_counts[chosen].astype(float)
        params = jax.tree.map(lambda leaf: jnp.tensordot(counts / counts.sum(), leaf, 1), clients.params)

        def of_all(values: jax.Array) -> jax.Array:
            return jnp.zeros(population.size, values.dtype).at[chosen].set(values, unique_indices=True)

        each = of_all(jnp.ones(taking, jnp.int32))
        info = Info(
            of_all(phase.loss),
            of_all(phase.distillation_loss),
            of_all(phase.steps),
            Traffic(up={"parameters": each}, down={"parameters": each}),
        )
        return State(state.round + 1, params), info

    def predict(state: State, x: jax.Array) -> jax.Array:
        s = group.learner.predict(group.learner.restart(state.params), x)
        return jnp.broadcast_to(s, (population.size, *s.shape))

    def message_bytes(problem: Problem) -> Traffic:
        size = stacked_bytes(population.parameters)
        return Traffic(up={"parameters": size}, down={"parameters": size})

    return Algorithm(init, round, predict, message_bytes, population.check)


ALGORITHMS.add(AlgorithmEntry("fedavg", fedavg, settings={"fraction": "client_fraction"}, uses=TRAINING))
