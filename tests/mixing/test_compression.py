"""Compressors: unbiased or contracting as their papers say, and as many bytes as their payload has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import compressor

from ddjax.errors import InputError
from ddjax.mixing import COMPRESSORS
from ddjax.mixing.compression import largest, largest_by_bits

DRAWS = 4000


def draws(spec, x, count=DRAWS):
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: compressor(spec).compress(key, x)))(keys), np.float64)


def heavy_tailed(size):
    return jax.random.t(jax.random.key(5), 2.5, (size,))


@pytest.mark.parametrize(
    ("spec", "delta"),
    [("identity", 1.0), ("top_k:7", 7 / 60), ("top_k:0.25", 15 / 60), ("top_k:60", 1.0), ("sign", None)],
)
def test_deterministic_compressors_contract(spec, delta):
    """‖Q(x) − x‖² ≤ (1 − δ) ‖x‖², for 50 vectors; of `sign` the δ is its own, with equality."""
    for seed in range(50):
        x = np.asarray(jax.random.t(jax.random.key(seed), 2.5, (60,)), np.float64)
        q = np.asarray(compressor(spec).compress(jax.random.key(0), jnp.asarray(x, jnp.float32)), np.float64)
        left = ((q - x) ** 2).sum() / (x**2).sum()
        if spec == "sign":
            assert left == pytest.approx(1 - np.abs(x).sum() ** 2 / (60 * (x**2).sum()), abs=1e-5)
        else:
            assert left <= 1 - delta + 1e-6


def test_top_k_keeps_the_largest():
    x = jnp.array([[0.1, -5.0, 2.0], [3.0, 0.0, -0.2]])
    expected = [[0, -5, 0], [3, 0, 0]]
    np.testing.assert_array_equal(compressor("top_k:2").compress(None, x), expected)


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_are_found_by_bits_as_by_sorting(seed):
    """Of equal entries the first, zeros and tiny numbers included."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 200))
    k = int(rng.integers(1, size + 1))
    x = np.abs(rng.choice([rng.standard_normal(size), rng.integers(0, 4, size), np.full(size, 1e-30)])).astype(
        np.float32
    )
    expected = np.zeros(size, bool)
    expected[np.argsort(-x, kind="stable")[:k]] = True
    for found in (largest(jnp.asarray(x), k), largest_by_bits(jnp.asarray(x), k)):
        np.testing.assert_array_equal(found, expected)


def test_random_k_contracts_with_equality():
    """E‖Q(x) − x‖² = (1 − k/P) ‖x‖²; the mean of 4,000 draws within 4.9 standard errors: wrong once in a million."""
    x = heavy_tailed(40)
    drawn = draws("random_k:10", x)
    assert ((drawn != 0).sum(1) == 10).all()
    left = ((drawn - np.asarray(x)) ** 2).sum(1) / float((x**2).sum())
    assert abs(left.mean() - 0.75) < 4.9 * left.std() / np.sqrt(DRAWS)
    often = (drawn != 0).mean(0)  # every entry alike: 40 binomial tests at 5.5 standard errors
    assert np.abs(often - 0.25).max() < 5.5 * np.sqrt(0.25 * 0.75 / DRAWS)


@pytest.mark.parametrize("levels", [1, 4, 16])
def test_qsgd_is_unbiased_but_for_its_factor_and_contracts(levels):
    """E Q(x) = x/τ and E‖Q(x) − x‖² ≤ (1 − 1/τ) ‖x‖², τ = 1 + min(P/s², √P/s).

    An entry is rounded up with probability p: Bernstein's inequality for 4,000 such draws, 10⁻⁶ for all 40 entries.
    """
    x = heavy_tailed(40)
    norm, tau = float(jnp.linalg.norm(x)), 1 + min(40 / levels**2, np.sqrt(40) / levels)
    drawn = draws(f"qsgd:{levels}", x)
    p = levels * np.abs(np.asarray(x, np.float64)) / norm % 1
    log = np.log(2 * 40 * 1e6)
    bound = np.sqrt(2 * p * (1 - p) * log / DRAWS) + 2 * log / (3 * DRAWS)
    error = np.abs(drawn.mean(0) - np.asarray(x) / tau) * levels * tau / norm
    assert (error <= bound + 1e-5).all()
    left = ((drawn - np.asarray(x)) ** 2).sum(1) / norm**2
    assert left.mean() <= 1 - 1 / tau + 4.9 * left.std() / np.sqrt(DRAWS)
    assert len(np.unique(np.abs(drawn / norm * levels * tau).round(3))) <= levels + 1


@pytest.mark.parametrize(("spec", "error"), [("float16", 2.0**-11), ("uint8", 1 / 510)])
def test_rounding_is_to_the_nearest(spec, error):
    s = jax.nn.softmax(jax.random.normal(jax.random.key(1), (20, 7)) * 3)
    q = compressor(spec).compress(None, s)
    assert np.abs(q - s).max() <= error * float(s.max() - (0 if spec == "float16" else s.min())) + 1e-7
    assert np.abs(q - s).max() > 0
    same = jnp.full((3, 4), 0.25)
    np.testing.assert_array_equal(compressor(spec).compress(None, same), same)


def test_top_classes_stay_in_the_simplex():
    s = jnp.array([[0.5, 0.1, 0.3, 0.06, 0.04], [0.2, 0.2, 0.2, 0.2, 0.2]])
    q = compressor("top_classes:2").compress(None, s)
    np.testing.assert_allclose(q[0], [0.5, 0.2 / 3, 0.3, 0.2 / 3, 0.2 / 3], rtol=1e-6)
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(compressor("top_classes:5").compress(None, s), s)


@pytest.mark.parametrize(
    ("spec", "shape", "size"),
    [
        ("identity", (64, 10), 2560),
        ("float16", (64, 10), 1280),
        ("uint8", (64, 10), 640 + 8),
        ("sign", (10,), 4 + 2),
        ("top_k:3", (200,), 3 * (4 + 1)),
        ("top_k:3", (256,), 3 * (4 + 1)),
        ("top_k:3", (257,), 3 * (4 + 2)),
        ("top_k:0.01", (101770,), 1018 * (4 + 4)),
        ("random_k:0.01", (101770,), 1018 * 4),
        ("qsgd:1", (100,), 4 + 25),  # three values: 2 bits
        ("qsgd:4", (100,), 4 + 50),  # nine values: 4 bits
        ("qsgd:16", (100,), 4 + 75),  # 33 values: 6 bits
        ("top_classes:3", (64, 10), 64 * (3 * 5 + 4)),
    ],
)
def test_bytes_of_a_message(spec, shape, size):
    assert compressor(spec).message_bytes(shape) == size


@pytest.mark.parametrize(
    "spec", [f"{entry.name}:2" if entry.arguments else entry.name for entry in COMPRESSORS.entries()]
)
def test_nothing_stays_nothing(spec):
    """Of zero everywhere a receiver makes zero."""
    np.testing.assert_array_equal(compressor(spec).compress(jax.random.key(0), jnp.zeros((4, 5))), 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("topk:3", "did you mean 'top_k'"),
        ("top_k", "expected 'top_k:K'"),
        ("top_k:0", "positive whole number, or a fraction"),
        ("top_k:2.5", "positive whole number, or a fraction"),
        ("top_k:nan", "positive whole number"),
        ("qsgd:0.5", "expected 'qsgd:LEVELS'"),
        ("qsgd:-1", "a whole number of at least 1"),
        ("sign:1", "expected 'sign'"),
    ],
)
def test_bad_compressors_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        compressor(spec)


def test_more_than_the_payload_is_refused():
    with pytest.raises(InputError, match="cannot keep 11 of the 10 numbers in a message"):
        compressor("top_k:11").message_bytes((10,))
    with pytest.raises(InputError, match=r"more classes than there are \(5\)"):
        compressor("top_classes:6").message_bytes((4, 5))
    with pytest.raises(InputError, match="use top_k for parameters"):
        compressor("top_classes:2").message_bytes((100,))
