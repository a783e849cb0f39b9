"""One device's supervised learning with distillation: the only place that knows a loss."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ddjax import losses
from ddjax.types import Device, Learner, PyTree, StepInfo, suggest

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

    def restart(params: PyTree) -> Device:
        return Device(params, optimizer.init(params))

    def init(key: jax.Array) -> Device:
        return restart(nnx.to_pure_dict(nnx.split(model(nnx.Rngs(key)))[1]))

    def objective(params: PyTree, x, y, weight, reference, targets) -> tuple[jax.Array, StepInfo]:
        if targets is None:
            loss = _mean(losses.softmax_cross_entropy(logits(params, x), y), weight)
            return loss, StepInfo(loss, jnp.zeros_like(loss), None)
        # One pass over both minibatches: wider products, half the kernels.
        out = logits(params, jnp.concatenate([x, reference]))
        loss = _mean(losses.softmax_cross_entropy(out[: x.shape[0]], y), weight)
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

    return Learner(init, restart, step, predict)


def _mean(losses: jax.Array, weight: jax.Array | None) -> jax.Array:
    return losses.mean() if weight is None else (losses * weight).sum() / weight.sum()
