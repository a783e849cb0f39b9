"""The few types that every layer speaks: problem, learner, mixer, algorithm, and the errors a user can cause."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

PyTree = Any


class InputError(ValueError):
    """A user's mistake: one line that says what is wrong, what was given and what is accepted."""


class NonFiniteError(FloatingPointError):
    """A loss or a soft decision became NaN or infinite.

    Attributes:
      round: the round (counted from 1) in which it happened.
      device: the first device it happened on.
    """

    def __init__(self, round: int, device: int):
        super().__init__(
            f"device {device} is no longer finite in round {round}; "
            "try a smaller learning rate, distillation weight or consensus step size"
        )
        self.round, self.device = round, device


def suggest(kind: str, given: str, accepted: Iterable[str]) -> InputError:
    """The error for an unknown name, with the nearest known one where there is one."""
    accepted = sorted(accepted)
    near = difflib.get_close_matches(given, accepted, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {given!r}; {hint}accepted: {', '.join(accepted)}")


class Problem(NamedTuple):
    """What the devices learn from; an argument of every jitted function, never a captured constant.

    `N` devices, `M` private examples in all, `R` reference and `T` test examples; an input has shape `[…]`.

    Attributes:
      x: `[M, …]` private inputs of all devices, pooled.
      y: `[M]` their labels, integers in `[0, K)`.
      private: `[N, n_max]` the rows of `x` that device `n` holds, padded on the right.
      sizes: `[N]` how many of them count, so that unequal devices cost no copies.
      reference: `[R, …]` the public unlabeled reference set.
      mixing_matrix: `[N, N]` `W`; `W[n, m]` is the weight device `n` gives to what it receives from `m`.
      x_test: `[T, …]` test inputs, held by no device.
      y_test: `[T]` their labels.
    """

    x: jax.Array
    y: jax.Array
    private: jax.Array
    sizes: jax.Array
    reference: jax.Array
    mixing_matrix: jax.Array
    x_test: jax.Array
    y_test: jax.Array


class Device(NamedTuple):
    """What one device keeps between steps; stacked, every leaf has a leading device axis."""

    params: PyTree
    optimizer: PyTree


class StepInfo(NamedTuple):
    """What a local step reports.

    Attributes:
      loss: `[]` private loss, before the step.
      distillation_loss: `[]` mean divergence from the targets (without its weight `ρ`), before the step.
      soft_decisions: `[b, K]` on the reference minibatch, before the step; `None` without targets.
    """

    loss: jax.Array
    distillation_loss: jax.Array
    soft_decisions: jax.Array | None


class Learner(NamedTuple):
    """How ONE device learns; nothing in it knows of other devices.

    Attributes:
      init: `(key) → Device`.
      step: `(key, device, (x [B, …], y [B]), reference [b, …], targets [b, K]) → (Device, StepInfo)`, one optimizer
        step; reference and targets are `None` when the device learns from its private data alone.
      predict: `(device, x [B, …]) → [B, K]` soft decisions: points of the simplex.
    """

    init: Callable[[jax.Array], Device]
    step: Callable[..., tuple[Device, StepInfo]]
    predict: Callable[[Device, jax.Array], jax.Array]


class Mixer(NamedTuple):
    """How what the devices hold is combined over the network.

    Attributes:
      init: `(x) → state`, for `x` a pytree whose leaves are `[N, …]`.
      mix: `(key, x, state, mixing_matrix [N, N]) → (x, state, sent [N])` with `sent` the messages each device sent.
      message_bytes: `(x) → int`, the bytes of one message, from the shapes and dtypes of `x`.
    """

    init: Callable[[PyTree], PyTree]
    mix: Callable[..., tuple[PyTree, PyTree, jax.Array]]
    message_bytes: Callable[[PyTree], int]


class Info(NamedTuple):
    """What a reader wants to know of one round; each `[N]`, losses averaged over the local steps."""

    loss: jax.Array
    distillation_loss: jax.Array
    messages: jax.Array


class Algorithm(NamedTuple):
    """A whole system, as pure functions over all devices at once.

    Attributes:
      init: `(key, problem) → state`; a state has at least the fields `round` (`[]`, rounds done) and `devices`.
      round: `(key, state, problem) → (state, Info)`; `key` is this round's own.
      predict: `(state, x [B, …]) → [N, B, K]` soft decisions of every device.
      message_bytes: `(problem) → int`, the exact bytes of one message.
    """

    init: Callable[[jax.Array, Problem], Any]
    round: Callable[[jax.Array, Any, Problem], tuple[Any, Info]]
    predict: Callable[[Any, jax.Array], jax.Array]
    message_bytes: Callable[[Problem], int]
