"""Our convolution against XLA's; sizes of the architectures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from ddjax.errors import InputError
from ddjax.models import build_model, layers, parse_models
from ddjax.models.convolution import conv_general_dilated


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "batch"),
    [
        ((3, 3), (1, 1), "SAME", 4),
        ((5, 5), (1, 1), "SAME", 6),
        ((5, 5), (1, 1), "VALID", 1),
        ((3, 3), (2, 2), "SAME", 5),
        ((1, 1), (2, 2), "SAME", 4),
        ((3, 2), (1, 2), "VALID", 3),
        ((2, 3), (1, 1), ((2, 0), (0, 3)), 6),
        ((3, 3), (2, 1), ((2, 0), (0, 3)), 2),
        ((1, 1), (1, 1), "SAME", 2),
        ((3, 3), (1, 2), "SAME", 3),
        ((5, 4), (3, 2), "VALID", 2),
        ((2, 2), (3, 3), "SAME", 1),
        ((3, 3), (1, 1), ((4, 3), (3, 4)), 2),
        ((3, 3), (2, 2), ((-1, 1), (1, -2)), 2),
    ],
)
@pytest.mark.parametrize(("channels", "features"), [(3, 4), (1, 6)])
def test_convolution_and_its_gradients(kernel, strides, padding, batch, channels, features):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, 9, 8, channels))
    k = jax.random.normal(keys[1], (*kernel, channels, features))

    @jax.jit
    def ours(x, k):
        return conv_general_dilated(x, k, strides, padding)

    @jax.jit
    def xla(x, k):
        return lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    expected, pullback = jax.vjp(xla, x, k)
    out, our_pullback = jax.vjp(ours, x, k)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    g = jax.random.normal(keys[2], expected.shape)
    for a, b in zip(our_pullback(g), pullback(g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 2), "rhs_dilation": (2, 2)},
        {"feature_group_count": 3},
        {"batch_group_count": 2},
        {"dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    ],
)
def test_what_the_convolution_does_not_do_is_refused(kwargs):
    with pytest.raises(NotImplementedError):
        conv_general_dilated(jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 4)), (1, 1), "SAME", **kwargs)


def test_convolution_under_vmap_and_scan():
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 7, 3))
    k = jax.random.normal(jax.random.key(1), (2, 3, 3, 3, 4))

    def loss(x, k):
        return (conv_general_dilated(x, k, (1, 1), "SAME") ** 2).sum()

    one_by_one = [jax.grad(loss, (0, 1))(x[i], k[i]) for i in range(2)]
    expected = jax.tree.map(lambda *parts: jnp.stack(parts), *one_by_one)
    for mapped in (jax.vmap(jax.grad(loss, (0, 1)))(x, k), lax.map(lambda a: jax.grad(loss, (0, 1))(*a), (x, k))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), mapped, expected)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_group_norm_is_that_of_flax(offset):
    keys = jax.random.split(jax.random.key(0), 4)
    x, g = (jax.random.normal(key, (2, 5, 4, 16)) for key in keys[:2])
    ours, flax = (norm(16, num_groups=8, rngs=nnx.Rngs(0)) for norm in (layers.GroupNorm, nnx.GroupNorm))
    for norm in (ours, flax):
        norm.scale[...], norm.bias[...] = (jax.random.normal(key, (16,)) for key in keys[2:])
    out, pullback = jax.vjp(lambda norm, x: norm(x), ours, x + offset)
    expected, flax_pullback = jax.vjp(lambda norm, x: norm(x), flax, x + offset)
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-3)
    for a, b in zip(jax.tree.leaves(pullback(g)), jax.tree.leaves(flax_pullback(g)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("linear", (28, 28), 784 * 10 + 10),
        ("mlp", (28, 28), 784 * 128 + 128 + 128 * 10 + 10),
        ("cnn", (28, 28), 25 * 16 + 16 + 25 * 16 * 32 + 32 + 7 * 7 * 32 * 64 + 64 + 650),
        # ResNet-14 on 32×32×3: stem, two blocks a stage, two projections, a scale and a bias per normalised channel.
        (
            "resnet14",
            (32, 32, 3),
            432
            + 4 * 2304
            + (4608 + 3 * 9216 + 512)
            + (18432 + 3 * 36864 + 2048)
            + 2 * (16 * 5 + 32 * 4 + 64 * 4)
            + 650,
        ),
    ],
)
def test_architecture_has_the_promised_size(name, shape, parameters):
    def make_and_apply(x):
        network = build_model(name, shape, 10)(nnx.Rngs(0))
        return nnx.state(network), network(x)

    state, out = jax.eval_shape(make_and_apply, jnp.zeros((2, *shape)))
    assert sum(p.size for p in jax.tree.leaves(state)) == parameters
    assert out.shape == (2, 10)


def test_activation_is_used():
    x = jax.random.normal(jax.random.key(0), (2, 8))
    gelu, relu = (build_model("mlp", (8,), 3, activation)(nnx.Rngs(0))(x) for activation in ("gelu", "relu"))
    assert not np.allclose(gelu, relu)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mpl", "did you mean 'mlp'"),
        ("linear:4+mlp:3", "7 devices, but there are 8"),
        ("linear+mlp:4", "needs a number"),
        ("linear:x", "needs a number"),
        ("linear:0+mlp:8", "needs a number"),
    ],
)
def test_bad_models_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        parse_models(spec, 8)


def test_a_convolution_refuses_what_is_no_image():
    with pytest.raises(InputError, match="needs images"):
        build_model("cnn", (60,), 10)
