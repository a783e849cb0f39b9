"""Models by name, ready to be initialized."""

from collections.abc import Callable

import jax
from flax import nnx
from jax import lax

from ddjax.errors import InputError, suggest
from ddjax.models import convolution as products
from ddjax.models.registry import ACTIVATIONS, MODELS

CONVOLUTIONS: dict[str, Callable] = {
    "products": products.conv_general_dilated,
    "native": lax.conv_general_dilated,
}


def build_model(
    name: str, input_shape: tuple[int, ...], outputs: int, activation: str = "gelu", convolution: str = ""
) -> Callable[[nnx.Rngs], nnx.Module]:
    """A constructor of the named architecture.

    Args:
      name: of a model in `MODELS`.
      input_shape: of one example, without a batch axis.
      outputs: `K`, classes or numbers to predict.
      activation: a name of `ACTIVATIONS`; GELU by default, as the convergence proof wants smooth models.
      convolution: a key of `CONVOLUTIONS`; by default what is quicker on this backend for stacked kernels.

    Raises:
      InputError: an unknown name, or an input shape the model cannot take.
    """
    entry, function = MODELS[name], ACTIVATIONS.parse(activation).build()
    convolution = convolution or ("products" if jax.default_backend() == "cpu" else "native")
    if convolution not in CONVOLUTIONS:
        raise suggest("convolution", convolution, CONVOLUTIONS)

    entry.check(input_shape)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        module = entry.build(input_shape, outputs, function, rngs)
        for _, layer in nnx.iter_modules(module):
            if isinstance(layer, nnx.Conv):
                layer.conv_general_dilated = CONVOLUTIONS[convolution]
        return module

    return build


def micro_batch_for(name: str) -> int:
    """The number of examples that a model takes at a time on this backend, a learner's `micro_batch`; measured."""
    return 8 if MODELS[name].convolutional and jax.default_backend() == "cpu" else 0


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
