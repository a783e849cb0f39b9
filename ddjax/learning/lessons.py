"""Local phases on the reference set: what devices learn from public examples that others gave labels or scores to."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ddjax.errors import InputError
from ddjax.learning import losses
from ddjax.learning.draws import Minibatch, draw, minibatches
from ddjax.learning.population import Phase, Population, at_count
from ddjax.learning.tasks import CLASSIFICATION, infer_task
from ddjax.stacked import expand
from ddjax.types import Device, Learner, Problem, PyTree

# `(outputs [B, K], targets [B, K]) → [B]`.
Compare = Callable[[jax.Array, jax.Array], jax.Array]


def soft_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """`−Σ z log softmax(f)`, in nats."""
    return losses.cross_entropy(jax.nn.log_softmax(outputs), targets)


def draw_reference(key: jax.Array, problem: Problem, count: int) -> jax.Array:
    """Draws the `[count, …]` reference examples of a round, the same for all devices, without replacement."""
    size = problem.reference.shape[0]
    return problem.reference[slice(None) if count == size else draw(key, size, count)]


def check_unadjusted(population: Population, name: str) -> None:
    """Refuses devices whose private loss is adjusted, for an algorithm that has a loss of its own.

    Args:
      population: the devices.
      name: of the algorithm, for messages.

    Raises:
      InputError: some learner has a prior adjustment.
    """
    if any(group.learner.adjusts for group in population.groups):
        raise InputError(f"--prior_adjustment is not used by {name}, whose loss is another; leave it out")


def check_lessons(
    problem: Problem, name: str, reference_batch_size: int = 1, classes: bool = True, joins: Population | None = None
) -> None:
    """Refuses a problem that devices cannot teach each other on.

    Args:
      problem: whose reference set all devices are to know.
      name: of the algorithm, for messages.
      reference_batch_size: examples drawn in a round.
      classes: whether there must be classes.
      joins: devices that learn from private and reference examples by one loss.

    Raises:
      InputError: what is wrong.
    """
    if joins is not None:
        check_unadjusted(joins, name)
    size = problem.reference.shape[0]
    if not 1 <= reference_batch_size <= size:
        raise InputError(f"reference_batch_size must lie in 1 … {size}, the reference set, got {reference_batch_size}")
    if problem.known is not None:
        raise InputError(f"{name} needs devices that know the whole reference set; give --reference_known=1")
    if classes and infer_task(problem.y) is not CLASSIFICATION:
        raise InputError(f"{name} is only for classes, but there are numbers to predict")


def approach(
    population: Population,
    key: jax.Array,
    round: jax.Array,
    devices: tuple[Device, ...],
    problem: Problem,
    reference: jax.Array,
    targets: jax.Array,
    compare: Compare,
    epochs: int,
) -> tuple[tuple[Device, ...], jax.Array]:
    """A local phase on reference examples alone: passes over them, shuffled anew each time, in minibatches.

    Args:
      population: its `batch_size` is that of a step.
      key: device `n` draws from `fold_in(key, n)`.
      round: `[]` rounds done, by which learning rate schedules go.
      devices: a stacked `Device` for each group.
      problem: that they learn from otherwise.
      reference: `[b, …]`.
      targets: `[N, b, K]`.
      compare: the loss of an example; it closes over no traced array.
      epochs: passes.

    Returns:
      The devices, and `[N]` the mean over the steps of the loss before each.
    """
    size = reference.shape[0]
    batch = min(population.batch_size or size, size)
    steps = epochs * math.ceil(size / batch)
    done = round * population.steps_per_round(problem.private_indices.shape[1])

    def one(learner: Learner, shared: tuple, device: Device, n: jax.Array, target: jax.Array):
        key, done, reference = shared
        drawn = minibatches(jax.random.fold_in(key, n), jnp.arange(size), jnp.int32(size), batch, epochs)
        device, loss, _ = _descend(
            learner, device, done, drawn, steps, lambda rows: (reference[rows], target[rows]), compare
        )
        return device, loss / steps

    return each_device(population, one, (key, done, reference), devices, targets)


def train_joined(
    population: Population,
    key: jax.Array,
    round: jax.Array,
    devices: tuple[Device, ...],
    problem: Problem,
    targets: jax.Array,
    taken: jax.Array,
) -> tuple[tuple[Device, ...], Phase]:
    """The local phase of a round, with reference examples among the private ones: a minibatch is drawn from both.

    The loss is the cross-entropy of labels, and of soft labels. Where no reference example is taken it is
    `population.train`, with the same draws where it takes local steps.

    Args:
      population: says how many steps or passes.
      key: device `n` draws from `fold_in(key, n)`.
      round: `[]` rounds done.
      devices: a stacked `Device` for each group.
      problem: classes.
      targets: `[N, R, K]` soft labels of the reference examples.
      taken: `[N, R]` bool, those that a device learns from.
    """
    most, size = problem.private_indices.shape[1], problem.reference.shape[0]
    steps = population.steps_per_round(most + size)
    done = round * population.steps_per_round(most)

    def one(learner: Learner, shared: tuple, device: Device, n, held, count, target, taken):
        key, done, x, y, reference = shared
        order = jnp.argsort(~taken, stable=True)  # those that are taken come first
        total = count + taken.sum(dtype=jnp.int32)
        places = jnp.arange(most + size)
        drawn = minibatches(jax.random.fold_in(key, n), places, total, population.batch_size, population.local_epochs)

        def examples(at: jax.Array) -> tuple[jax.Array, jax.Array]:
            own, public = held[jnp.minimum(at, most - 1)], order[jnp.clip(at - count, 0, size - 1)]
            private, learned = x[own], reference[public]
            inputs = jnp.where(expand(at < count, learned), private, learned)
            return inputs, jnp.where((at < count)[:, None], jax.nn.one_hot(y[own], target.shape[-1]), target[public])

        device, loss, number = _descend(learner, device, done, drawn, steps, examples, soft_cross_entropy)
        return device, (loss, number)

    shared = key, done, problem.x, problem.y, problem.reference
    private = problem.private_indices, problem.private_counts
    devices, (loss, number) = each_device(population, one, shared, devices, *private, targets, taken)
    return devices, Phase(loss, jnp.zeros_like(loss), number, None)


def train_beside(
    population: Population,
    key: jax.Array,
    round: jax.Array,
    devices: tuple[Device, ...],
    problem: Problem,
    labels: jax.Array,
) -> tuple[tuple[Device, ...], Phase]:
    """The local phase of a round, with as many labelled reference examples beside those of each private minibatch.

    Private minibatches are those of `population.train`. Reference examples are drawn uniformly with replacement. The
    loss is the mean cross-entropy over both.

    Args:
      population: says how many steps or passes.
      key: device `n` draws from `fold_in(key, n)`.
      round: `[]` rounds done.
      devices: a stacked `Device` for each group.
      problem: classes.
      labels: `[N, R]` of the reference examples.
    """
    steps = population.steps_per_round(problem.private_indices.shape[1])

    def one(learner: Learner, shared: tuple, device: Device, n, held, count, labels):
        key, done, x, y, reference = shared
        private = minibatches(jax.random.fold_in(key, n), held, count, population.batch_size, population.local_epochs)

        def drawn(number: jax.Array) -> Minibatch:
            own = private(number)
            public = jax.random.randint(own.key, own.rows.shape, 0, len(labels))
            weight = None if own.weight is None else jnp.tile(own.weight, 2)
            return own._replace(rows=jnp.concatenate([own.rows, public]), weight=weight)

        def examples(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            own, public = jnp.split(rows, 2)
            inputs = jnp.concatenate([x[own], reference[public]])
            classes = jax.eval_shape(learner.outputs, device.params, inputs).shape[-1]
            return inputs, jax.nn.one_hot(jnp.concatenate([y[own], labels[public]]), classes)

        device, loss, number = _descend(learner, device, done, drawn, steps, examples, soft_cross_entropy)
        return device, (loss, number)

    shared = key, round * steps, problem.x, problem.y, problem.reference
    private = problem.private_indices, problem.private_counts
    devices, (loss, number) = each_device(population, one, shared, devices, *private, labels)
    return devices, Phase(loss, jnp.zeros_like(loss), number, None)


def _descend(
    learner: Learner,
    device: Device,
    done: jax.Array,
    drawn: Callable[[jax.Array], Minibatch],
    steps: int,
    examples: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    compare: Compare,
) -> tuple[Device, jax.Array, jax.Array]:
    """Optimizer steps of ONE device; returns also the sum of the losses, and how many steps were taken."""

    def step(device: Device, number: jax.Array):
        _, rows, weight, takes = drawn(number)
        share = jnp.ones(rows.shape[0]) if weight is None else weight
        gradient, loss = learner.follow(compare, device.params, *examples(rows), share / share.sum())
        # A schedule is over rounds: all steps of one have its learning rate.
        moved = learner.update(device._replace(optimizer=at_count(device.optimizer, done)), gradient)
        if takes is None:
            return moved, (loss, jnp.int32(1))
        return jax.tree.map(partial(jnp.where, takes), moved, device), (
            jnp.where(takes, loss, 0),
            takes.astype(jnp.int32),
        )

    device, (losses, taken) = jax.lax.scan(step, device, jnp.arange(steps))
    return device, losses.sum(), taken.sum(dtype=jnp.int32)


def each_device(
    population: Population, one: Callable, shared: tuple, devices: tuple[Device, ...], *arguments: jax.Array
) -> tuple[tuple[Device, ...], PyTree]:
    """Maps a function over all devices; what it returns beside them is joined.

    Args:
      population: the devices.
      one: `(learner, shared, device, n, *arguments) → (device, outputs)` of device `n`; it closes over no traced array.
      shared: what it takes that is the same for all.
      devices: a stacked `Device` for each group.
      arguments: `[N, …]`.
    """
    numbers = jnp.arange(population.size)
    parts = [
        group.map(partial(one, group.learner), shared, stacked, *(each[members] for each in (numbers, *arguments)))
        for (group, members), stacked in zip(population.members(), devices, strict=True)
    ]
    moved, outputs = zip(*parts, strict=True)
    return moved, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)
