"""Weights of mixing matrices on a graph."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse

from ddjax.errors import InputError
from ddjax.registry import Entry, Registry

if TYPE_CHECKING:
    import networkx as nx


class Adjacency(NamedTuple):
    """A graph as weights are made from it.

    Attributes:
      matrix: sparse `[N, N]`, `A[n, m] = 1` where `n` hears of `m`.
      in_degree: `[N]`, how many others a device hears of.
      out_degree: `[N]`, how many others hear of it.
      directed: whether the graph is.
    """

    matrix: scipy.sparse.csr_array
    in_degree: np.ndarray
    out_degree: np.ndarray
    directed: bool


Weights = Callable[[Adjacency], scipy.sparse.csr_array]

MIXING_WEIGHTS: Registry[Entry] = Registry("mixing weights")


def default_weights(graph: "nx.Graph", stochastic: str = "doubly") -> str:
    """`metropolis_hastings`; on a directed graph `uniform`, or where that is not doubly stochastic and need not be,
    `column_uniform` or `row_uniform`."""
    if not graph.is_directed():
        return "metropolis_hastings"
    degrees = {degree for _, degree in (*graph.in_degree(), *graph.out_degree())}
    if len(degrees) == 1 or stochastic == "doubly":
        return "uniform"
    return "column_uniform" if stochastic == "column" else "row_uniform"


def mixing_matrix(graph: "nx.Graph", weights: str = "") -> scipy.sparse.csr_array:
    """A stochastic matrix on the graph, sparse `[N, N]` float64.

    Args:
      graph: nodes `0 … N − 1`; directed or not.
      weights: a name of `MIXING_WEIGHTS`; by default `default_weights(graph)`.

    Raises:
      InputError: unknown weights, or weights that are not doubly stochastic on this graph but should be.
    """
    choice = MIXING_WEIGHTS.parse(weights or default_weights(graph))
    nodes = graph.number_of_nodes()
    # NetworkX has A[m, n] = 1 for the edge m → n; the receiver is the row of W.
    matrix = scipy.sparse.csr_array((nodes, nodes))
    if graph.number_of_edges():
        import networkx as nx  # slow to import

        matrix = nx.to_scipy_sparse_array(graph, nodelist=range(nodes), weight=None, dtype=float).T.tocsr()
    return choice.build(Adjacency(matrix, matrix.sum(1), matrix.sum(0), graph.is_directed()))


def metropolis_hastings(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """`W[n, m] = 1 / (1 + max(d_n, d_m))` (Xiao, Boyd, Lall 2005): doubly stochastic on undirected graphs."""
    if adjacency.directed:
        raise InputError("mixing weights 'metropolis_hastings' need an undirected graph; use uniform on a directed one")
    edges, degree = adjacency.matrix.tocoo(), adjacency.in_degree
    edges.data /= 1 + np.maximum(degree[edges.row], degree[edges.col])
    return _filled(edges.tocsr())


def uniform(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """`1 / (d + 1)` for itself and for each in-neighbour: doubly stochastic where every device has `d` in- and `d`
    out-neighbours."""
    into, out = adjacency.in_degree, adjacency.out_degree
    if np.unique(np.concatenate([into, out])).size > 1:
        remedy = (
            "push_sum works with column_uniform weights, and distillation over it (--mixing=push_sum)"
            if adjacency.directed
            else "use metropolis_hastings"
        )
        raise InputError(
            "mixing weights 'uniform' are doubly stochastic only where all devices have equally many in- and "
            f"out-neighbours; here they have {into.min():.0f} to {into.max():.0f} in and {out.min():.0f} to "
            f"{out.max():.0f} out; {remedy}"
        )
    return _filled((adjacency.matrix / (1 + into[0])).tocsr())


def column_uniform(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """A device shares what it has evenly among its out-neighbours and itself: columns sum to 1, on any graph."""
    return (adjacency.matrix + _identity(adjacency)).multiply(1 / (1 + adjacency.out_degree)).tocsr()


def row_uniform(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """A device weighs its in-neighbours and itself alike: rows sum to 1, on any graph."""
    return (adjacency.matrix + _identity(adjacency)).multiply(1 / (1 + adjacency.in_degree)[:, None]).tocsr()


def lazy(weights: Weights) -> Weights:
    """`(I + W) / 2`, whose eigenvalues have no negative real part."""
    return lambda adjacency: (_identity(adjacency) + weights(adjacency)) / 2


def _identity(adjacency: Adjacency) -> scipy.sparse.csr_array:
    return scipy.sparse.eye_array(len(adjacency.in_degree), format="csr")


def _filled(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """With what is left to 1 in a row on the diagonal."""
    return matrix + scipy.sparse.diags_array(1 - matrix.sum(1), format="csr")


MIXING_WEIGHTS.add(Entry("metropolis_hastings", metropolis_hastings))
MIXING_WEIGHTS.add(Entry("uniform", uniform))
MIXING_WEIGHTS.add(Entry("column_uniform", column_uniform))
MIXING_WEIGHTS.add(Entry("row_uniform", row_uniform))
MIXING_WEIGHTS.add(Entry("lazy_metropolis_hastings", lazy(metropolis_hastings)))
MIXING_WEIGHTS.add(Entry("lazy_uniform", lazy(uniform)))
