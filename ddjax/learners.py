"""One device's supervised learning with distillation, and many such devices stacked.

`learner` is the only place that knows a loss; `Learners` is the only place that knows how devices are executed.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ddjax import losses
from ddjax.types import Device, InputError, Learner, Problem, PyTree, StepInfo, suggest

# They want function values, give every device the same noise, or take no schedule.
_UNUSABLE_OPTIMIZERS = {"lbfgs", "noisy_sgd", "optimistic_adam", "rprop", "sm3"}


def optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Every Optax optimizer that is a function of a learning rate, by its Optax name, and `momentum` (0.9)."""
    found: dict[str, Callable[..., optax.GradientTransformation]] = {
        "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9)
    }
    for name, factory in vars(optax).items():
        if not inspect.isfunction(factory) or name.startswith(("_", "scale_by")) or name in _UNUSABLE_OPTIMIZERS:
            continue
        if next(iter(inspect.signature(factory).parameters), None) == "learning_rate":
            found[name] = factory
    return found


def optimizer(name: str, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """The named optimizer; raises `InputError` for an unknown name."""
    known = optimizers()
    if name not in known:
        raise suggest("optimizer", name, known)
    return known[name](learning_rate)


def learner(
    model: Callable[[nnx.Rngs], nnx.Module],
    optimizer: optax.GradientTransformation,
    *,
    distillation_weight: float = 0.0,
    divergence: losses.Divergence = losses.squared_euclidean,
    temperature: float = 1.0,
) -> Learner:
    """A classifier that minimises the distillation-regularized loss of Bistritz, Mann, Bambos (NeurIPS 2020),

    `L_n(θ_n; z_n) = E_{(x, y) ~ D_n} [−log softmax(f(θ_n, x))_y] + ρ · mean_{x ∈ X_r} D(s_n(x), z_n(x))`,
    with `s_n(x) = softmax(f(θ_n, x) / T)`.

    Args:
      model: constructor of an NNX module `[B, …] → [B, K]` logits, with parameters as its only state.
      optimizer: applied to the gradient of the sum.
      distillation_weight: `ρ`. It is not rescaled by `T²` as Hinton, Vinyals, Dean (2015) advise; do it here.
      divergence: `D`.
      temperature: `T`, of the soft decisions sent and of those compared with a target.
    """
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: model(nnx.Rngs(0))))

    def logits(params: PyTree, x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, nnx.State(params))(x)

    def init(key: jax.Array) -> Device:
        params = nnx.to_pure_dict(nnx.split(model(nnx.Rngs(key)))[1])
        return Device(params, optimizer.init(params))

    def objective(params: PyTree, x, y, reference, targets) -> tuple[jax.Array, StepInfo]:
        if targets is None:
            loss = losses.softmax_cross_entropy(logits(params, x), y).mean()
            return loss, StepInfo(loss, jnp.zeros_like(loss), None)
        # One pass over both minibatches: wider products, half the kernels.
        out = logits(params, jnp.concatenate([x, reference]))
        loss = losses.softmax_cross_entropy(out[: x.shape[0]], y).mean()
        log_s = jax.nn.log_softmax(out[x.shape[0] :] / temperature)
        distillation_loss = divergence(log_s, targets).mean()
        return loss + distillation_weight * distillation_loss, StepInfo(loss, distillation_loss, jnp.exp(log_s))

    def step(key: jax.Array, device: Device, batch, reference=None, targets=None) -> tuple[Device, StepInfo]:
        del key  # for learners with dropout or noise
        gradients, info = jax.grad(objective, has_aux=True)(device.params, *batch, reference, targets)
        updates, state = optimizer.update(gradients, device.optimizer, device.params)
        return Device(optax.apply_updates(device.params, updates), state), info

    def predict(device: Device, x: jax.Array) -> jax.Array:
        return jax.nn.softmax(logits(device.params, x) / temperature)

    return Learner(init, step, predict)


class RoundKeys(NamedTuple):
    """The random streams of one round, the same for every algorithm: two runs see the same minibatches."""

    train: jax.Array
    reference: jax.Array
    mix: jax.Array


def round_keys(key: jax.Array) -> RoundKeys:
    """Splits a round's key into its streams."""
    return RoundKeys(*jax.random.split(key, 3))


class Group(NamedTuple):
    """Devices of one architecture.

    Attributes:
      learner: how each of them learns.
      size: number of devices.
      chunk: devices vectorized at a time, the chunks one after another; `None` for all at once.
    """

    learner: Learner
    size: int
    chunk: int | None = None

    def map(self, function: Callable, *arguments: PyTree) -> PyTree:
        """`function` of each device's slice of the stacked arguments, stacked."""
        if self.chunk is None or self.chunk >= self.size:
            return jax.vmap(function)(*arguments)
        return jax.lax.map(lambda a: function(*a), arguments, batch_size=self.chunk)


@dataclasses.dataclass(frozen=True)
class Learners:
    """All devices of a network: groups of one architecture each, stacked along a leading device axis.

    Device numbers run through the groups in order. A homogeneous network is one group, with no special case.

    Attributes:
      groups: at least one.
      batch_size: private examples of one step, drawn uniformly with replacement from what the device holds.
      local_steps: optimizer steps of one round.
    """

    groups: Sequence[Group]
    batch_size: int
    local_steps: int = 1

    @property
    def size(self) -> int:
        """Number of devices `N`."""
        return sum(group.size for group in self.groups)

    def _members(self) -> list[tuple[Group, slice]]:
        stops = [sum(g.size for g in self.groups[: i + 1]) for i in range(len(self.groups))]
        return [(group, slice(stop - group.size, stop)) for group, stop in zip(self.groups, stops, strict=True)]

    def init(self, key: jax.Array, common: bool = False) -> tuple[Device, ...]:
        """Stacked devices, a group each. Device `n` starts from `fold_in(key, n)`, or all from `key` if `common`."""
        return tuple(
            group.map(partial(_start, group.learner, key, common), _ids(members)) for group, members in self._members()
        )

    def train(
        self,
        key: jax.Array,
        devices: tuple[Device, ...],
        problem: Problem,
        reference: jax.Array | None = None,
        targets: jax.Array | None = None,
    ) -> tuple[tuple[Device, ...], StepInfo]:
        """The local phase of one round.

        Args:
          key: device `n` draws from `fold_in(key, n)` alone, so its numbers do not depend on who else there is.
          devices: a stacked `Device` a group.
          problem: private data.
          reference: `[b, …]` the reference minibatch.
          targets: `[N, b, K]`; `None` to learn from the private data alone.

        Returns:
          The devices after `local_steps` steps, and `StepInfo` with a leading axis `[N]`: losses averaged over the
          steps, soft decisions (`[N, b, K]`) of the last one.
        """

        def phase(group: Group, members: slice, stacked: Device):
            def one(n, device, held, size, target):
                device_key = jax.random.fold_in(key, n)

                def step(device, number):
                    draw, own = jax.random.split(jax.random.fold_in(device_key, number))
                    rows = held[jax.random.randint(draw, (self.batch_size,), 0, size)]
                    return group.learner.step(own, device, (problem.x[rows], problem.y[rows]), reference, target)

                device, infos = jax.lax.scan(step, device, jnp.arange(self.local_steps))
                last = None if target is None else infos.soft_decisions[-1]
                return device, StepInfo(infos.loss.mean(), infos.distillation_loss.mean(), last)

            target = None if targets is None else targets[members]
            return group.map(one, _ids(members), stacked, problem.private[members], problem.sizes[members], target)

        phases = [phase(*member, stacked) for member, stacked in zip(self._members(), devices, strict=True)]
        trained, infos = zip(*phases, strict=True)
        return trained, jax.tree.map(lambda *parts: jnp.concatenate(parts), *infos)

    def predict(self, devices: tuple[Device, ...], x: jax.Array) -> jax.Array:
        """Soft decisions of every device on the same inputs, `[B, …] → [N, B, K]`."""
        soft_decisions = [
            group.map(lambda device, predict=group.learner.predict: predict(device, x), stacked)
            for group, stacked in zip(self.groups, devices, strict=True)
        ]
        return jnp.concatenate(soft_decisions)

    def parameter_counts(self) -> list[int]:
        """Parameters of one device of each group."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return [sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(device.params)) for device in shapes]


def _start(learner: Learner, key: jax.Array, common: bool, device: jax.Array) -> Device:
    return learner.init(key if common else jax.random.fold_in(key, device))


def _ids(members: slice) -> jax.Array:
    return jnp.arange(members.start, members.stop)


def single_group(learners: Learners, algorithm: str) -> Group:
    """The one group of a homogeneous network; raises `InputError` where an algorithm cannot do with several."""
    if len(learners.groups) > 1:
        raise InputError(
            f"{algorithm} shares parameters, so all devices need one architecture, but there are "
            f"{len(learners.groups)} groups; give one model, or use distillation, which shares soft decisions"
        )
    return learners.groups[0]
