"""Many devices, stacked: the only place that knows how they are executed, and how they draw their examples."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax.errors import InputError
from ddjax.models.architectures import CONVOLUTIONAL
from ddjax.sharding import by_device
from ddjax.stacked import expand, select
from ddjax.types import Device, Learner, Problem, PyTree


class RoundKeys(NamedTuple):
    """The random streams of one round, the same for every algorithm: two runs see the same minibatches and graphs."""

    train: jax.Array
    reference: jax.Array
    mix: jax.Array
    graph: jax.Array


def round_keys(key: jax.Array) -> RoundKeys:
    """Splits a round's key into its streams."""
    return RoundKeys(*jax.random.split(key, 4))


def draw(key: jax.Array, size: int, count: int) -> jax.Array:
    """`[count]` of the numbers `0 … size − 1`, without replacement and in random order, all alike.

    The largest of random numbers: `jax.random.choice` sorts several times, which on CPU takes ten times as long.
    """
    return jax.lax.top_k(jax.random.uniform(key, (size,)), count)[1]


class Phase(NamedTuple):
    """What a local phase reports; of devices that took no part, zeros.

    Attributes:
      loss: `[N]` private losses, each before its step, summed over the steps.
      distillation_loss: `[N]` the same of the divergence from the targets.
      steps: `[N]` int32, optimizer steps taken.
      soft_decisions: `[N, b, K]` on the reference minibatch, of the last step; `None` without targets.
    """

    loss: jax.Array
    distillation_loss: jax.Array
    steps: jax.Array
    soft_decisions: jax.Array | None


class Group(NamedTuple):
    """Devices of one architecture.

    Attributes:
      learner: how each of them learns.
      size: number of devices.
      chunk: devices vectorized at a time in one place, the chunks one after another; `None` for all at once.
    """

    learner: Learner
    size: int
    chunk: int | None = None

    def map(self, function: Callable[..., tuple[PyTree, PyTree]], shared: PyTree, carried: PyTree, *arguments: PyTree):
        """Maps a function of one device, `(shared, carried, *arguments) → (carried, output)`, over stacked pytrees.

        Chunks are updated where they lie, so that `carried` is never there twice. The function closes over no traced
        array; what it takes of all devices alike is `shared`.

        Returns:
          The stacked `carried` and outputs.
        """

        def here(shared: PyTree, *arguments: PyTree):
            return self._map(jax.vmap(partial(function, shared)), *arguments)

        return by_device(here, shared, carried, *arguments)

    def _map(self, function: Callable, carried: PyTree, *arguments: PyTree):
        devices = jax.tree.leaves((carried, arguments))[0].shape[0]
        chunks = math.ceil(devices / (self.chunk or devices))
        if chunks == 1:
            return function(carried, *arguments)
        size = math.ceil(devices / chunks)  # as even as can be

        def apply(start: Any, size: int, carried: PyTree, outputs: PyTree):
            def part(leaf):
                return jax.lax.dynamic_slice_in_dim(leaf, start, size)

            def put(leaf, fresh):
                return jax.lax.dynamic_update_slice_in_dim(leaf, fresh, start, 0)

            moved, fresh = function(*jax.tree.map(part, (carried, *arguments)))
            return jax.tree.map(put, carried, moved), jax.tree.map(put, outputs, fresh)

        shapes = jax.eval_shape(function, carried, *arguments)[1]
        outputs = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        whole = devices // size
        done = jax.lax.fori_loop(0, whole, lambda i, both: apply(i * size, size, *both), (carried, outputs))
        return apply(whole * size, devices % size, *done) if devices % size else done


# Of a chunk on a CPU: bytes of parameters, so that a step finds them in a core's cache, and the least devices, so that
# its start is worth it. Measured, see BUILD_NOTES.
_CHUNK_BYTES, _CHUNK_DEVICES = 2**19, 4


def chunk_for(model: str, learner: Learner) -> int | None:
    """How many devices of a model to vectorize at a time on this backend, a `Group`'s `chunk`.

    Args:
      model: a key of `models.MODELS`.
      learner: of that model.
    """
    if jax.default_backend() != "cpu":
        return None
    if model in CONVOLUTIONAL:
        return 1
    device = jax.eval_shape(learner.init, jax.random.key(0))
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(device.params))
    return max(_CHUNK_DEVICES, _CHUNK_BYTES // size)


@dataclasses.dataclass(frozen=True)
class Population:
    """All devices of a network: groups of one architecture each, stacked along a leading device axis.

    Device numbers run through the groups in order. A homogeneous network is one group, with no special case.

    Attributes:
      groups: at least one.
      batch_size: private examples of one step; 0 for all that the device holds.
      local_steps: optimizer steps of one round, on minibatches drawn uniformly with replacement.
      local_epochs: if not 0, a round is that many passes over the device's own examples instead, shuffled anew each
        time and cut into minibatches of which the last may be smaller: devices with more examples take more steps.
    """

    groups: Sequence[Group]
    batch_size: int
    local_steps: int = 1
    local_epochs: int = 0

    @property
    def size(self) -> int:
        """Number of devices `N`."""
        return sum(group.size for group in self.groups)

    def steps_per_round(self, examples: int) -> int:
        """Optimizer steps that a device with so many examples takes in a round."""
        return self.local_epochs * math.ceil(examples / (self.batch_size or examples)) or self.local_steps

    def _members(self) -> list[tuple[Group, slice]]:
        stops = [sum(g.size for g in self.groups[: i + 1]) for i in range(len(self.groups))]
        return [(group, slice(stop - group.size, stop)) for group, stop in zip(self.groups, stops, strict=True)]

    def init(self, key: jax.Array, common: bool = False) -> tuple[Device, ...]:
        """Stacked devices, a group each. Device `n` starts from `fold_in(key, n)`, or all from `key` if `common`."""

        def start(learner: Learner, key: jax.Array, nothing: tuple, device: jax.Array):
            return nothing, learner.init(key if common else jax.random.fold_in(key, device))

        return tuple(
            group.map(partial(start, group.learner), key, (), jnp.arange(self.size)[members])[1]
            for group, members in self._members()
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
    ) -> tuple[tuple[Device, ...], Phase]:
        """The local phase of one round.

        Args:
          key: device `n` draws from `fold_in(key, n)` alone, so its numbers do not depend on who else there is.
          round: `[]` rounds done, from which learning rate schedules count.
          devices: a stacked `Device` a group.
          problem: private data.
          reference: `[b, …]` the reference minibatch.
          targets: `[N, b, K]`; `None` to learn from the private data alone.
          active: `[N]` bool, who takes part; all if `None`. The others stay as they are (and cost the same).
        """
        parts = []
        for (group, members), stacked in zip(self._members(), devices, strict=True):
            target = None if targets is None else targets[members]
            moved, phase = self.train_group(
                group, key, round, stacked, problem, members, reference=reference, targets=target
            )
            if active is not None:
                taking = active[members]
                moved = select(taking, moved, stacked)
                phase = jax.tree.map(lambda leaf, taking=taking: jnp.where(expand(taking, leaf), leaf, 0), phase)
            parts.append((moved, phase))
        trained, phases = zip(*parts, strict=True)
        return trained, jax.tree.map(lambda *parts: jnp.concatenate(parts), *phases)

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
    ) -> tuple[Device, Phase]:
        """The local phase of some devices of one group: those with the numbers `ids` `[M]`, stacked likewise."""
        n_max = problem.private_indices.shape[1]
        steps = self.steps_per_round(n_max)

        def one(shared, device, n, held, size, target):
            key, round, x, y, reference = shared
            draw = self._draws(jax.random.fold_in(key, n), held, size)

            def step(device, number):
                own, rows, weight, takes = draw(number)
                batch = x[rows], y[rows], weight
                moved, info = group.learner.step(own, device, batch, reference, target)
                if takes is None:
                    return moved, (info, jnp.int32(1))
                info = info._replace(
                    loss=jnp.where(takes, info.loss, 0), distillation_loss=jnp.where(takes, info.distillation_loss, 0)
                )
                return jax.tree.map(partial(jnp.where, takes), moved, device), (info, takes.astype(jnp.int32))

            device = device._replace(optimizer=_at_count(device.optimizer, round * steps))
            device, (infos, taken) = jax.lax.scan(step, device, jnp.arange(steps))
            taken = taken.sum(dtype=jnp.int32)
            last = None if target is None else infos.soft_decisions[taken - 1 if self.local_epochs else -1]
            return device, Phase(infos.loss.sum(), infos.distillation_loss.sum(), taken, last)

        shared = (key, round, problem.x, problem.y, reference)
        numbers = jnp.arange(self.size)[ids]
        return group.map(
            one, shared, stacked, numbers, problem.private_indices[ids], problem.private_counts[ids], targets
        )

    def _draws(self, key: jax.Array, held: jax.Array, size: jax.Array) -> Callable[[jax.Array], tuple]:
        """Of one device, number of a step → (its key, rows of its minibatch, their weights, whether it is taken)."""
        n_max = held.shape[0]
        batch = self.batch_size or n_max

        def with_replacement(number):
            drawing, own = jax.random.split(jax.random.fold_in(key, number))
            return own, held[jax.random.randint(drawing, (batch,), 0, size)], None, None

        def everything(number):
            return jax.random.fold_in(key, number), held, (jnp.arange(n_max) < size).astype(float), None

        if not self.local_epochs:
            return with_replacement if self.batch_size else everything
        shuffling, stepping = jax.random.split(key)
        drawn = jax.random.uniform(shuffling, (self.local_epochs, n_max))
        orders = jnp.argsort(jnp.where(jnp.arange(n_max) < size, drawn, 2.0), axis=1)
        per_epoch = math.ceil(n_max / batch)

        def shuffled(number):
            at = number % per_epoch * batch + jnp.arange(batch)
            rows = held[orders[number // per_epoch, jnp.minimum(at, n_max - 1)]]
            # A step that is not taken must not divide by zero.
            takes = at[0] < size
            return jax.random.fold_in(stepping, number), rows, ((at < size) | ~takes).astype(float), takes

        return shuffled

    def predict(self, devices: tuple[Device, ...], x: jax.Array) -> jax.Array:
        """Soft decisions of every device on the same inputs, `[B, …] → [N, B, K]`."""

        def predict(learner: Learner, x: jax.Array, nothing: tuple, device: Device):
            return nothing, learner.predict(device, x)

        return jnp.concatenate(
            [
                group.map(partial(predict, group.learner), x, (), stacked)[1]
                for group, stacked in zip(self.groups, devices, strict=True)
            ]
        )

    @property
    def parameters(self) -> PyTree:
        """Shapes of the stacked parameters of the one group, `[N, …]`."""
        return jax.eval_shape(self.init, jax.random.key(0))[0].params

    def parameter_counts(self) -> list[int]:
        """Parameters of one device of each group."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return [sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(device.params)) for device in shapes]


def _at_count(optimizer: Any, count: jax.Array) -> Any:
    """Schedules go by rounds, also of a device that takes fewer steps or starts with a fresh optimizer."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda node: node._replace(count=jnp.asarray(count, jnp.int32)) if is_schedule(node) else node,
        optimizer,
        is_leaf=is_schedule,
    )


def single_group(population: Population, algorithm: str) -> Group:
    """The one group of a homogeneous network; raises `InputError` where an algorithm cannot do with several."""
    if len(population.groups) > 1:
        raise InputError(
            f"{algorithm} shares parameters, so all devices need one architecture, but there are "
            f"{len(population.groups)} groups; give one model, or use distillation, which shares soft decisions"
        )
    return population.groups[0]
