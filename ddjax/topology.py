"""Graphs of devices and their mixing matrices.

Convention: an edge `m → n` of a directed graph means that `m` sends to `n`, and `W[n, m]` is the weight `n` gives to
what it receives from `m`. Every matrix built here is doubly stochastic on a strongly connected graph, as consensus on
the average needs.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import numpy as np

from ddjax.types import InputError, suggest


class Topology(NamedTuple):
    """A checked graph with its mixing matrix.

    Attributes:
      name: the specification it was built from.
      weights: the name of the mixing weights.
      mixing_matrix: `[N, N]` float64, doubly stochastic.
      eigenvalues: `[N]` of the matrix, complex on most directed graphs.
      directed_edges: links that carry a message each round; an undirected edge is two.
    """

    name: str
    weights: str
    mixing_matrix: np.ndarray
    eigenvalues: np.ndarray
    directed_edges: int

    @property
    def spectral_gap(self) -> float:
        """`1 − |λ₂|`, with `λ₂` the second largest eigenvalue in modulus; 1 for a single device."""
        moduli = np.sort(np.abs(self.eigenvalues))
        return float(1 - moduli[-2]) if len(moduli) > 1 else 1.0

    def largest_consensus_step_size(self) -> float:
        """The `ζ` below which `z ← W z + ζ (s − z)` is stable: every eigenvalue of `W − ζ I` inside the unit circle.

        `|λ − ζ| < 1` is `ζ < Re λ + √(1 − (Im λ)²)`, smallest over the eigenvalues: 2/3 on a large ring, but 2/(d + 1)
        on a `d`-dimensional hypercube.
        """
        real, imag = self.eigenvalues.real, np.imag(self.eigenvalues)
        return float(np.min(real + np.sqrt(np.maximum(1 - imag**2, 0))))

    def default_consensus_step_size(self) -> float:
        """0.5, or three quarters of the largest stable `ζ` where that is less."""
        return min(0.5, 0.75 * self.largest_consensus_step_size())


def _circulant(n: int, offsets: list[int], directed: bool) -> nx.Graph:
    if not directed:
        return nx.circulant_graph(n, offsets)
    circulant = nx.empty_graph(n, create_using=nx.DiGraph)
    circulant.add_edges_from((i, (i + k) % n) for i in range(n) for k in offsets)
    return circulant


def _powers_of_two(n: int) -> list[int]:
    return [2**j for j in range(max(n - 1, 0).bit_length())]


def _torus(n: int) -> nx.Graph:
    rows = max((d for d in range(1, math.isqrt(n) + 1) if n % d == 0), default=1)
    if rows < 2:
        raise InputError(f"torus needs a number of devices that is a product of two numbers above 1, got {n}")
    return nx.grid_2d_graph(rows, n // rows, periodic=True)


def _hypercube(n: int) -> nx.Graph:
    if n & (n - 1):
        below = 2 ** (n.bit_length() - 1)
        raise InputError(f"hypercube needs a power of two of devices, got {n}; nearest: {below} or {2 * below}")
    return nx.hypercube_graph(n.bit_length() - 1) if n > 1 else nx.empty_graph(1)


def _edge_list(path: str, n: int, directed: bool) -> nx.Graph:
    """One `i j` a line; blank lines and what follows `#` are passed over."""
    graph = nx.empty_graph(n, create_using=nx.DiGraph if directed else nx.Graph)
    try:
        lines = Path(path).expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot read the edge file {path!r}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        if len(fields) != 2 or not all(field.isdecimal() and int(field) < n for field in fields):
            raise InputError(f"{path}:{number}: expected two device numbers from 0 to {n - 1}, got {line.strip()!r}")
        if fields[0] != fields[1]:
            graph.add_edge(int(fields[0]), int(fields[1]))
    return graph


# name → (placeholders of its arguments, their types, builder (n, seed, *arguments)).
GRAPHS: dict[str, tuple[str, tuple[type, ...], Callable[..., nx.Graph]]] = {
    "ring": ("", (), lambda n, seed: nx.cycle_graph(n)),
    "complete": ("", (), lambda n, seed: nx.complete_graph(n)),
    "star": ("", (), lambda n, seed: nx.star_graph(n - 1)),
    "torus": ("", (), lambda n, seed: _torus(n)),
    "hypercube": ("", (), lambda n, seed: _hypercube(n)),
    "exponential": ("", (), lambda n, seed: _circulant(n, _powers_of_two(n), directed=False)),
    "directed_ring": ("", (), lambda n, seed: _circulant(n, [1], directed=True)),
    "directed_exponential": ("", (), lambda n, seed: _circulant(n, _powers_of_two(n), directed=True)),
    "erdos_renyi": ("P", (float,), lambda n, seed, p: nx.gnp_random_graph(n, p, seed=seed)),
    "watts_strogatz": ("K:P", (int, float), lambda n, seed, k, p: nx.watts_strogatz_graph(n, k, p, seed=seed)),
    "random_regular": ("D", (int,), lambda n, seed, d: nx.random_regular_graph(d, n, seed=seed)),
    "barabasi_albert": ("M", (int,), lambda n, seed, m: nx.barabasi_albert_graph(n, m, seed=seed)),
    "edges": ("FILE", (str,), lambda n, seed, path: _edge_list(path, n, directed=False)),
    "directed_edges": ("FILE", (str,), lambda n, seed, path: _edge_list(path, n, directed=True)),
}
MIXING_WEIGHTS = ("metropolis_hastings", "uniform", "lazy_metropolis_hastings", "lazy_uniform")


def graph(spec: str, devices: int, seed: int = 0) -> nx.Graph:
    """The graph named by `spec` on nodes `0 … devices − 1`, without self-loops.

    Args:
      spec: a name of `GRAPHS` with its arguments after colons, such as `ring`, `erdos_renyi:0.2`, `edges:FILE`.
        `torus` is the most square grid with that many nodes; `exponential` joins `i` with `i ± 2^j`.
      devices: number of nodes.
      seed: of the random graphs.

    Raises:
      InputError: unknown name, arguments that do not fit, or an unreadable file.
    """
    name, _, rest = spec.partition(":")
    if name not in GRAPHS:
        raise suggest("topology", name, GRAPHS)
    placeholders, types, build = GRAPHS[name]
    usage = f"{name}:{placeholders}" if placeholders else name
    fields = rest.split(":", max(len(types) - 1, 0)) if rest else []
    if len(fields) != len(types):
        raise InputError(f"topology {spec!r}: expected {usage!r}")
    try:
        arguments = [kind(field) for kind, field in zip(types, fields, strict=True)]
        # NetworkX takes any P; the others it checks itself.
        if name in ("erdos_renyi", "watts_strogatz") and not 0 <= arguments[-1] <= 1:
            raise ValueError("P must lie in [0, 1]")
        built = build(devices, seed, *arguments)
    except InputError:
        raise
    except (ValueError, nx.NetworkXException) as error:
        raise InputError(f"topology {spec!r} on {devices} devices: {error}; expected {usage!r}") from None
    built = nx.convert_node_labels_to_integers(built, ordering="sorted")
    built.remove_edges_from(list(nx.selfloop_edges(built)))
    return built


def default_weights(graph: nx.Graph) -> str:
    """`uniform` for a directed graph, else `metropolis_hastings`."""
    return "uniform" if graph.is_directed() else "metropolis_hastings"


def mixing_matrix(graph: nx.Graph, weights: str = "") -> np.ndarray:
    """A doubly stochastic matrix on the graph, `[N, N]` float64.

    Args:
      graph: nodes `0 … N − 1`; directed or not.
      weights: `metropolis_hastings`, `W[n, m] = 1 / (1 + max(d_n, d_m))` (Xiao, Boyd, Lall 2005), for undirected graphs
        and the default there; `uniform`, `1 / (d + 1)` to itself and each in-neighbour, for graphs on which every
        device has `d` in- and `d` out-neighbours, and the default for directed ones; `lazy_…`, `(I + W) / 2` of
        either, whose eigenvalues have no negative real part.

    Raises:
      InputError: unknown weights, or weights that are not doubly stochastic on this graph.
    """
    name = weights or default_weights(graph)
    if name not in MIXING_WEIGHTS:
        raise suggest("mixing weights", name, MIXING_WEIGHTS)
    nodes = graph.number_of_nodes()
    # NetworkX has A[m, n] = 1 for the edge m → n; the receiver is the row of W.
    adjacency = nx.to_numpy_array(graph, nodelist=range(nodes), weight=None).T
    in_degree, out_degree = adjacency.sum(1), adjacency.sum(0)
    if name.endswith("uniform"):
        if np.unique(np.concatenate([in_degree, out_degree])).size > 1:
            raise InputError(
                f"mixing weights {name!r} are doubly stochastic only where all devices have equally many in- and "
                f"out-neighbours; here they have {in_degree.min():.0f} to {in_degree.max():.0f} in and "
                f"{out_degree.min():.0f} to {out_degree.max():.0f} out"
                + (
                    "; no other weights are built for a directed graph"
                    if graph.is_directed()
                    else "; use metropolis_hastings"
                )
            )
        matrix = adjacency / (1 + in_degree[0])
    else:
        if graph.is_directed():
            raise InputError(f"mixing weights {name!r} need an undirected graph; use uniform on a directed one")
        matrix = adjacency / (1 + np.maximum.outer(in_degree, in_degree))
    matrix[np.diag_indices(nodes)] = 1 - matrix.sum(1)
    return (np.eye(nodes) + matrix) / 2 if name.startswith("lazy_") else matrix


def check_mixing_matrix(matrix: np.ndarray) -> None:
    """Refuses a matrix that does not average: non-negative, rows and columns summing to 1, strongly connected.

    Raises:
      InputError: which of these fails, and where.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"a mixing matrix is square, got shape {matrix.shape}")
    if not np.isfinite(matrix).all() or matrix.min() < 0:
        raise InputError(f"mixing weights must be finite and non-negative, the smallest is {matrix.min():g}")
    for axis, kind in ((1, "row"), (0, "column")):
        error = np.abs(matrix.sum(axis) - 1)
        if error.max() > 1e-6:
            raise InputError(
                f"mixing matrix: {kind} {error.argmax()} sums to {matrix.sum(axis)[error.argmax()]:.6g}, not 1"
            )
    network = nx.from_numpy_array(matrix.T, create_using=nx.DiGraph)
    parts = nx.number_strongly_connected_components(network)
    if parts > 1:
        raise InputError(
            f"the graph is not connected: {parts} parts cannot reach one another; add edges or change the seed"
        )


def topology(spec: str, devices: int, weights: str = "", seed: int = 0) -> Topology:
    """Builds and checks graph and mixing matrix; see `graph` and `mixing_matrix` for arguments and errors."""
    if devices < 1:
        raise InputError(f"a network needs at least one device, got {devices}")
    network = graph(spec, devices, seed)
    try:
        matrix = mixing_matrix(network, weights)
        check_mixing_matrix(matrix)
    except InputError as error:
        raise InputError(f"topology {spec!r}: {error}") from None
    symmetric = np.array_equal(matrix, matrix.T)
    eigenvalues = np.linalg.eigvalsh(matrix) if symmetric else np.linalg.eigvals(matrix)
    edges = int(np.count_nonzero(matrix) - np.count_nonzero(np.diag(matrix)))
    return Topology(spec, weights or default_weights(network), matrix, eigenvalues, edges)
