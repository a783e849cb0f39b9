"""Gossip learning: models that wander over the network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.learning import Phase, Population, round_keys, single_group
from ddjax.mixing.compression import random_subset
from ddjax.mixing.registry import ON_GRAPH
from ddjax.networks import check_network
from ddjax.stacked import expand, stacked_bytes, unflatten
from ddjax.theory.convergence import measure_averaging
from ddjax.types import Algorithm, Device, Info, Problem, PyTree, Traffic

# The sum of two ages is an int32.
_OLDEST = 2**30 - 1


class State(NamedTuple):
    """What gossip learning carries between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` for each group.
      age: `[N]` int32, examples behind a device's parameters, counted as often as they were used.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    age: jax.Array


def gossip(population: Population, *, message_fraction: float = 1.0, schedule_by_age: bool = False) -> Algorithm:
    """Gossip learning (Hegedűs, Danner, Jelasity, DAIS 2019, algorithm 1 with age-weighted merging).

    In a round (the paper's period) every device pushes parameters and age, as they are then, to one out-neighbour drawn
    uniformly. A receiver takes the messages one at a time, in random order. It merges, `θ ← (t θ + t' θ') / (t + t')`,
    `t ← max(t, t')`, and then takes its local steps, by which the age grows. Ages count examples, as in the paper. So a
    device that hears of nobody does not train in that round, and one that hears of two trains twice; a round has `N`
    updates on the whole. A message that is lost changes nothing. None is late, and all devices push at the same time.

    The subsampled variant sends a random part of the parameters, drawn anew for each message, and merges only that
    part; which one follows from a seed. The bias is drawn like other parameters. A message is that part and the age (4
    bytes). All devices start from common parameters; optimizer state stays at home.

    Learning rates fall over rounds, or by `schedule_by_age` over the local phases that a model's age comes to. With the
    schedule `inverse_time:1` a step is then `η/t`, the paper's for linear models: `t` counts minibatches, this one
    included (examples, if gradients are summed over a minibatch).

    Args:
      population: devices of one architecture.
      message_fraction: part of the parameters in a message, in (0, 1].
      schedule_by_age: whether learning rates fall over the age of a model.

    Raises:
      InputError: several architectures, a single device, or a fraction outside (0, 1].
    """
    single_group(population, "gossip")
    if population.size < 2:
        raise InputError("gossip needs at least two devices: one that hears of nobody never trains")
    if not 0 < message_fraction <= 1:
        raise InputError(f"the fraction of the parameters in a message must lie in (0, 1], got {message_fraction:g}")

    def sent_parameters() -> tuple[int, int]:
        total = population.parameter_counts()[0]
        return max(1, int(message_fraction * total + 0.5)), total

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        return State(jnp.zeros((), jnp.int32), devices, jnp.zeros(population.size, jnp.int32))

    def merge(key: jax.Array, params: PyTree, age: jax.Array, received: PyTree, other: jax.Array, hears: jax.Array):
        """Every device with at most one message."""
        weight = jnp.where(age + other > 0, other / jnp.maximum(age + other, 1), 0.5)
        weight = jnp.where(hears, weight, 0)
        count, total = sent_parameters()
        if count == total:
            masks = jax.tree.map(lambda leaf: jnp.ones((), bool), params)
        else:
            keys = jax.random.split(key, population.size)
            flat = jax.vmap(lambda key: random_subset(key, (total,), count))(keys)
            masks = unflatten(flat, params)
        params = jax.tree.map(lambda a, b, mask: a + expand(weight, a) * mask * (b - a), params, received, masks)
        return params, jnp.where(hears, jnp.maximum(age, other), age)

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        pushing, ordering, sampling = jax.random.split(keys.mix, 3)
        network = problem.network.at_round(keys.graph, state.round)
        pushed = network.sent.push_targets(pushing)
        targets = network.arriving(pushed)
        # Senders by whom they push to, those of one receiver in random order.
        senders = jnp.lexsort((jax.random.uniform(ordering, targets.shape), targets))
        inbox = jnp.bincount(targets, length=population.size)
        first = jnp.cumsum(inbox) - inbox
        params, age = state.devices[0].params, state.age  # as they were when pushed
        used = population.examples_per_round(problem)

        def one_message(carry):
            number, devices, current, totals = carry
            sender, hears = senders[jnp.minimum(first + number, population.size - 1)], number < inbox
            received = jax.tree.map(lambda leaf: leaf[sender], params)
            merged, current = merge(
                jax.random.fold_in(sampling, number), devices.params, current, received, age[sender], hears
            )
            training = jax.random.fold_in(keys.train, number)
            clock = current // used if schedule_by_age else state.round
            (devices,), phase = population.train(
                training, clock, (devices._replace(params=merged),), problem, active=hears
            )
            older = jnp.where(hears, jnp.minimum(current + used, _OLDEST), current)
            return number + 1, devices, older, jax.tree.map(jnp.add, totals, phase)

        nothing = jnp.zeros(population.size)
        totals = Phase(nothing, nothing, jnp.zeros(population.size, jnp.int32), None)
        _, devices, current, totals = jax.lax.while_loop(
            lambda carry: carry[0] < inbox.max(), one_message, (jnp.int32(0), state.devices[0], age, totals)
        )
        sent = Traffic({"parameters and age": network.sent.pushes(pushed)})
        info = Info(totals.loss, totals.distillation_loss, totals.steps, sent)
        return State(state.round + 1, (devices,), current), info

    def message_bytes(problem: Problem) -> Traffic:
        count, total = sent_parameters()
        return Traffic({"parameters and age": stacked_bytes(population.parameters) // total * count + 4})

    def check(problem: Problem) -> None:
        population.check(problem)
        check_network(problem.network, "links")

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


ALGORITHMS.add(
    AlgorithmEntry(
        "gossip",
        gossip,
        settings={"message_fraction": "message_fraction", "schedule_by_age": "schedule_by_age"},
        uses=(*TRAINING, *ON_GRAPH),
        measure=measure_averaging,
    )
)
