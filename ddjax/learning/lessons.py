"""Local phases on the reference set: devices learn from reference examples, whose targets depend on other devices."""

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
    """Compute `−Σ z log softmax(f)` of outputs `f` and soft labels `z`, in nats."""
    return losses.cross_entropy(jax.nn.log_softmax(outputs), targets)


def draw_reference(key: jax.Array, problem: Problem, count: int) -> jax.Array:
    """Draw the `[count, …]` reference examples of a round, the same for all devices, without replacement."""
    size = problem.reference.shape[0]
    return problem.reference[slice(None) if count == size else draw(key, size, count)]


def check_unadjusted(population: Population, name: str) -> None:
    """Refuse devices with a prior adjustment, for an algorithm that has its own private loss.

    Args:
      population: the devices.
      name: name of the algorithm, for error messages.

    Raises:
      InputError: a learner has a prior adjustment.
    """
    if any(group.learner.adjusts for group in population.groups):
        raise InputError(f"{name} has its own loss, which cannot use prior_adjustment; leave out that setting")


def check_lessons(
    problem: Problem, name: str, reference_batch_size: int = 1, classes: bool = True, joins: Population | None = None
) -> None:
    """Refuse a problem on which devices cannot teach each other.

    Args:
      problem: the problem; every device must know the whole reference set.
      name: name of the algorithm, for error messages.
      reference_batch_size: number of reference examples drawn in a round.
      classes: whether the task must be classification.
      joins: the devices, if they learn from private and reference examples with one loss; otherwise `None`.

    Raises:
      InputError: the problem does not meet a requirement, or a learner in `joins` has a prior adjustment.
    """
    if joins is not None:
        check_unadjusted(joins, name)
    size = problem.reference.shape[0]
    if not 1 <= reference_batch_size <= size:
        raise InputError(
            f"reference_batch_size must be between 1 and {size} (the size of the reference set), got "
            f"{reference_batch_size}"
        )
    if problem.known is not None:
        raise InputError(f"{name} needs devices that know the whole reference set; set reference_known=1")
    if classes and infer_task(problem.y) is not CLASSIFICATION:
        raise InputError(f"{name} is only for classification, but the task is regression")


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
    """Run a local phase on reference examples only: passes in minibatches, with a new shuffle for each pass.

    Args:
      population: the devices; `batch_size` is the size of a minibatch.
      key: device `n` draws from `fold_in(key, n)`.
      round: `[]` number of rounds done, which learning rate schedules read.
      devices: a stacked `Device` for each group.
      problem: the problem; its private examples determine the number of steps that schedules count per round.
      reference: `[b, …]` reference examples.
      targets: `[N, b, K]`, the targets of each device on these examples.
      compare: function that computes the loss of each example; it must not close over a traced array.
      epochs: number of passes.

    Returns:
      The devices, and the loss before each step, averaged over the steps, `[N]`.
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
    """Run the local phase of a round on minibatches that are drawn from private and reference examples together.

    The loss is the cross-entropy with the labels of private examples and the soft labels of reference examples. A
    device that learns from no reference example is trained as by `population.train`; with `local_steps` instead of
    `local_epochs`, even its minibatches are the same.

    Args:
      population: the devices, with the number of steps or passes.
      key: device `n` draws from `fold_in(key, n)`.
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      problem: a classification problem.
      targets: `[N, R, K]` soft labels of the reference examples.
      taken: `[N, R]` bool, the reference examples from which each device learns.
    """
    most, size = problem.private_indices.shape[1], problem.reference.shape[0]
    steps = population.steps_per_round(most + size)
    done = round * population.steps_per_round(most)

    def one(learner: Learner, shared: tuple, device: Device, n, held, count, target, taken):
        key, done, x, y, reference = shared
        order = jnp.argsort(~taken, stable=True)  # examples that are taken come first
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
    """Run the local phase of a round, with as many labelled reference examples as private ones in each minibatch.

    Private minibatches are drawn as in `population.train`. Reference examples are drawn uniformly with replacement. The
    loss is the mean cross-entropy over both kinds of examples.

    Args:
      population: the devices, with the number of steps or passes.
      key: device `n` draws from `fold_in(key, n)`.
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      problem: a classification problem.
      labels: `[N, R]` labels of the reference examples.
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
    """Take optimizer steps on ONE device; also return the sum of the losses and the number of steps taken."""

    def step(device: Device, number: jax.Array):
        _, rows, weight, takes = drawn(number)
        share = jnp.ones(rows.shape[0]) if weight is None else weight
        gradient, loss = learner.follow(compare, device.params, *examples(rows), share / share.sum())
        # Schedules count rounds, so all steps of a round have the same learning rate.
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
    """Map a function over all devices; the devices stay in their groups, and all other outputs are concatenated.

    Args:
      population: the devices.
      one: `(learner, shared, device, n, *arguments) → (device, outputs)` for device `n`; it must not close over a
        traced array.
      shared: values that are the same for all devices.
      devices: a stacked `Device` for each group.
      arguments: arrays `[N, …]`, of which `one` gets the row of device `n`.
    """
    numbers = jnp.arange(population.size)
    parts = [
        group.map(partial(one, group.learner), shared, stacked, *(each[members] for each in (numbers, *arguments)))
        for (group, members), stacked in zip(population.members(), devices, strict=True)
    ]
    moved, outputs = zip(*parts, strict=True)
    return moved, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)
