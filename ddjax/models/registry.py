"""Registries of models and activation functions."""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from ddjax.errors import InputError
from ddjax.registry import Entry, Registry

Activation = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class ModelEntry(Entry):
    """Entry for a model architecture.

    `build` is `(input_shape, outputs, activation, rngs) → nnx.Module`. The module maps inputs `[B, …]` to logits or
    predicted numbers `[B, K]`. The parameters are the only state of the module.

    Attributes:
      check: function of `input_shape` that raises `InputError` for inputs that the model cannot take.
      convolutional: whether the model has convolutions; ddjax picks other forms of execution for such a model.
      tokens: whether the model takes integer token ids instead of numbers.
      on_tokens: function that replaces `build` if the inputs are token ids, for a model that takes both token ids and
        numbers; `None` for other models.
    """

    check: Callable[[tuple[int, ...]], object] = tuple
    convolutional: bool = False
    tokens: bool = False
    on_tokens: Callable | None = None

    def __post_init__(self) -> None:
        if self.arguments:
            raise InputError(
                f"model {self.name!r} cannot have arguments, because the text after the colon is a number of "
                "devices, as in mlp:16"
            )


MODELS: Registry[ModelEntry] = Registry("model")
ACTIVATIONS: Registry[Entry] = Registry("activation")

for _function in (nnx.elu, nnx.gelu, nnx.relu, nnx.sigmoid, nnx.silu, nnx.softplus, nnx.tanh):
    ACTIVATIONS.add(Entry(_function.__name__, lambda function=_function: function))
