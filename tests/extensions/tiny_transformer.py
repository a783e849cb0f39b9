"""A small transformer on token ids, and a data set that asks for their order: a user's file, for `--include`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddjax.data import DATASETS, Dataset, DatasetEntry
from ddjax.models import MODELS, ModelEntry, token_ids
from ddjax.registry import Argument, whole
from ddjax.types import working_dtype

VOCABULARY, WIDTH = 12, 16


class TinyTransformer(nnx.Module):
    """Embeddings of tokens and places, one block of self-attention, mean pool."""

    def __init__(self, input_shape, outputs, activation, rngs):
        normal, linear = nnx.initializers.normal(0.5), partial(nnx.Linear, param_dtype=working_dtype(), rngs=rngs)
        self.tokens = nnx.Param(normal(rngs.params(), (VOCABULARY, WIDTH), working_dtype()))
        self.places = nnx.Param(normal(rngs.params(), (*input_shape, WIDTH), working_dtype()))
        self.query, self.key, self.value = (linear(WIDTH, WIDTH) for _ in range(3))
        self.hidden, self.out = linear(WIDTH, 2 * WIDTH), linear(2 * WIDTH, outputs)
        self.activation = activation

    def __call__(self, x):
        x = self.tokens[...][token_ids(x)] + self.places[...]
        scores = jnp.einsum("bqd,bkd->bqk", self.query(x), self.key(x)) / WIDTH**0.5
        x = x + jax.nn.softmax(scores) @ self.value(x)
        return self.out(self.activation(self.hidden(x)).mean(1))


class OneHot(nnx.Module):
    """A model of numbers on the one-hot codes of the tokens."""

    def __init__(self, name, input_shape, outputs, activation, rngs):
        self.model = MODELS[name].build((*input_shape, VOCABULARY), outputs, activation, rngs)

    def __call__(self, x):
        return self.model(jax.nn.one_hot(token_ids(x), VOCABULARY))


def token_order(wanted, length=6):
    """Sequences that hold the tokens 0 and 1 once each; the label says whether 0 comes first."""
    rng, train, count = np.random.default_rng(wanted.seed), wanted.train, wanted.train + 1000
    x = rng.integers(2, VOCABULARY, (count, length))
    places = rng.permuted(np.tile(np.arange(length), (count, 1)), axis=1)[:, :2]
    np.put_along_axis(x, places, np.array([0, 1]), 1)
    y = (places[:, 0] < places[:, 1]).astype(np.int32)
    return Dataset(x[:train], y[:train], x[train:], y[train:], 2, tokens=True)


MODELS.add(ModelEntry("tiny_transformer", TinyTransformer, tokens=True))
MODELS.add(ModelEntry("one_hot_linear", partial(OneHot, "linear"), tokens=True))
MODELS.add(ModelEntry("one_hot_mlp", partial(OneHot, "mlp"), tokens=True))
DATASETS.add(DatasetEntry("token_order", token_order, (Argument("LENGTH", whole(2), optional=True),)))
