"""Def-KT: in each pair of neighbours, one device trains the models of both on its own data, without a reference set."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.learning import CLASSIFICATION, Population, infer_task, losses, round_keys, single_group
from ddjax.learning.draws import minibatches
from ddjax.learning.lessons import check_unadjusted, soft_cross_entropy
from ddjax.learning.population import at_count
from ddjax.mixing.registry import OVER_LINKS
from ddjax.networks import NetworkRound, check_network
from ddjax.stacked import select, stacked_bytes
from ddjax.types import Algorithm, Device, Info, Learner, Problem, Traffic


class State(NamedTuple):
    """State of Def-KT between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
    """

    round: jax.Array
    devices: tuple[Device, ...]


def def_kt(population: Population) -> Algorithm:
    """Def-KT, mutual knowledge transfer (Li, Li, Varshney, IEEE Internet of Things Journal 2021).

    In each round, disjoint pairs of neighbours are drawn, and the other devices rest. The sender of a pair takes its
    local steps and sends its model `θ`. The receiver, whose own model is `φ`, takes the same number of steps on its own
    data. In these steps, both models learn from the labels and from each other: `θ` follows the gradient of
    `−log p_θ(y) + KL(p_φ ‖ p_θ)`, and `φ` follows the gradient of the same loss with `θ` and `φ` exchanged. Finally,
    the receiver keeps the trained `θ` and drops its own model `φ`; the sender keeps `θ` as it was sent. A message
    contains the parameters. Optimizer state is not sent; a received model starts with a fresh optimizer.

    In the paper, any two devices may form a pair; the topology `complete` allows this.

    Args:
      population: devices of one architecture.

    Raises:
      InputError: the devices have several architectures.

    Examples:
      >>> algorithm = ddjax.def_kt(population)
      >>> algorithm.message_bytes(problem).peer  # 650 parameters of 4 bytes
      {'parameters': 2600}
    """
    group = single_group(population, "def_kt")

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), population.init(key))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        network = problem.network.at_round(keys.graph, state.round)
        pushed = draw_pairs(keys.mix, network)
        (devices,), phase = population.train(
            keys.train, state.round, state.devices, problem, active=pushed < population.size
        )
        arriving = network.arriving(pushed)
        senders = jnp.full(population.size, population.size).at[arriving].set(jnp.arange(population.size), mode="drop")
        hears = senders < population.size
        received = jax.tree.map(lambda leaf: leaf[jnp.minimum(senders, population.size - 1)], devices.params)
        steps = population.steps_per_round(problem.private_indices.shape[1])
        taught, (loss, distance, taken) = group.map(
            partial(_teach, group.learner, population, steps),
            (keys.train, state.round * steps, problem.x, problem.y),
            devices,
            jnp.arange(population.size),
            problem.private_indices,
            problem.private_counts,
            received,
        )
        devices = select(hears, taught, devices)
        info = Info(
            phase.loss + jnp.where(hears, loss, 0),
            jnp.where(hears, distance, 0),
            phase.steps + jnp.where(hears, taken, 0),
            Traffic({"parameters": network.sent.pushes(pushed)}),
        )
        return State(state.round + 1, (devices,)), info

    def message_bytes(problem: Problem) -> Traffic:
        return Traffic({"parameters": stacked_bytes(population.parameters)})

    def check(problem: Problem) -> None:
        population.check(problem)
        check_unadjusted(population, "def_kt")
        if infer_task(problem.y) is not CLASSIFICATION:
            raise InputError("def_kt is only for classification, but the task is regression")
        check_network(problem.network, "links")

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def draw_pairs(key: jax.Array, network: NetworkRound) -> jax.Array:
    """Draw disjoint pairs of neighbours; return `[N]` the receiver of each device's message, or `N` for no message.

    Every device draws an out-neighbour and a random number. A device offers its model to that neighbour if its own
    number is larger than the neighbour's. The device withdraws its offer if it is itself offered a model. Of the
    remaining offers, a device accepts the one whose sender has the largest number.
    """
    choosing, lots = jax.random.split(key)
    chosen = network.sent.push_targets(choosing)
    devices = len(chosen)
    lot = jax.random.uniform(lots, (devices,))
    there = jnp.minimum(chosen, devices - 1)
    offers = (chosen < devices) & (lot > lot[there])
    offered = jax.ops.segment_max(offers.astype(jnp.int32), there, devices) > 0
    offers &= ~offered
    best = jax.ops.segment_max(jnp.where(offers, lot, -1), there, devices)
    return jnp.where(offers & (lot == best[there]), chosen, devices)


def _mutual(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Compute `−log p(y) + KL(q ‖ p)`; `targets` `[B, 2, K]` contains one-hot labels, and `q` of the other model."""
    return soft_cross_entropy(outputs, targets[:, 0]) + _distance(outputs, targets[:, 1])


def _distance(outputs: jax.Array, other: jax.Array) -> jax.Array:
    return losses.kl(jax.nn.log_softmax(outputs), other)


def _teach(learner: Learner, population: Population, steps: int, shared: tuple, own: Device, n, held, count, received):
    """Take the steps of ONE receiver; return the trained received model, and sums of losses, distances and steps."""
    key, done, x, y = shared
    drawn = minibatches(jax.random.fold_in(key, n), held, count, population.batch_size, population.local_epochs)

    def step(models: tuple[Device, Device], number: jax.Array):
        _, rows, weight, takes = drawn(number)
        inputs, share = x[rows], jnp.ones(rows.shape[0]) if weight is None else weight
        share /= share.sum()
        outputs = [learner.outputs(model.params, inputs) for model in models]
        labels = jax.nn.one_hot(y[rows], outputs[0].shape[-1])

        def move(model: Device, other: jax.Array) -> Device:
            targets = jnp.stack([labels, jax.nn.softmax(other)], axis=1)
            gradient, _ = learner.follow(_mutual, model.params, inputs, targets, share)
            return learner.update(model._replace(optimizer=at_count(model.optimizer, done)), gradient)

        moved = move(models[0], outputs[1]), move(models[1], outputs[0])
        loss = (soft_cross_entropy(outputs[0], labels) * share).sum()
        distance = (_distance(outputs[0], jax.nn.softmax(outputs[1])) * share).sum()
        if takes is None:
            return moved, (loss, distance, jnp.int32(1))
        moved = jax.tree.map(partial(jnp.where, takes), moved, models)
        return moved, (jnp.where(takes, loss, 0), jnp.where(takes, distance, 0), takes.astype(jnp.int32))

    (kept, _), (loss, distance, taken) = jax.lax.scan(step, (learner.restart(received), own), jnp.arange(steps))
    return kept, (loss.sum(), distance.sum(), taken.sum(dtype=jnp.int32))


ALGORITHMS.add(AlgorithmEntry("def_kt", def_kt, uses=(*TRAINING, *OVER_LINKS)))
