"""Models of token ids: hashed n-grams, a bag of embeddings and a transformer."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddjax.errors import InputError
from ddjax.models import build_model
from ddjax.models.ngrams import BUCKETS, hashed_ngrams
from ddjax.models.views import view_range, view_shape

TOKENS = jnp.array([[3, 5, 3, 0, 0], [5, 3, 3, 7, 9], [0, 0, 0, 0, 0]])


def model(name, activation="gelu"):
    return build_model(name, (5,), 4, activation, tokens=True)(nnx.Rngs(0))


def pair(a, b):
    return ((a * 2654435761 + b) * 2246822519 % 2**32) >> 20


def test_ngrams_are_counted_one_by_one():
    expected = np.zeros((3, BUCKETS))
    for row, tokens in zip(expected, TOKENS.tolist(), strict=True):
        words = [token for token in tokens if token]
        found = words + [pair(a, b) for a, b in itertools.pairwise(words)]
        for place in found:
            row[place % BUCKETS] += 1 / len(found) ** 0.5
    np.testing.assert_allclose(hashed_ngrams(TOKENS), expected, rtol=1e-6)


def test_pairs_are_spread_evenly_over_buckets():
    """Of 20,000 pairs each bucket gets 4.9 on average; Poisson, the largest of 4,096 is above 22 once in 10⁵ times."""
    a, b = np.random.default_rng(0).integers(1, 4096, (2, 20_000))
    ids = jnp.stack([jnp.asarray(a), jnp.asarray(b)], 1)
    counts = hashed_ngrams(ids) * jnp.sqrt(3)
    pairs = np.asarray(counts.sum(0)) - np.bincount(np.concatenate([a, b]), minlength=BUCKETS)
    assert pairs.sum() == pytest.approx(20_000, abs=1)
    assert pairs.max() < 22


def test_padding_changes_nothing():
    for name in ("linear", "mlp", "embedding_bag"):
        long = build_model(name, (9,), 4, tokens=True)(nnx.Rngs(0))
        padded = jnp.pad(TOKENS, ((0, 0), (0, 4)))
        np.testing.assert_allclose(long(padded), model(name)(TOKENS), rtol=1e-5, atol=1e-6)


def test_a_transformer_attends_to_no_padding():
    """What stands in the embedding of no token does not matter."""
    one = model("transformer")
    before = one(TOKENS)
    one.tokens.table[...] = one.tokens.table[...].at[0].set(100.0)
    np.testing.assert_allclose(one(TOKENS), before, rtol=1e-5, atol=1e-6)


def test_only_some_models_see_the_order():
    turned = TOKENS[1:2, ::-1]
    for name, sees in (("embedding_bag", False), ("linear", True), ("mlp", True), ("transformer", True)):
        one = model(name)
        assert np.allclose(one(turned), one(TOKENS[1:2]), atol=1e-5) != sees, name


def test_what_takes_no_token_ids_says_what_does():
    with pytest.raises(
        InputError, match=re.escape("'cnn' takes no token ids; models that take token ids: linear, mlp, embedding")
    ):
        build_model("cnn", (5,), 4, tokens=True)


@pytest.mark.parametrize(("shape", "views"), [((7,), 3), ((6, 8), 2), ((6, 9, 3), 4)])
def test_views_cover_the_columns_once(shape, views):
    axis = 0 if len(shape) == 1 else 1
    ranges = [view_range(shape, number, views) for number in range(views)]
    assert [column for begin, end in ranges for column in range(begin, end)] == list(range(shape[axis]))
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    for number, (begin, end) in enumerate(ranges):
        assert view_shape(shape, number, views)[axis] == end - begin
        seen = build_model("linear", shape, 3, view=(number, views))(nnx.Rngs(0))
        other = jax.lax.dynamic_update_slice_in_dim(
            100 * x, jax.lax.slice_in_dim(x, begin, end, axis=axis + 1), begin, axis + 1
        )
        np.testing.assert_allclose(seen(other), seen(x), rtol=1e-6)
    with pytest.raises(InputError, match="feature views need at least as many columns"):
        view_range(shape, 0, 10)
