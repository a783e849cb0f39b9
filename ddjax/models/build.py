"""Construction of models by name."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import lax

from ddjax import forms, sharding
from ddjax.errors import InputError, suggest
from ddjax.models import convolution as products
from ddjax.models.registry import ACTIVATIONS, MODELS
from ddjax.models.views import OnView, view_range, view_shape

CONVOLUTIONS: dict[str, Callable] = {
    "products": products.conv_general_dilated,
    "native": lax.conv_general_dilated,
}


def build_model(
    name: str,
    input_shape: tuple[int, ...],
    outputs: int,
    activation: str = "gelu",
    convolution: str = "",
    tokens: bool = False,
    view: tuple[int, int] = (0, 1),
) -> Callable[[nnx.Rngs], nnx.Module]:
    """Return a function that constructs models with the architecture `name`.

    Args:
      name: name of a model in `MODELS`.
      input_shape: shape of one example, without a batch axis.
      outputs: number `K` of classes, or of numbers to predict.
      activation: name in `ACTIVATIONS`; GELU by default, because the convergence proof needs smooth models.
      convolution: key in `CONVOLUTIONS`; empty for the key that `forms.convolution` chooses for the backend.
      tokens: whether inputs are token ids, `[L]` integers.
      view: pair `(number, views)`: the columns are divided into `views` parts, and the model sees only the part
        `number`, counted from 0 (see `views.OnView`).

    Raises:
      InputError: a name is unknown, or the model cannot take inputs of this kind or shape.

    Examples:
      >>> import jax
      >>> from flax import nnx
      >>> from ddjax.models import build_model
      >>> make = build_model("linear", input_shape=(28, 28), outputs=10)
      >>> jax.eval_shape(lambda x: make(nnx.Rngs(0))(x), jax.numpy.zeros((5, 28, 28))).shape
      (5, 10)
    """
    entry, function = MODELS[name], ACTIVATIONS.parse(activation).build()
    if convolution and convolution not in CONVOLUTIONS:
        raise suggest("convolution", convolution, CONVOLUTIONS)

    make, whole = entry.build, input_shape
    if view != (0, 1):
        if tokens:
            raise InputError("token ids have no columns for feature views to select; leave out --feature_views")
        input_shape = view_shape(whole, *view)
    if tokens and not entry.tokens:
        if entry.on_tokens is None:
            takers = [each.name for each in MODELS.entries() if each.tokens or each.on_tokens]
            raise InputError(f"model {name!r} takes no token ids; models that take token ids: {', '.join(takers)}")
        make = entry.on_tokens
    else:
        entry.check(input_shape)

    def convolve(*arguments: Any, **options: Any) -> jax.Array:
        return CONVOLUTIONS[convolution or forms.convolution(sharding.platform())](*arguments, **options)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        def model(rngs: nnx.Rngs) -> nnx.Module:
            return make(input_shape, outputs, function, rngs)

        module = model(rngs) if view == (0, 1) else OnView(model, *view_range(whole, *view), rngs)
        for _, layer in nnx.iter_modules(module):
            if isinstance(layer, nnx.Conv):
                layer.conv_general_dilated = convolve
        return module

    return build


def micro_batch_for(name: str) -> int:
    """Return the number of examples that a model processes at a time on the backend of the ambient mesh; 0 for all.

    Pass this number to a learner as `micro_batch`.

    Examples:
      >>> from ddjax.models import micro_batch_for
      >>> micro_batch_for("cnn") > 0
      True
    """
    return forms.micro_batch(sharding.platform(), MODELS[name].convolutional)


def parse_models(spec: str, devices: int) -> list[tuple[str, int]]:
    """Parse the number of devices for each model, as in `linear:8+mlp:4`.

    If there is a single name without a number, all devices have this model.

    Raises:
      InputError: a model is unknown, a number is malformed, or the numbers do not add up to `devices`.

    Examples:
      >>> from ddjax.models import parse_models
      >>> parse_models("linear:8+mlp:4", devices=12)
      [('linear', 8), ('mlp', 4)]
      >>> parse_models("cnn", devices=12)
      [('cnn', 12)]
    """
    groups = []
    for part in spec.split("+"):
        name, _, count = part.partition(":")
        MODELS[name]  # raises for an unknown name
        if (count or "+" in spec) and (not count.isdecimal() or int(count) < 1):
            raise InputError(f"models {spec!r}: {part!r} needs a number of devices, as in 'linear:8+mlp:4'")
        groups.append((name, int(count or devices)))
    total = sum(count for _, count in groups)
    if total != devices:
        raise InputError(f"models {spec!r} need {total} devices, but there are {devices}")
    return groups
