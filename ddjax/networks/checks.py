"""Checks of networks: a mixing matrix must compute averages, and it must suit the algorithm and the mixer."""

import numpy as np
import scipy.sparse

from ddjax.errors import InputError
from ddjax.networks.network import Network

STOCHASTIC = {"doubly": (0, 1), "column": (0,), "row": (1,), "links": ()}  # axes along which sums must be 1
_REMEDIES = {
    "doubly": "use metropolis_hastings on an undirected graph, or push_sum with column_uniform",
    "column": "use column_uniform",
    "row": "use row_uniform",
}


def check_network(network: Network, stochastic: str = "doubly", *, fixed: str = "", lossless: str = "") -> None:
    """Check that a network computes averages, and that it suits the algorithm and the mixer.

    Args:
      network: network as in `Problem.network`.
      stochastic: key of `STOCHASTIC`: the sums that must be 1.
      fixed: name of the algorithm or mixer that needs the same graph in every round; empty if there is none.
      lossless: name of the algorithm or mixer that needs every message to arrive; empty if there is none.

    Raises:
      InputError: if the network fails a check; the message says what is wrong, and where.

    Examples:
      >>> from ddjax.networks import as_network, check_network
      >>> check_network(as_network([[0.9, 0.1], [0.5, 0.5]]), stochastic="row")
      >>> check_network(as_network([[0.9, 0.1], [0.5, 0.5]]))
      Traceback (most recent call last):
      ddjax.errors.InputError: the mixing matrix must be doubly stochastic, but column 1 sums to 0.6; ...
    """
    if fixed and network.changes:
        raise InputError(
            f"{fixed} needs a fixed graph, because devices keep copies of their neighbours' values; this graph changes"
        )
    if lossless and network.loses_messages:
        raise InputError(f"{lossless} needs every message to arrive, but this network loses messages")
    matrices = network.sample_matrices()
    for matrix in matrices:
        check_sums(matrix, stochastic)
    if not network.draws:
        check_connected(sum(matrices))


def check_sums(matrix: scipy.sparse.csr_array, stochastic: str) -> None:
    """Raise `InputError` if weights are negative or not finite, or if a sum that should be 1 is not."""
    if not np.isfinite(matrix.data).all() or matrix.data.min(initial=0) < 0:
        raise InputError(f"mixing weights must be finite and non-negative; the smallest is {matrix.data.min():g}")
    # The user may have normalized the weights in float32.
    tolerance = max(1e-6, 4 * np.finfo(np.float32).eps * np.sqrt(matrix.shape[0]))
    for axis, kind in ((1, "row"), (0, "column")):
        sums = matrix.sum(axis)
        worst = np.abs(sums - 1).argmax()
        if axis in STOCHASTIC[stochastic] and abs(sums[worst] - 1) > tolerance:
            raise InputError(
                f"the mixing matrix must be {stochastic} stochastic, but {kind} {worst} sums to {sums[worst]:.6g}; "
                + _REMEDIES[stochastic]
            )


def check_connected(matrix: scipy.sparse.csr_array) -> None:
    """Raise `InputError` if a graph is not strongly connected."""
    from scipy.sparse.csgraph import connected_components  # slow to import

    parts, _ = connected_components(matrix, connection="strong")
    if parts > 1:
        raise InputError(
            f"the graph is not connected: its {parts} parts cannot all reach one another; add edges, or change the "
            "seed of a random graph"
        )
