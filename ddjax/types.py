"""The few types that every layer uses: problem, learner, mixer and algorithm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

PyTree = Any


def working_dtype() -> np.dtype:
    """Return the dtype of all floating-point arrays of a run: float32, or float64 if `jax_enable_x64` is set."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


class Problem(NamedTuple):
    """Data from which the devices learn; an argument of every jitted function, never a captured constant.

    There are `N` devices, `M` private examples in all, `R` reference examples and `T` test examples; an input has shape
    `[…]`. All floating-point arrays have the `working_dtype`.

    Attributes:
      x: `[M, …]` private inputs of all devices, pooled.
      y: `[M]` labels, integers in `[0, K)`, or `[M, K]` floating-point numbers to predict.
      private_indices: `[N, n_max]` rows of `x` that device `n` holds, padded on the right.
      private_counts: `[N]` number of rows that each device holds, which may differ between devices; the other
        entries of `private_indices` are padding.
      reference: `[R, …]` inputs of the public reference set.
      network: a `networks.Network`: a mixing matrix `W`, in which `W[n, m]` is the weight that device `n` gives to the
        values it receives from `m`, or a network that changes from round to round.
      x_test: `[T, …]` test inputs, held by no device.
      y_test: `[T]` or `[T, K]` targets of the test inputs.
      known: `[N, R]` bool, the reference examples that device `n` has; `None` if each device has all examples.
      reference_labels: `[R]` or `[R, K]` targets of the reference examples, for an algorithm that learns from them;
        otherwise `None`, so that no algorithm can see them by mistake.
    """

    x: jax.Array
    y: jax.Array
    private_indices: jax.Array
    private_counts: jax.Array
    reference: jax.Array
    network: Any
    x_test: jax.Array
    y_test: jax.Array
    known: jax.Array | None = None
    reference_labels: jax.Array | None = None


class Device(NamedTuple):
    """State that one device keeps between steps; when stacked, every leaf has a leading device axis."""

    params: PyTree
    optimizer: PyTree


class StepInfo(NamedTuple):
    """Report of a local step, measured before the step.

    Attributes:
      loss: `[]` private loss.
      distillation_loss: `[]` mean divergence from the targets (without its weight `ρ`).
      soft_decisions: `[b, K]` soft decisions on the reference minibatch; `None` without targets.
    """

    loss: jax.Array
    distillation_loss: jax.Array
    soft_decisions: jax.Array | None


class Learner(NamedTuple):
    """Functions with which ONE device learns; none of them depends on other devices.

    A minibatch is `(x [B, …], y [B], weight [B])`; `weight` is `None` if all examples have the same weight. If
    `adjusts` is true, a minibatch has a fourth part: `shares [K]`, the shares of the classes on the device. Reference
    examples `[b, …]` and targets `[b, K]` are `None` if the device learns only from its private data. `known` `[b]` is
    passed only if the device lacks some of the reference examples, which are then left out of the loss.

    Attributes:
      init: `(key) → Device`.
      restart: `(params) → Device`, with a fresh optimizer.
      gradient: `(key, params, minibatch, reference, targets[, known]) → (gradient, StepInfo)`, the gradient of the loss
        at `params`.
      update: `(device, gradient) → Device`, one optimizer step.
      predict: `(device, x [B, …]) → [B, K]` soft decisions: points of the simplex, or the predicted numbers.
      objective: `(params, minibatch, reference, targets) → []`, the loss whose gradient `gradient` computes.
      task: the `learning.tasks.Task` of the learner.
      outputs: `(params, x [B, …]) → [B, K]` outputs from which soft decisions are computed: logits, or the predicted
        numbers.
      follow: `(compare, params, x [B, …], targets [B, …], share [B]) → (gradient, loss [])`, where the loss is the sum
        over examples of `share · compare(outputs, targets)`.
      adjusts: whether the private loss depends on the classes that the device holds.
    """

    init: Callable[[jax.Array], Device]
    restart: Callable[[PyTree], Device]
    gradient: Callable[..., tuple[PyTree, StepInfo]]
    update: Callable[[Device, PyTree], Device]
    predict: Callable[[Device, jax.Array], jax.Array]
    objective: Callable[..., jax.Array]
    task: Any
    outputs: Callable[[PyTree, jax.Array], jax.Array]
    follow: Callable[..., tuple[PyTree, jax.Array]]
    adjusts: bool = False


class Traffic(NamedTuple):
    """Messages by direction, then by kind: counts in one round, or (in the same structure) bytes per message.

    Attributes:
      peer: from device to device, by link: `[N, N]` counts with the receiver as row and the sender as column, as in
        `W`, or `[E]` if the network is `networks.Links`.
      up: from a device to the server, `[N]`.
      down: from the server to a device, `[N]`.
    """

    peer: dict[str, Any] = {}  # noqa: RUF012 (never written to)
    up: dict[str, Any] = {}  # noqa: RUF012
    down: dict[str, Any] = {}  # noqa: RUF012


class MixerState(NamedTuple):
    """Memory of a mixer.

    Attributes:
      rows: a pytree whose leaves begin with the `leading` axes of `x`; distillation passes only the entries for the
        reference rows of a round to the mixer, and then puts them back, so that mixers need not know which rows were
        drawn.
      rest: everything that does not belong to rows.
    """

    rows: PyTree = ()
    rest: PyTree = ()


class Mixer(NamedTuple):
    """Rule by which the values that devices hold are combined over the network.

    `x` is a pytree whose leaves are `[N, …]`. For soft decisions, the second axis is over reference examples (`leading`
    is 2); for parameters, there is no such axis (`leading` is 1). Values that a mixer keeps for each device or row
    begin with the same `leading` axes.

    Attributes:
      init: `(x, leading) → MixerState`.
      mix: `(key, x, MixerState, NetworkRound) → (x, MixerState, Traffic)`.
      message_bytes: `(x, leading) → Traffic` of ints, from the shapes and dtypes of `x`.
      name: name of the mixer in error messages.
      weights: requirement on `W`: `doubly`, `column` or `row` stochastic, or `links` if weights do not matter. A doubly
        stochastic matrix meets all of these requirements.
      keeps_mean: whether the mixer preserves the mean over devices, which consensus `tracking` requires.
      fixed_graph: whether the mixer needs the same neighbours in every round.
      lossless: whether the mixer needs every message to arrive.
      running: whether `x` must be a running value that is mixed again and again, rather than a fresh value in each
        round.
      linear: whether mixing is multiplication by `W`, so that the eigenvalues of `W` determine which step sizes are
        stable.
      uses_graph: whether the mixer uses the network at all.
      compressed: whether messages lose information that their sender keeps, as in `mixing.encoded`.
    """

    init: Callable[[PyTree, int], MixerState]
    mix: Callable[..., tuple[PyTree, MixerState, Traffic]]
    message_bytes: Callable[[PyTree, int], Traffic]
    name: str = "this mixing"
    weights: str = "doubly"
    keeps_mean: bool = True
    fixed_graph: bool = False
    lossless: bool = False
    running: bool = False
    linear: bool = False
    uses_graph: bool = True
    compressed: bool = False


class Info(NamedTuple):
    """Report of one round.

    Attributes:
      loss: `[N]` private loss, summed over the optimizer steps that a device took.
      distillation_loss: `[N]` divergence from the targets, summed in the same way.
      steps: `[N]` number of optimizer steps.
      messages: numbers of messages sent.
    """

    loss: jax.Array
    distillation_loss: jax.Array
    steps: jax.Array
    messages: Traffic


class Algorithm(NamedTuple):
    """Complete algorithm, as pure functions on the stacked state of all devices.

    Attributes:
      init: `(key, problem) → state`. A state has at least the field `round` (`[]`, rounds done). If devices have
        several architectures, it also has `devices`, a stacked pytree for each architecture, which determines how
        private examples are spread.
      round: `(key, state, problem) → (state, Info)`; every round has its own `key`.
      predict: `(state, x [B, …]) → [N, B, K]` soft decisions of every device.
      message_bytes: `(problem) → Traffic` of ints, the exact bytes of one message of each kind.
      check: `(problem)`, called on the host by `Simulation`; raises `InputError` for a problem that the algorithm
        cannot handle.
      start: `(state, problem) → state`, called on the host after `init`, for work that cannot be compiled; by default,
        it changes nothing. A compiled program must not call back to the host, because the call would wait for a thread
        that itself waits in a collective operation.
    """

    init: Callable[[jax.Array, Problem], Any]
    round: Callable[[jax.Array, Any, Problem], tuple[Any, Info]]
    predict: Callable[[Any, jax.Array], jax.Array]
    message_bytes: Callable[[Problem], Traffic]
    check: Callable[[Problem], None] = lambda problem: None
    start: Callable[[Any, Problem], Any] = lambda state, problem: state
