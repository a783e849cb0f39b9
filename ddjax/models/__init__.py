"""Models: Flax NNX modules from `[B, …]` to `[B, K]`, one architecture a file."""

from ddjax.models import cnn, linear, mlp, resnet
from ddjax.models.build import CONVOLUTIONS, build_model, micro_batch_for, parse_models
from ddjax.models.dense import Dense
from ddjax.models.registry import ACTIVATIONS, MODELS, Activation, ModelEntry

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
    "parse_models",
    "resnet",
]
