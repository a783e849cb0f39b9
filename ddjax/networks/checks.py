"""What is refused: mixing matrices that do not average, and networks that an algorithm or a mixer cannot do with."""

import numpy as np
import scipy.sparse

from ddjax.errors import InputError
from ddjax.networks.network import Network

STOCHASTIC = {"doubly": (0, 1), "column": (0,), "row": (1,), "links": ()}  # axes along which sums must be 1
_REMEDIES = {
    "doubly": "metropolis_hastings is, on undirected graphs; push_sum can do with column_uniform",
    "column": "column_uniform is",
    "row": "row_uniform is",
}


def check_network(network: Network, stochastic: str = "doubly", *, fixed: str = "", lossless: str = "") -> None:
    """Refuses a network that does not average, or that what runs on it cannot do with.

    Args:
      network: what `Problem.network` holds.
      stochastic: a key of `STOCHASTIC`: which sums must be 1.
      fixed: the name of what needs the same graph in every round, if anything does.
      lossless: the name of what needs every message to arrive, if anything does.

    Raises:
      InputError: the first thing that is wrong, and where.
    """
    if fixed and network.changes:
        raise InputError(f"{fixed} needs a fixed graph, since neighbours keep copies of one another; this one changes")
    if lossless and network.loses_messages:
        raise InputError(f"{lossless} needs every message to arrive, but this network loses messages")
    matrices = network.sample_matrices()
    for matrix in matrices:
        check_sums(matrix, stochastic)
    if not network.draws:
        check_connected(sum(matrices))


def check_sums(matrix: scipy.sparse.csr_array, stochastic: str) -> None:
    """Refuses weights that are negative or not finite, and sums that should be 1; raises `InputError`."""
    if not np.isfinite(matrix.data).all() or matrix.data.min(initial=0) < 0:
        raise InputError(f"mixing weights must be finite and non-negative, the smallest is {matrix.data.min():g}")
    # A user may have divided by sums in float32.
    tolerance = max(1e-6, 4 * np.finfo(np.float32).eps * np.sqrt(matrix.shape[0]))
    for axis, kind in ((1, "row"), (0, "column")):
        sums = matrix.sum(axis)
        worst = np.abs(sums - 1).argmax()
        if axis in STOCHASTIC[stochastic] and abs(sums[worst] - 1) > tolerance:
            raise InputError(
                f"a {stochastic} stochastic matrix is needed here, and {kind} {worst} sums to {sums[worst]:.6g}; "
                + _REMEDIES[stochastic]
            )


def check_connected(matrix: scipy.sparse.csr_array) -> None:
    """Refuses a graph that is not strongly connected; raises `InputError`."""
    from scipy.sparse.csgraph import connected_components  # slow to import

    parts, _ = connected_components(matrix, connection="strong")
    if parts > 1:
        raise InputError(
            f"the graph is not connected: {parts} parts cannot reach one another; add edges, or change the seed of a "
            "random one"
        )
