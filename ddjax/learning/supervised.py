"""Supervised learning with distillation on one device; only this module defines the loss of a learner."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ddjax.errors import InputError, check_number
from ddjax.learning import losses, tasks
from ddjax.learning.tasks import infer_task
from ddjax.types import Device, Learner, PyTree, StepInfo

# Below this temperature, softmax is nearly a step function, whose gradient vanishes or overflows.
LEAST_TEMPERATURE = 0.01
# Least share of a class in the prior adjustment, because a device may hold no example of that class.
LEAST_SHARE = 1e-3


def supervised_learner(
    model: Callable[[nnx.Rngs], nnx.Module],
    optimizer: optax.GradientTransformation,
    *,
    task: tasks.Task = tasks.CLASSIFICATION,
    distillation_weight: float = 0.0,
    divergence: losses.Divergence | None = None,
    temperature: float = 1.0,
    prior_adjustment: float = 0.0,
    micro_batch: int = 0,
) -> Learner:
    """Make a learner that minimizes the distillation-regularized loss of Bistritz, Mann, Bambos (NeurIPS 2020).

    `L_n(θ_n; z_n) = E_{(x, y) ~ D_n} loss(f(θ_n, x), y) + ρ · mean_{x ∈ X_r} D(s_n(x), z_n(x))`.

    In classification the loss is `−log softmax(f)_y` and `s_n(x) = softmax(f(θ_n, x) / T)`; in regression it is
    `‖f − y‖²` and `s_n(x) = f(θ_n, x)`.

    Args:
      model: constructor of an NNX module `[B, …] → [B, K]`, whose only state is its parameters.
      optimizer: optimizer that is applied to the gradient of this loss.
      task: `CLASSIFICATION` or `REGRESSION`; `infer_task(problem.y)` finds it.
      distillation_weight: `ρ`, without the factor `T²` that Hinton, Vinyals, Dean (2015) advise.
      divergence: `D`, such as `task.divergence("kl")`; the squared distance by default.
      temperature: `T`, for the soft decisions that are sent and for those that are compared with a target; only for
        classification.
      prior_adjustment: `τ`. The private loss uses the outputs `f + τ log π_n`, where `π_n` are the shares of the
        classes among the examples of device `n` (Menon et al., ICLR 2021, equation 10; with `τ = 1` the balanced
        softmax of Ren et al., NeurIPS 2020). This keeps a device from learning that the classes it lacks are rare. Only
        for classification.
      micro_batch: number of examples in one forward and backward pass, so that the activations of a deep model stay in
        cache; 0 for all examples. The gradient is the sum over all passes.

    Raises:
      InputError: a number is out of bounds, or a temperature or a prior adjustment is given for regression.

    Examples:
      >>> learner = ddjax.supervised_learner(model, optax.sgd(0.05), distillation_weight=10.0)
      >>> device = learner.init(jax.random.key(0))
      >>> decisions = learner.predict(device, problem.reference[:4])
      >>> decisions.shape, [round(float(total), 3) for total in decisions.sum(axis=1)]
      ((4, 10), [1.0, 1.0, 1.0, 1.0])
    """
    if task is tasks.REGRESSION and prior_adjustment:
        raise InputError(
            f"prior_adjustment={prior_adjustment:g} is only for classification, but the task is regression"
        )
    if task is tasks.REGRESSION and isinstance(temperature, int | float) and temperature != 1:
        raise InputError(f"temperature={temperature:g} is only for classification, but the task is regression")
    check_number("distillation_weight", distillation_weight)
    check_number("temperature", temperature, LEAST_TEMPERATURE)
    check_number("prior_adjustment", prior_adjustment)
    check_number("micro_batch", micro_batch)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: model(nnx.Rngs(0))))

    divergence = divergence or task.divergence("squared_euclidean")

    def outputs(params: PyTree, x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, nnx.State(params))(x)

    def restart(params: PyTree) -> Device:
        return Device(params, optimizer.init(params))

    def init(key: jax.Array) -> Device:
        return restart(nnx.to_pure_dict(nnx.split(model(nnx.Rngs(key)))[1]))

    def private_loss(batch: tuple) -> Callable:
        """Make the private loss on a minibatch, in the form that `in_parts` takes."""
        shift: Any = 0.0
        if prior_adjustment:
            if len(batch) < 4:
                raise ValueError("a learner with a prior adjustment needs the shares of the classes on its device")
            shift = prior_adjustment * jnp.log(jnp.maximum(batch[3], LEAST_SHARE))

        def private(params: PyTree, x: jax.Array, y: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
            return (task.loss(outputs(params, x) + shift, y) * share).sum(), None

        return private

    def distilled(params: PyTree, x: jax.Array, z: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array]:
        compared, s = task.compared(outputs(params, x), temperature)
        return (divergence(compared, z) * share).sum(), s

    def examples(batch: tuple) -> tuple[jax.Array, ...]:
        x, y, weight = batch[:3]
        if infer_task(y) is not task:
            raise ValueError(f"a learner whose metric is {task.metric} was given targets of dtype {y.dtype}")
        share = jnp.ones(x.shape[0]) if weight is None else weight
        return x, y, share / share.sum()

    def shares(reference: jax.Array, known: jax.Array | None = None) -> jax.Array:
        if known is None:
            return jnp.full(reference.shape[0], 1 / reference.shape[0])
        return known / jnp.maximum(known.sum(), 1)

    def gradient(
        key: jax.Array, params: PyTree, batch, reference=None, targets=None, known=None
    ) -> tuple[PyTree, StepInfo]:
        del key  # for learners with dropout or noise
        (loss, _), gradients = in_parts(private_loss(batch), micro_batch, params, *examples(batch))
        if targets is None:
            return gradients, StepInfo(loss, jnp.zeros_like(loss), None)
        # The reference minibatch has a separate pass. All devices share this minibatch, so under `vmap` one matrix
        # product serves all devices.
        public = reference, targets, shares(reference, known)
        (distance, s), pull = in_parts(distilled, micro_batch, params, *public)
        gradients = jax.tree.map(lambda own, pull: own + distillation_weight * pull, gradients, pull)
        return gradients, StepInfo(loss, distance, s)

    def update(device: Device, gradients: PyTree) -> Device:
        updates, state = optimizer.update(gradients, device.optimizer, device.params)
        return Device(optax.apply_updates(device.params, updates), state)

    def objective(params: PyTree, batch, reference=None, targets=None) -> jax.Array:
        loss, _ = private_loss(batch)(params, *examples(batch))
        if targets is None:
            return loss
        return loss + distillation_weight * distilled(params, reference, targets, shares(reference))[0]

    def predict(device: Device, x: jax.Array) -> jax.Array:
        return task.decision(outputs(device.params, x), temperature)

    def follow(
        compare: losses.Divergence, params: PyTree, x: jax.Array, targets: jax.Array, share: jax.Array
    ) -> tuple[PyTree, jax.Array]:
        def loss(params: PyTree, x: jax.Array, targets: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
            return (compare(outputs(params, x), targets) * share).sum(), None

        (value, _), gradients = in_parts(loss, micro_batch, params, x, targets, share)
        return gradients, value

    return Learner(init, restart, gradient, update, predict, objective, task, outputs, follow, prior_adjustment > 0)


def in_parts(loss: Callable, size: int, params: PyTree, *examples: jax.Array):
    """Compute a sum over examples and its gradient, `size` examples at a time; also return the outputs per example."""
    differentiate = jax.value_and_grad(loss, has_aux=True)
    count = examples[0].shape[0]
    if not 0 < size < count:
        return differentiate(params, *examples)

    def part(total: PyTree, examples: tuple[jax.Array, ...]):
        (value, outputs), gradient = differentiate(params, *examples)
        return jax.tree.map(jnp.add, total, (value, gradient)), outputs

    # Pad with zeros, so that the padding has the share 0 and adds nothing to the sum.
    padded = [jnp.pad(e, [(0, -count % size)] + [(0, 0)] * (e.ndim - 1)) for e in examples]
    parts = tuple(e.reshape(-1, size, *e.shape[1:]) for e in padded)
    nothing = jnp.zeros((), examples[-1].dtype), jax.tree.map(jnp.zeros_like, params)
    (value, gradient), outputs = jax.lax.scan(part, nothing, parts)
    return (value, jax.tree.map(lambda o: o.reshape(-1, *o.shape[2:])[:count], outputs)), gradient
