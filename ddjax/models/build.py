"""Models by name, ready to be initialized."""

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
    """A constructor of the named architecture.

    Args:
      name: of a model in `MODELS`.
      input_shape: of one example, without a batch axis.
      outputs: `K`, classes or numbers to predict.
      activation: a name of `ACTIVATIONS`; GELU by default, as the convergence proof wants smooth models.
      convolution: a key of `CONVOLUTIONS`; by default what `forms.convolution` picks for the backend.
      tokens: whether inputs are token ids, `[L]` integers.
      view: the number of the part of the columns that the model sees, and how many parts there are; see `views.OnView`.

    Raises:
      InputError: an unknown name, or inputs that the model cannot take.
    """
    entry, function = MODELS[name], ACTIVATIONS.parse(activation).build()
    if convolution and convolution not in CONVOLUTIONS:
        raise suggest("convolution", convolution, CONVOLUTIONS)

    make, whole = entry.build, input_shape
    if view != (0, 1):
        if tokens:
            raise InputError("token ids have no columns to see a part of; --feature_views is for numbers")
        input_shape = view_shape(whole, *view)
    if tokens and not entry.tokens:
        if entry.on_tokens is None:
            takers = [each.name for each in MODELS.entries() if each.tokens or each.on_tokens]
            raise InputError(f"model {name!r} takes no token ids; models that do: {', '.join(takers)}")
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
    """The number of examples that a model takes at a time, a learner's `micro_batch`, on the ambient mesh's backend."""
    return forms.micro_batch(sharding.platform(), MODELS[name].convolutional)


def parse_models(spec: str, devices: int) -> list[tuple[str, int]]:
    """`linear:8+mlp:4` → `[("linear", 8), ("mlp", 4)]`; a single name without a count takes all devices.

    Raises:
      InputError: an unknown model, a bad count, or counts that do not add up to `devices`.
    """
    groups = []
    for part in spec.split("+"):
        name, _, count = part.partition(":")
        MODELS[name]  # is it known?
        if (count or "+" in spec) and (not count.isdecimal() or int(count) < 1):
            raise InputError(f"models {spec!r}: {part!r} needs a count of devices, as in 'linear:8+mlp:4'")
        groups.append((name, int(count or devices)))
    total = sum(count for _, count in groups)
    if total != devices:
        raise InputError(f"models {spec!r} are {total} devices, but there are {devices}")
    return groups
