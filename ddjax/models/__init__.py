"""Models: Flax NNX modules that map inputs `[B, …]` to outputs `[B, K]`. Each file has one kind of architecture."""

# The help text lists the models in the order of these imports.
# isort: off
from ddjax.models import linear, mlp, cnn, resnet, text

# isort: on
from ddjax.models.build import CONVOLUTIONS, build_model, micro_batch_for, parse_models
from ddjax.models.dense import Dense
from ddjax.models.layers import numbers, token_ids
from ddjax.models.registry import ACTIVATIONS, MODELS, Activation, ModelEntry
from ddjax.models.views import view_range

__all__ = [
    "ACTIVATIONS",
    "CONVOLUTIONS",
    "MODELS",
    "Activation",
    "Dense",
    "ModelEntry",
    "build_model",
    "cnn",
    "linear",
    "micro_batch_for",
    "mlp",
    "numbers",
    "parse_models",
    "resnet",
    "text",
    "token_ids",
    "view_range",
]
