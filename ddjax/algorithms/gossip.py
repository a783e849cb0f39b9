"""Gossip learning: models travel over the network, and the devices merge and train them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Phase, Population, round_keys, single_group
from ddjax.mixing.compression import random_subset
from ddjax.mixing.registry import ON_GRAPH
from ddjax.networks import check_network
from ddjax.stacked import expand, stacked_bytes, unflatten
from ddjax.theory.convergence import measure_averaging
from ddjax.types import Algorithm, Device, Info, Problem, PyTree, Traffic

# Largest age, chosen so that the sum of two ages fits in an int32.
_OLDEST = 2**30 - 1


class Messages(NamedTuple):
    """Messages that each device sent in the last `S` rounds; slot `t mod S` contains the messages of round `t`.

    Attributes:
      params: pytree with leaves `[N, S, …]`, parameters at the time of sending.
      age: `[N, S]` int32, age of these parameters at the time of sending.
      target: `[N, S]` int32, receiver of each message; `N` if there is no receiver.
      due: `[N, S]` int32, round in which the message arrives.
    """

    params: PyTree
    age: jax.Array
    target: jax.Array
    due: jax.Array


class State(NamedTuple):
    """State of gossip learning between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      age: `[N]` int32, number of examples on which a device's parameters have been trained, including repetitions.
      turn: `[N]` int32, first round in which each device pushes; it pushes again every `push_period` rounds. `()` if
        all devices push in every round.
      under_way: `Messages` of the last `message_delay + 1` rounds; `()` if there is no delay.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    age: jax.Array
    turn: Any = ()
    under_way: Any = ()


def gossip(
    population: Population,
    *,
    message_fraction: float = 1.0,
    schedule_by_age: bool = False,
    push_period: int = 1,
    message_delay: int = 0,
) -> Algorithm:
    """Gossip learning (Hegedűs, Danner, Jelasity, DAIS 2019, algorithm 1 with age-weighted merging).

    In a round (the paper's period), every device pushes its current parameters and their age to a uniformly drawn
    out-neighbour. A receiver handles its messages one at a time, in random order. For each message, it merges the
    received model `θ'` of age `t'` with its own, `θ ← (t θ + t' θ') / (t + t')`, `t ← max(t, t')`. It then takes its
    local steps, which increase the age. Ages count examples, as in the paper. A device that receives no message does
    not train in that round, and a device that receives two messages trains twice; if no message is lost, a round has
    `N` local phases in total. A lost message has no effect on its receiver.

    With a `push_period` above 1, a round is a part of the paper's period. Each device pushes in one round of every
    period; this round is drawn once per device. With a `message_delay`, a message arrives `d` rounds after it was sent,
    and its content does not change on the way. The delay `d` is drawn uniformly from `0 … message_delay` for each
    message, so messages may overtake one another. A message is counted, and may be lost, when it is sent.

    With a `message_fraction` below 1 (the paper's subsampled variant), a message contains only a random part of the
    parameters, drawn anew for each message, and the receiver merges only this part. A seed determines the part, so no
    indices are sent. The bias is drawn like the other parameters. A message also contains the age (4 bytes). All
    devices start from common parameters. Optimizer state is not sent.

    Learning rate schedules depend on the round. With `schedule_by_age`, they instead depend on the number of local
    phases in the model's age. If a local phase has one step, the schedule `inverse_time:1` then gives the step size
    `η/k` in the model's `k`-th step. This is the paper's choice for linear models.

    Args:
      population: devices of one architecture.
      message_fraction: fraction of the parameters that a message contains, in (0, 1].
      schedule_by_age: whether learning rate schedules depend on the age of the model instead of the round.
      push_period: number of rounds between two pushes of a device, at least 1.
      message_delay: longest delay of a message, in rounds. The state keeps the messages of `message_delay + 1` rounds.

    Raises:
      InputError: the devices have several architectures, there is only one device, `message_fraction` is outside (0,
        1], `push_period` is below 1, or `message_delay` is negative.

    Examples:
      >>> algorithm = ddjax.gossip(population, message_fraction=0.1)
      >>> algorithm.message_bytes(problem).peer  # 65 of 650 parameters, and the age
      {'parameters and age': 264}
    """
    single_group(population, "gossip")
    if population.size < 2:
        raise InputError("gossip needs at least two devices, because a device that receives no message never trains")
    if not 0 < message_fraction <= 1:
        raise InputError(f"message_fraction must lie in (0, 1], got {message_fraction:g}")
    check_number("push_period", push_period, 1)
    check_number("message_delay", message_delay)

    def sent_parameters() -> tuple[int, int]:
        total = population.parameter_counts()[0]
        return max(1, int(message_fraction * total + 0.5)), total

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        age = jnp.zeros(population.size, jnp.int32)
        turn: Any = ()
        under_way: Any = ()
        if push_period > 1:
            turn = jax.random.randint(jax.random.fold_in(key, population.size), age.shape, 0, push_period, jnp.int32)
        if message_delay:
            slots = message_delay + 1
            params = jax.tree.map(lambda leaf: jnp.zeros((len(leaf), slots, *leaf.shape[1:])), devices[0].params)
            none = jnp.full((population.size, slots), population.size, jnp.int32)
            under_way = Messages(params, jnp.zeros_like(none), none, jnp.full_like(none, -1))
        return State(jnp.zeros((), jnp.int32), devices, age, turn, under_way)

    def send(key: jax.Array, state: State, targets: jax.Array) -> tuple[Any, PyTree, jax.Array, jax.Array]:
        """Return the messages under way, and parameters, ages and receivers of the `A` messages that may arrive now."""
        params = state.devices[0].params
        if not message_delay:
            return (), params, state.age, targets
        delay = jax.random.randint(key, targets.shape, 0, message_delay + 1, jnp.int32)
        slot = state.round % (message_delay + 1)
        pushed = Messages(params, state.age, targets.astype(jnp.int32), state.round + delay)
        under_way = jax.tree.map(lambda kept, fresh: kept.at[:, slot].set(fresh), state.under_way, pushed)
        arrives = under_way.due == state.round
        receivers = jnp.where(arrives, under_way.target, population.size)
        shown = jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (under_way.params, under_way.age, receivers)
        )
        return under_way, *shown

    def merge(key: jax.Array, params: PyTree, age: jax.Array, received: PyTree, other: jax.Array, hears: jax.Array):
        """Merge at most one message into the model of every device."""
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
        if push_period > 1:
            pushed = jnp.where(state.round % push_period == state.turn, pushed, population.size)
        under_way, params, age, targets = send(jax.random.fold_in(keys.mix, 3), state, network.arriving(pushed))
        # Senders are sorted by receiver; the senders to one receiver are in random order.
        senders = jnp.lexsort((jax.random.uniform(ordering, targets.shape), targets))
        inbox = jnp.bincount(targets, length=population.size)
        first = jnp.cumsum(inbox) - inbox
        used = population.examples_per_round(problem)

        def one_message(carry):
            number, devices, current, totals = carry
            sender, hears = senders[jnp.minimum(first + number, len(senders) - 1)], number < inbox
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
            lambda carry: carry[0] < inbox.max(), one_message, (jnp.int32(0), state.devices[0], state.age, totals)
        )
        sent = Traffic({"parameters and age": network.sent.pushes(pushed)})
        info = Info(totals.loss, totals.distillation_loss, totals.steps, sent)
        return State(state.round + 1, (devices,), current, state.turn, under_way), info

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
        settings={
            "message_fraction": "message_fraction",
            "schedule_by_age": "schedule_by_age",
            "push_period": "push_period",
            "message_delay": "message_delay",
        },
        uses=(*TRAINING, *ON_GRAPH),
        measure=measure_averaging,
    )
)
