"""Checks of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ddjax.learning import supervised_learner
from ddjax.models import MODELS, build_model
from ddjax.testing.base import close, in_double_precision
from ddjax.types import Device

_EXAMPLES, _OUTPUTS, _DEVICES = 6, 3, 2


def check_model(name: str, input_shape: tuple[int, ...], *, tokens: int | None = None) -> None:
    """Check a registered model.

    The model must map `[B, …]` to `[B, K]`, and its only state must be its parameters. Every parameter must have a
    finite gradient that is not zero everywhere. The model must treat each example independently. Its numbers must be
    the same whether it is compiled or not, and whether devices are computed in a stack or one at a time. In double
    precision, all its numbers must be float64.

    Args:
      name: name of the model.
      input_shape: shape of one example.
      tokens: number of token ids, or 0 to check the model on numbers; by default 5 if the model takes only tokens,
        otherwise 0.

    Raises:
      AssertionError: a check fails; the message says what is wrong.
      InputError: the name is unknown, or the model refuses the shape.

    Examples:
      >>> check_model("linear", (8, 8))
    """
    if tokens is None:
        tokens = 5 if MODELS[name].tokens else 0
    model = build_model(name, input_shape, _OUTPUTS, tokens=tokens > 0)
    learner = supervised_learner(model, optax.sgd(0.1))
    state = nnx.state(model(nnx.Rngs(0)))
    params, rest = nnx.split_state(state, nnx.Param, ...)
    assert not jax.tree.leaves(rest), f"model {name!r} has state besides its parameters: {rest}"
    assert jax.tree.leaves(params), f"model {name!r} has no parameters"
    x, device = _inputs(input_shape, tokens), jax.jit(learner.init)(jax.random.key(0))
    predict, gradient = jax.jit(learner.predict), jax.jit(learner.gradient)
    out = predict(device, x)
    assert out.shape == (_EXAMPLES, _OUTPUTS), f"model {name!r} gives shape {out.shape}, not {(_EXAMPLES, _OUTPUTS)}"
    close(out, learner.predict(device, x), "compiled or not")
    close(jnp.concatenate([predict(device, x[i : i + 1]) for i in range(_EXAMPLES)]), out, "example by example")
    y = jnp.arange(_EXAMPLES) % _OUTPUTS
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(None, device.params, (x, y, None))[0]):
        where = f"model {name!r}: the gradient of {jax.tree_util.keystr(path)}"
        assert np.isfinite(leaf).all(), f"{where} is not finite"
        assert np.any(leaf != 0), f"{where} is zero, so this parameter is not used"
    stacked = jax.jit(jax.vmap(learner.init))(jax.random.split(jax.random.key(1), _DEVICES))
    each = [predict(_take(stacked, n), x) for n in range(_DEVICES)]
    together = jax.jit(jax.vmap(learner.predict, (0, None)))(stacked, x)
    close(together, jnp.stack(each), "stacked or device by device")
    with jax.enable_x64(True):
        wide = supervised_learner(model, optax.sgd(0.1))
        device = jax.jit(wide.init)(jax.random.key(0))
        out = jax.jit(wide.predict)(device, _inputs(input_shape, tokens))
        in_double_precision((device.params, out), f"model {name!r}")


def _inputs(input_shape: tuple[int, ...], tokens: int) -> jax.Array:
    shape = (_EXAMPLES, *input_shape)
    if tokens:
        return jax.random.randint(jax.random.key(2), shape, 0, tokens)
    return jax.random.normal(jax.random.key(2), shape)


def _take(stacked: Device, n: int) -> Device:
    return jax.tree.map(lambda leaf: leaf[n], stacked)
