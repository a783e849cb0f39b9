"""Weights that turn a graph into a mixing matrix."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse

from ddjax.errors import InputError
from ddjax.registry import Entry, Registry

if TYPE_CHECKING:
    import networkx as nx


class Adjacency(NamedTuple):
    """Adjacency matrix and degrees of a graph, from which mixing weights are computed.

    Attributes:
      matrix: sparse `[N, N]`; `A[n, m] = 1` where `n` hears `m`.
      in_degree: `[N]` number of in-neighbours.
      out_degree: `[N]` number of out-neighbours.
      directed: whether the graph is directed.
    """

    matrix: scipy.sparse.csr_array
    in_degree: np.ndarray
    out_degree: np.ndarray
    directed: bool


Weights = Callable[[Adjacency], scipy.sparse.csr_array]

MIXING_WEIGHTS: Registry[Entry] = Registry("mixing weights")


def default_weights(graph: "nx.Graph", stochastic: str = "doubly") -> str:
    """Name the default weights of a graph.

    The default is `metropolis_hastings` on an undirected graph and `uniform` on a directed graph. If `uniform` weights
    are not doubly stochastic on a directed graph, and `stochastic` is not `doubly`, the default is `column_uniform` or
    `row_uniform`.
    """
    if not graph.is_directed():
        return "metropolis_hastings"
    degrees = {degree for _, degree in (*graph.in_degree(), *graph.out_degree())}
    if len(degrees) == 1 or stochastic == "doubly":
        return "uniform"
    return "column_uniform" if stochastic == "column" else "row_uniform"


def mixing_matrix(graph: "nx.Graph", weights: str = "") -> scipy.sparse.csr_array:
    """Make a stochastic matrix on a graph, sparse `[N, N]` float64.

    Args:
      graph: directed or undirected graph on nodes `0 … N − 1`.
      weights: name in `MIXING_WEIGHTS`; empty for `default_weights(graph)`.

    Raises:
      InputError: if the weights are unknown, or if they should be doubly stochastic but are not on this graph.

    Examples:
      >>> from ddjax.networks import build_graph, mixing_matrix
      >>> mixing_matrix(build_graph("star", 4)).toarray()
      array([[0.25, 0.25, 0.25, 0.25],
             [0.25, 0.75, 0.  , 0.  ],
             [0.25, 0.  , 0.75, 0.  ],
             [0.25, 0.  , 0.  , 0.75]])
    """
    choice = MIXING_WEIGHTS.parse(weights or default_weights(graph))
    nodes = graph.number_of_nodes()
    # In NetworkX, A[m, n] = 1 for the edge m → n; in W, the receiver is the row.
    matrix = scipy.sparse.csr_array((nodes, nodes))
    if graph.number_of_edges():
        import networkx as nx  # slow to import

        matrix = nx.to_scipy_sparse_array(graph, nodelist=range(nodes), weight=None, dtype=float).T.tocsr()
    return choice.build(Adjacency(matrix, matrix.sum(1), matrix.sum(0), graph.is_directed()))


def metropolis_hastings(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """Compute `W[n, m] = 1 / (1 + max(d_n, d_m))`, doubly stochastic on undirected graphs (Xiao, Boyd, Lall 2005)."""
    if adjacency.directed:
        raise InputError("mixing weights 'metropolis_hastings' need an undirected graph; use uniform on a directed one")
    edges, degree = adjacency.matrix.tocoo(), adjacency.in_degree
    edges.data /= 1 + np.maximum(degree[edges.row], degree[edges.col])
    return _filled(edges.tocsr())


def uniform(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """Give each in-neighbour, and the device itself, the weight `1 / (d + 1)`.

    The matrix is doubly stochastic if every device has `d` in-neighbours and `d` out-neighbours.
    """
    into, out = adjacency.in_degree, adjacency.out_degree
    if np.unique(np.concatenate([into, out])).size > 1:
        remedy = (
            "use column_uniform with --algorithm=push_sum, or with distillation and --mixing=push_sum"
            if adjacency.directed
            else "use metropolis_hastings"
        )
        raise InputError(
            "mixing weights 'uniform' are doubly stochastic only if all devices have equally many in-neighbours and "
            f"out-neighbours; here they have {into.min():.0f} to {into.max():.0f} in-neighbours and {out.min():.0f} to "
            f"{out.max():.0f} out-neighbours; {remedy}"
        )
    return _filled((adjacency.matrix / (1 + into[0])).tocsr())


def column_uniform(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """Let each device share its value evenly among its out-neighbours and itself, so that columns sum to 1."""
    return (adjacency.matrix + _identity(adjacency)).multiply(1 / (1 + adjacency.out_degree)).tocsr()


def row_uniform(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """Let each device weight its in-neighbours and itself equally, so that rows sum to 1."""
    return (adjacency.matrix + _identity(adjacency)).multiply(1 / (1 + adjacency.in_degree)[:, None]).tocsr()


def lazy(weights: Weights) -> Weights:
    """Return weights `(I + W) / 2`, whose eigenvalues have no negative real part."""
    return lambda adjacency: (_identity(adjacency) + weights(adjacency)) / 2


def _identity(adjacency: Adjacency) -> scipy.sparse.csr_array:
    return scipy.sparse.eye_array(len(adjacency.in_degree), format="csr")


def _filled(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Increase the diagonal so that each row sums to 1."""
    return matrix + scipy.sparse.diags_array(1 - matrix.sum(1), format="csr")


MIXING_WEIGHTS.add(Entry("metropolis_hastings", metropolis_hastings))
MIXING_WEIGHTS.add(Entry("uniform", uniform))
MIXING_WEIGHTS.add(Entry("column_uniform", column_uniform))
MIXING_WEIGHTS.add(Entry("row_uniform", row_uniform))
MIXING_WEIGHTS.add(Entry("lazy_metropolis_hastings", lazy(metropolis_hastings)))
MIXING_WEIGHTS.add(Entry("lazy_uniform", lazy(uniform)))
