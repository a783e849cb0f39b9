"""Models of token ids."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ddjax.models.dense import Dense
from ddjax.models.layers import token_ids
from ddjax.models.registry import MODELS, Activation, ModelEntry
from ddjax.types import working_dtype

_BUCKETS, _WIDTH, _HEADS = 4096, 64, 4


class _Tokens(nnx.Module):
    """Embeddings of hashed token ids; the id 0 means that there is no token."""

    def __init__(self, rngs: nnx.Rngs):
        table = jax.random.normal(rngs.params(), (_BUCKETS, _WIDTH), working_dtype())
        self.table = nnx.Param(table)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return embeddings `[B, L, 64]`, and a mask `[B, L, 1]` that is 1 where there is a token."""
        x = token_ids(x)
        there = (x > 0)[..., None].astype(working_dtype())
        return self.table[...][x % _BUCKETS] * there, there


class EmbeddingBag(nnx.Module):
    """Linear layer, applied to the sum of the token embeddings divided by the square root of the number of tokens.

    The order of the tokens does not matter, as in the model of Joulin et al. (EACL 2017), which uses the mean of the
    embeddings.
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        self.tokens = _Tokens(rngs)
        self.out = Dense(_WIDTH, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map token ids `[B, L]` to outputs `[B, K]`."""
        embedded, there = self.tokens(x)
        return self.out(embedded.sum(1) / jnp.sqrt(jnp.maximum(there.sum(1), 1)))


class Transformer(nnx.Module):
    """One pre-norm block of a transformer (Vaswani et al. 2017), mean pooling over tokens, and a linear layer.

    The block has 64 features and 4 heads.
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int, activation: Activation, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, param_dtype=working_dtype(), rngs=rngs)
        norm = partial(nnx.LayerNorm, _WIDTH, param_dtype=working_dtype(), rngs=rngs)
        self.tokens = _Tokens(rngs)
        places = 0.5 * jax.random.normal(rngs.params(), (*input_shape, _WIDTH), working_dtype())
        self.places = nnx.Param(places)
        self.first, self.second, self.last = norm(), norm(), norm()
        self.attend, self.attended = linear(_WIDTH, 3 * _WIDTH), linear(_WIDTH, _WIDTH)
        self.hidden, self.shrink = linear(_WIDTH, 2 * _WIDTH), linear(2 * _WIDTH, _WIDTH)
        self.out = Dense(_WIDTH, outputs, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map token ids `[B, L]` to outputs `[B, K]`."""
        embedded, there = self.tokens(x)
        x = embedded + self.places[...] * there
        x = x + self.attended(self._attention(self.first(x), there))
        x = x + self.shrink(self.activation(self.hidden(self.second(x))))
        pooled = (self.last(x) * there).sum(1) / jnp.maximum(there.sum(1), 1)
        return self.out(pooled)

    def _attention(self, x: jax.Array, there: jax.Array) -> jax.Array:
        b, length, _ = x.shape
        heads = self.attend(x).reshape(b, length, 3, _HEADS, _WIDTH // _HEADS)
        query, key, value = (heads[:, :, part] for part in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(_WIDTH // _HEADS)
        weights = jax.nn.softmax(jnp.where(there[:, None, None, :, 0] > 0, scores, -1e9))
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(b, length, _WIDTH)


MODELS.add(ModelEntry("embedding_bag", EmbeddingBag, tokens=True))
MODELS.add(ModelEntry("transformer", Transformer, tokens=True))
