"""All devices of a network, stacked, and how they learn from their own examples."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddjax.errors import InputError, check_number
from ddjax.examples import Examples, gathered
from ddjax.learning.draws import minibatches
from ddjax.learning.group import Group
from ddjax.learning.tasks import CLASSIFICATION, infer_task
from ddjax.sharding import shard_count
from ddjax.stacked import expand, select
from ddjax.types import Device, Learner, Problem, PyTree

# `(key, gradient, params, correction) → gradient` of ONE device.
Correct = Callable[[jax.Array, PyTree, PyTree, PyTree], PyTree]


class Phase(NamedTuple):
    """Report of a local phase; all numbers are zero for devices that took no part.

    Attributes:
      loss: `[N]` private losses before each step, summed over the steps.
      distillation_loss: `[N]` divergences from the targets, summed in the same way.
      steps: `[N]` int32, number of optimizer steps taken.
      soft_decisions: `[N, b, K]` soft decisions on the reference minibatch in the last step; `None` without targets.
      gradients: a stacked pytree for each group: the gradients before correction, averaged over the steps; `None`
        without corrections.
    """

    loss: jax.Array
    distillation_loss: jax.Array
    steps: jax.Array
    soft_decisions: jax.Array | None
    gradients: PyTree = None


@dataclasses.dataclass(frozen=True)
class Population:
    """All devices of a network: groups of one architecture each, stacked along a leading device axis.

    Devices are numbered consecutively, group by group. A homogeneous network is one group.

    Attributes:
      groups: at least one group.
      batch_size: private examples per step; 0 for all examples of the device.
      local_steps: optimizer steps per round, on minibatches drawn uniformly with replacement.
      local_epochs: if not 0, passes per round over the device's own examples, instead of `local_steps`. Each pass
        shuffles the examples anew and divides them into minibatches, of which the last may be smaller. Devices with
        more examples therefore take more steps.

    Examples:
      >>> population = ddjax.Population([ddjax.Group(learner, 8)], batch_size=16, local_epochs=2)
      >>> population.steps_per_round(examples=40)  # 16, 16 and 8 examples, twice
      6
      >>> (devices,) = population.init(jax.random.key(0))
      >>> {len(leaf) for leaf in jax.tree.leaves(devices.params)}  # stacked
      {8}
    """

    groups: Sequence[Group]
    batch_size: int
    local_steps: int = 1
    local_epochs: int = 0

    def __post_init__(self) -> None:
        check_number("batch_size", self.batch_size)
        check_number("local_steps", self.local_steps, positive=True)
        check_number("local_epochs", self.local_epochs)

    @property
    def size(self) -> int:
        """Number of devices `N`."""
        return sum(group.size for group in self.groups)

    def steps_per_round(self, examples: int) -> int:
        """Count the optimizer steps per round of a device with this number of examples."""
        return self.local_epochs * math.ceil(examples / (self.batch_size or examples)) or self.local_steps

    def examples_per_round(self, problem: Problem) -> jax.Array:
        """Count the examples that each device uses in a round, `[N]` int32; repeated uses count again."""
        counts = problem.private_counts.astype(jnp.int32)
        if self.local_epochs:
            return self.local_epochs * counts
        return self.local_steps * (jnp.full_like(counts, self.batch_size) if self.batch_size else counts)

    def members(self) -> list[tuple[Group, slice]]:
        """List the groups, each with the numbers of its devices."""
        stops = [sum(g.size for g in self.groups[: i + 1]) for i in range(len(self.groups))]
        return [(group, slice(stop - group.size, stop)) for group, stop in zip(self.groups, stops, strict=True)]

    def init(self, key: jax.Array, common: bool = False) -> tuple[Device, ...]:
        """Initialize the stacked devices, one `Device` for each group.

        If `common` is true, all devices start from `key`; otherwise, device `n` starts from `fold_in(key, n)`.
        """

        def start(learner: Learner, key: jax.Array, nothing: tuple, device: jax.Array):
            return nothing, learner.init(key if common else jax.random.fold_in(key, device))

        return tuple(
            group.map(partial(start, group.learner), key, (), jnp.arange(self.size)[members])[1]
            for group, members in self.members()
        )

    def train(
        self,
        key: jax.Array,
        round: jax.Array,
        devices: tuple[Device, ...],
        problem: Problem,
        reference: jax.Array | None = None,
        targets: jax.Array | None = None,
        active: jax.Array | None = None,
        correct: Correct | None = None,
        corrections: tuple[PyTree, ...] | None = None,
        known: jax.Array | None = None,
    ) -> tuple[tuple[Device, ...], Phase]:
        """Run the local phase of one round.

        Args:
          key: device `n` draws only from `fold_in(key, n)`, so its draws do not depend on the other devices.
          round: number of rounds done, which learning rate schedules read: `[]`, or `[N]` per device.
          devices: a stacked `Device` for each group.
          problem: problem with the private data.
          reference: `[b, …]` the reference minibatch.
          targets: `[N, b, K]` targets on the reference minibatch; `None` to learn only from the private data.
          active: `[N]` bool, the devices that take part; all devices if `None`. The other devices do not change, but
            take as much time to compute.
          correct: function that changes the gradient before each update, and that must not close over a traced array.
          corrections: values that `correct` takes for each device: a stacked pytree for each group.
          known: `[N, b]` bool, the reference examples that each device knows; all examples if `None`.
        """
        parts = []
        for number, ((group, members), stacked) in enumerate(zip(self.members(), devices, strict=True)):
            moved, phase = self.train_group(
                group,
                key,
                round[members] if jnp.ndim(round) else round,
                stacked,
                problem,
                members,
                reference=reference,
                targets=None if targets is None else targets[members],
                correct=correct,
                corrections=None if corrections is None else corrections[number],
                known=None if known is None else known[members],
            )
            if active is not None:
                taking = active[members]
                moved = select(taking, moved, stacked)
                phase = jax.tree.map(lambda leaf, taking=taking: jnp.where(expand(taking, leaf), leaf, 0), phase)
            parts.append((moved, phase))
        trained, phases = zip(*parts, strict=True)
        gradients = None if correct is None else tuple(phase.gradients for phase in phases)
        joined = jax.tree.map(
            lambda *parts: jnp.concatenate(parts), *(phase._replace(gradients=None) for phase in phases)
        )
        return trained, joined._replace(gradients=gradients)

    def train_group(
        self,
        group: Group,
        key: jax.Array,
        round: jax.Array,
        stacked: Device,
        problem: Problem,
        ids: jax.Array | slice,
        reference: jax.Array | None = None,
        targets: jax.Array | None = None,
        correct: Correct | None = None,
        corrections: PyTree = None,
        known: jax.Array | None = None,
    ) -> tuple[Device, Phase]:
        """Run the local phase of some devices of one group.

        The devices have the numbers `ids` `[M]`, and are stacked in this order. The other arguments are as in `train`,
        but `targets`, `corrections` and `known` are only for these devices, and `round` is `[]` or `[M]`.
        """
        steps = self.steps_per_round(problem.private_indices.shape[1])
        learner = group.learner
        outputs = self.outputs_count(problem) if learner.adjusts else 0

        def one(shared, device, n, held, size, target, correction, known, own_round):
            key, round, x, y, reference = shared
            round = round if own_round is None else own_round
            draw = minibatches(jax.random.fold_in(key, n), held, size, self.batch_size, self.local_epochs)
            shares = (_shares(y[held], size, outputs),) if learner.adjusts else ()

            def step(carry, number):
                device, total = carry
                own, rows, weight, takes = draw(number)
                batch = x[rows], y[rows], weight, *shares
                public = (reference, target) if known is None else (reference, target, known)
                gradient, info = learner.gradient(own, device.params, batch, *public)
                corrected = correct(own, gradient, device.params, correction) if correct else gradient
                moved = learner.update(device, corrected)
                summed = jax.tree.map(jnp.add, total, gradient) if correct else None
                if takes is None:
                    return (moved, summed), (info, jnp.int32(1))
                info = info._replace(
                    loss=jnp.where(takes, info.loss, 0), distillation_loss=jnp.where(takes, info.distillation_loss, 0)
                )
                taken = jax.tree.map(partial(jnp.where, takes), (moved, summed), (device, total))
                return taken, (info, takes.astype(jnp.int32))

            device = device._replace(optimizer=at_count(device.optimizer, round * steps))
            nothing = jax.tree.map(jnp.zeros_like, device.params) if correct else None
            (device, total), (infos, taken) = jax.lax.scan(step, (device, nothing), jnp.arange(steps))
            taken = taken.sum(dtype=jnp.int32)
            last = None if target is None else infos.soft_decisions[taken - 1 if self.local_epochs else -1]
            mean = jax.tree.map(lambda leaf: leaf / taken, total)
            return device, Phase(infos.loss.sum(), infos.distillation_loss.sum(), taken, last, mean)

        held, counts = problem.private_indices[ids], problem.private_counts[ids]
        x, y = problem.x, problem.y
        if not isinstance(ids, slice) and shard_count() > 1:
            held, x, y = gathered(held, x, y)
        each = jnp.ndim(round) > 0
        shared = (key, None if each else round, x, y, reference)
        numbers = jnp.arange(self.size)[ids]
        own = round if each else None
        return group.map(one, shared, stacked, numbers, held, counts, targets, corrections, known, own)

    def predict(self, devices: tuple[Device, ...], x: jax.Array) -> jax.Array:
        """Compute the soft decisions of every device on the same inputs, `[B, …] → [N, B, K]`."""
        return self._each(lambda learner, device, x: learner.predict(device, x), devices, x)

    def outputs(self, devices: tuple[Device, ...], x: jax.Array) -> jax.Array:
        """Compute the logits or predicted numbers of every device on the same inputs, `[B, …] → [N, B, K]`."""
        return self._each(lambda learner, device, x: learner.outputs(device.params, x), devices, x)

    def _each(
        self, function: Callable[[Learner, Device, jax.Array], jax.Array], devices: tuple[Device, ...], x: jax.Array
    ) -> jax.Array:
        def one(learner: Learner, x: jax.Array, nothing: tuple, device: Device):
            return nothing, function(learner, device, x)

        return jnp.concatenate(
            [
                group.map(partial(one, group.learner), x, (), stacked)[1]
                for group, stacked in zip(self.groups, devices, strict=True)
            ]
        )

    def outputs_count(self, problem: Problem) -> int:
        """Find `K`, the number of outputs that each model gives for one input of the problem."""
        one = jax.ShapeDtypeStruct((1, *problem.x.shape[1:]), problem.x.dtype)
        return jax.eval_shape(self.predict, jax.eval_shape(self.init, jax.random.key(0)), one).shape[-1]

    @property
    def parameters(self) -> PyTree:
        """Shapes of the stacked parameters of the only group, `[N, …]`."""
        return jax.eval_shape(self.init, jax.random.key(0))[0].params

    def parameter_counts(self) -> list[int]:
        """Count the parameters of one device in each group."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return [sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(device.params)) for device in shapes]

    def check(self, problem: Problem) -> None:
        """Refuse a problem from which these devices cannot learn.

        Raises:
          InputError: the problem has another number of devices, the targets belong to another task, or the models have
            no output for a label or a number.
        """
        counts = {
            "private examples": len(problem.private_indices),
            "a network": problem.network.devices,
        }
        for what, count in counts.items():
            if count != self.size:
                raise InputError(f"the problem has {what} for {count} devices, but the population has {self.size}")
        task = infer_task(problem.y)
        if any(group.learner.task is not task for group in self.groups):
            raise InputError(
                f"these learners do not accept targets of dtype {problem.y.dtype}; pass task=infer_task(problem.y) to "
                "supervised_learner"
            )
        outputs = self.outputs_count(problem)
        targets: dict[str, Any] = {"private examples": problem.y, "examples to evaluate on": problem.y_test}
        for name, y in targets.items():
            if isinstance(y, jax.ShapeDtypeStruct):  # labels are unknown
                continue
            y = np.asarray(y) if isinstance(y, Examples) else y
            if task is not CLASSIFICATION:
                if y.shape[1:] != (outputs,):
                    raise InputError(
                        f"the {name} have {y.shape[1]} numbers to predict each, but the models have {outputs} outputs"
                    )
            elif wrong := [int(label) for label in (y.min(), y.max()) if not 0 <= label < outputs]:
                raise InputError(
                    f"the {name} include the label {wrong[0]}, but the models have outputs only for 0 to {outputs - 1}"
                )


def _shares(labels: jax.Array, count: jax.Array, classes: int) -> jax.Array:
    """Compute the shares `[K]` of the classes among the first `count` labels."""
    return jnp.zeros(classes).at[labels].add(jnp.arange(len(labels)) < count) / count


def at_count(optimizer: Any, count: jax.Array) -> Any:
    """Set the step count that learning rate schedules read.

    Schedules thus count rounds, even if a device takes fewer steps or restarts its optimizer.
    """

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda node: node._replace(count=jnp.asarray(count, jnp.int32)) if is_schedule(node) else node,
        optimizer,
        is_leaf=is_schedule,
    )


def single_group(population: Population, algorithm: str) -> Group:
    """Return the one group of a homogeneous network.

    Args:
      population: the devices.
      algorithm: name of the algorithm, for error messages.

    Raises:
      InputError: there are several groups.

    Examples:
      >>> group = ddjax.Group(learner, 8)
      >>> single_group(ddjax.Population([group], batch_size=16), "my_algorithm").size
      8
    """
    if len(population.groups) > 1:
        raise InputError(
            f"{algorithm} shares parameters, so all devices need the same architecture, but there are "
            f"{len(population.groups)} groups; give one model, or use distillation, which shares soft decisions"
        )
    return population.groups[0]
