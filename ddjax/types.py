"""The few types that every layer speaks: problem, learner, mixer, algorithm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

PyTree = Any


def working_dtype() -> np.dtype:
    """Of all floating-point arrays of a run: float32, or float64 where JAX is told to have it (`jax_enable_x64`)."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


class Problem(NamedTuple):
    """What the devices learn from; an argument of every jitted function, never a captured constant.

    `N` devices, `M` private examples in all, `R` reference and `T` test examples; an input has shape `[…]`.
    Floating-point arrays are all of the `working_dtype`.

    Attributes:
      x: `[M, …]` private inputs of all devices, pooled.
      y: `[M]` their labels, integers in `[0, K)`, or `[M, K]` floating-point numbers to predict (see `tasks.of`).
      private_indices: `[N, n_max]` the rows of `x` that device `n` holds, padded on the right.
      private_counts: `[N]` how many of them count, so that unequal devices cost no copies.
      reference: `[R, …]` the public unlabeled reference set.
      network: `[N, N]` `W`; `W[n, m]` is the weight device `n` gives to what it receives from `m`. Of a
        network that changes, `[T, N, N]` for a cycle of `T` rounds, or a `networks.Drawn` for a fresh graph each round.
        A fixed one or a cycle may be a `networks.Sparse` of `E` links.
      x_test: `[T, …]` test inputs, held by no device.
      y_test: `[T]` or `[T, K]` theirs.
    """

    x: jax.Array
    y: jax.Array
    private_indices: jax.Array
    private_counts: jax.Array
    reference: jax.Array
    network: Any
    x_test: jax.Array
    y_test: jax.Array


class Device(NamedTuple):
    """What one device keeps between steps; stacked, every leaf has a leading device axis."""

    params: PyTree
    optimizer: PyTree


class StepInfo(NamedTuple):
    """What a local step reports, all before the step.

    Attributes:
      loss: `[]` private loss.
      distillation_loss: `[]` mean divergence from the targets (without its weight `ρ`).
      soft_decisions: `[b, K]` on the reference minibatch; `None` without targets.
    """

    loss: jax.Array
    distillation_loss: jax.Array
    soft_decisions: jax.Array | None


class Learner(NamedTuple):
    """How ONE device learns; nothing in it knows of other devices.

    Attributes:
      init: `(key) → Device`.
      restart: `(params) → Device`, with a fresh optimizer.
      step: `(key, device, (x [B, …], y [B], weight [B]), reference [b, …], targets [b, K]) → (Device, StepInfo)`, one
        optimizer step on the weighted mean; reference and targets are `None` when the device learns from its private
        data alone, the weight is `None` where all examples count the same.
      predict: `(device, x [B, …]) → [B, K]` soft decisions: points of the simplex, or the predicted numbers.
      objective: `(params, (x, y, weight), reference, targets) → []`, the loss whose gradient `step` follows, with the
        same arguments.
    """

    init: Callable[[jax.Array], Device]
    restart: Callable[[PyTree], Device]
    step: Callable[..., tuple[Device, StepInfo]]
    predict: Callable[[Device, jax.Array], jax.Array]
    objective: Callable[..., jax.Array]


class Traffic(NamedTuple):
    """Messages by the way they take, then by kind: counts in one round, or (the same structure) bytes of one message.

    Attributes:
      peer: from device to device, `[N, N]` counts with the receiver as row and the sender as column, as in `W`; of a
        `networks.Sparse` `W` `[E]`, as its links are.
      up: from a device to the server, `[N]`.
      down: from the server to a device, `[N]`.
    """

    peer: dict[str, Any] = {}  # noqa: RUF012 (never written to)
    up: dict[str, Any] = {}  # noqa: RUF012
    down: dict[str, Any] = {}  # noqa: RUF012


class MixerState(NamedTuple):
    """What a mixer remembers.

    Attributes:
      rows: a pytree whose leaves begin with the `leading` axes of `x`; distillation gathers and scatters it with the
        reference rows of a round, so that mixers stay blind to rows.
      rest: whatever does not belong to rows.
    """

    rows: PyTree = ()
    rest: PyTree = ()


class Mixer(NamedTuple):
    """How what the devices hold is combined over the network.

    `x` is a pytree whose leaves are `[N, …]`. Of soft decisions the second axis is the reference example (`leading`
    is 2), of parameters there is none such (`leading` is 1); what a mixer keeps per device or row has those
    leading axes.

    Attributes:
      init: `(x, leading) → MixerState`.
      mix: `(key, x, MixerState, W) → (x, MixerState, Traffic)`.
      message_bytes: `(x, leading) → Traffic` of ints, from the shapes and dtypes of `x`.
      weights: what it asks of `W`: `doubly`, `column` or `row` stochastic; a doubly stochastic one suits all.
      keeps_mean: whether the mean over devices survives it, as `tracking` needs.
      fixed_graph: whether neighbours must stay the same.
      running: whether `x` must be a running value, mixed again and again, and not a fresh one each round.
    """

    init: Callable[[PyTree, int], MixerState]
    mix: Callable[..., tuple[PyTree, MixerState, Traffic]]
    message_bytes: Callable[[PyTree, int], Traffic]
    weights: str = "doubly"
    keeps_mean: bool = True
    fixed_graph: bool = False
    running: bool = False


class Info(NamedTuple):
    """What a reader wants to know of one round.

    Attributes:
      loss: `[N]` private loss, summed over the optimizer steps a device took.
      distillation_loss: `[N]` the same of the divergence from the targets.
      steps: `[N]` how many it took.
      messages: how many were sent.
    """

    loss: jax.Array
    distillation_loss: jax.Array
    steps: jax.Array
    messages: Traffic


class Algorithm(NamedTuple):
    """A whole system, as pure functions over all devices at once.

    Attributes:
      init: `(key, problem) → state`; a state has at least the field `round` (`[]`, rounds done).
      round: `(key, state, problem) → (state, Info)`; `key` is this round's own.
      predict: `(state, x [B, …]) → [N, B, K]` soft decisions of every device.
      message_bytes: `(problem) → Traffic` of ints, the exact bytes of one message of each kind.
    """

    init: Callable[[jax.Array, Problem], Any]
    round: Callable[[jax.Array, Any, Problem], tuple[Any, Info]]
    predict: Callable[[Any, jax.Array], jax.Array]
    message_bytes: Callable[[Problem], Traffic]
