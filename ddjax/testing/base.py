"""Helpers that the checks share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.data import make_problem
from ddjax.data.synthetic import synthetic_classification
from ddjax.networks import build_topology
from ddjax.types import Problem, PyTree


def small_problem(topology: str = "ring", devices: int = 4, stochastic: str = "doubly") -> Problem:
    """Make a small problem with labelled data that differ between devices."""
    dataset = synthetic_classification(0, devices, 40 * devices, 30, classes=3, dimensions=5, heterogeneity=0.5)
    network = build_topology(topology, devices, stochastic=stochastic).network
    return make_problem(dataset, network, partition="quantity", reference_size=12)


def close(found: PyTree, expected: PyTree, what: str, tolerance: float = 2e-5) -> None:
    """Assert that two pytrees agree, to within a relative and an absolute tolerance."""
    same = str(jax.tree.structure(found)) == str(jax.tree.structure(expected))
    assert same, f"{what}: the structure differs"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=what), found, expected
    )


def same_shapes(found: PyTree, expected: PyTree, what: str) -> None:
    """Assert that two pytrees have the same structure, shapes and dtypes."""
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (found, expected)]
    assert shapes[0] == shapes[1], f"{what}: {shapes[0]} is not {shapes[1]}"


def in_double_precision(tree: PyTree, what: str) -> None:
    """Assert that every floating-point leaf is float64."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            where = jax.tree_util.keystr(path)
            assert leaf.dtype == np.float64, f"{what}{where} is {leaf.dtype}, but jax_enable_x64 requires float64"


def check_traffic(messages: Any, sizes: Any, links: tuple[int, ...], devices: int) -> None:
    """Assert that the counts and the sizes of messages match.

    Args:
      messages: `Traffic` of counts.
      sizes: `Traffic` of bytes.
      links: shape of the counts by link.
      devices: number of devices `N`.
    """
    for way, shape in (("peer", links), ("up", (devices,)), ("down", (devices,))):
        counts, of_one = getattr(messages, way), getattr(sizes, way)
        assert counts.keys() == of_one.keys(), (
            f"messages {way}: {sorted(counts)} are counted, but {sorted(of_one)} have sizes"
        )
        for kind, count in counts.items():
            assert count.shape == shape, f"messages {way} {kind!r}: counts have shape {count.shape}, not {shape}"
            assert jnp.issubdtype(count.dtype, jnp.integer), f"messages {way} {kind!r}: counts are {count.dtype}"
            assert (np.asarray(count) >= 0).all(), f"messages {way} {kind!r}: a count is negative"
        for kind, size in of_one.items():
            assert isinstance(size, int), f"messages {way} {kind!r}: bytes are a {type(size).__name__}, not an int"
            assert size > 0, f"messages {way} {kind!r}: a message has {size} bytes"
