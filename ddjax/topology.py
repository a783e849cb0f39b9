"""Networks of devices: graphs with their mixing matrices, fixed or changing.

Convention: an edge `m → n` of a directed graph means that `m` sends to `n`, and `W[n, m]` is the weight `n` gives to
what it receives from `m`. Consensus on the average needs a doubly stochastic matrix on a strongly connected graph;
push-sum a column-stochastic one, and averages that need no common limit a row-stochastic one.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import networkx as nx
import numpy as np

from ddjax import networks
from ddjax.graphs import GRAPHS, circulant, graph, powers_of_two
from ddjax.types import InputError, suggest


class Topology(NamedTuple):
    """A checked network with its mixing matrix or matrices.

    Attributes:
      name: the specification it was built from.
      weights: the name of the mixing weights.
      mixing_matrix: what `Problem.mixing_matrix` takes: `[N, N]`, a cycle `[T, N, N]`, or a `networks.Drawn`.
      matrices: `[T, N, N]` float64: the one, those of the cycle, or draws to estimate from.
    """

    name: str
    weights: str
    mixing_matrix: Any
    matrices: np.ndarray

    @property
    def changes(self) -> bool:
        """Whether not all rounds have the same graph."""
        return len(self.matrices) > 1 or isinstance(self.mixing_matrix, networks.Drawn)

    @property
    def directed_edges(self) -> float:
        """Links that carry a message in a round, on average over rounds; an undirected edge is two."""
        rounds, devices, _ = self.matrices.shape
        present = self.matrices != 0
        present[:, np.arange(devices), np.arange(devices)] = False
        return present.sum() / rounds

    @property
    def spectral_gap(self) -> float:
        """By how much disagreement shrinks in a round, `1 − ` its factor; 1 for a single device.

        Of a fixed graph `1 − |λ₂|`, with `λ₂` the second largest eigenvalue in modulus; of a cycle the geometric mean
        over its rounds; of graphs drawn anew `1 − √λ₂(E[WᵀW])` (Boyd, Ghosh, Prabhakar, Shah 2006).
        """
        rounds, devices, _ = self.matrices.shape
        if devices == 1:
            return 1.0
        if isinstance(self.mixing_matrix, networks.Drawn):
            # All devices being alike, E[WᵀW] is a I + b 11ᵀ, and its trace is that of one draw on average.
            return float(1 - np.sqrt(((self.matrices**2).sum() / rounds - 1) / (devices - 1)))
        moduli = np.sort(np.abs(_eigenvalues(functools.reduce(lambda all, w: w @ all, self.matrices))))
        return float(1 - (moduli[-2] if moduli[-2] > 1e-12 else 0) ** (1 / rounds))  # a root would magnify rounding

    def largest_consensus_step_size(self) -> float:
        """The `ζ` below which `z ← W z + ζ (s − z)` is stable: every eigenvalue of `W − ζ I` inside the unit circle.

        `|λ − ζ| < 1` is `ζ < Re λ + √(1 − (Im λ)²)`, smallest over the eigenvalues: 2/3 on a large ring, but 2/(d + 1)
        on a `d`-dimensional hypercube. Of several matrices the smallest; that suffices where they are normal. Of
        column-stochastic matrices, which push-sum uses, weights far below 1 amplify what is added: there the limit is
        found by bisection.

        Raises:
          InputError: no limit is known: column-stochastic matrices that change, or weights that all but vanish.
        """
        if np.abs(self.matrices.sum(2) - 1).max() > 1e-6 and np.abs(self.matrices.sum(1) - 1).max() < 1e-6:
            return _push_sum_limit(self.matrices)
        eigenvalues = np.concatenate([_eigenvalues(matrix) for matrix in self.matrices])
        real, imag = eigenvalues.real, eigenvalues.imag
        return float(np.min(real + np.sqrt(np.maximum(1 - imag**2, 0))))


def _push_sum_limit(matrices: np.ndarray) -> float:
    """The `ζ` up to which distillation over `mixing.push_sum` is stable, once the weights have settled."""
    devices = matrices.shape[1]
    settled = np.linalg.matrix_power(matrices[0], 10_000) @ np.ones(devices)
    if len(matrices) > 1 or settled.min() < 1e-4:
        raise InputError(
            "no stable consensus step size is known for push_sum on this network, "
            + ("which changes" if len(matrices) > 1 else f"where weights settle as low as {settled.min():.1g}")
            + "; use consensus tracking, which needs none"
        )
    debiased, identity = matrices[0] / settled[:, None], np.eye(devices)

    def grows(step: float) -> bool:
        # The last mixed value v and the estimate z: v ← P (z + (w − 1) v) / w, z ← v − ζ z.
        mixed = np.hstack([debiased * (settled - 1), debiased])
        both = np.vstack([mixed, mixed - step * np.hstack([0 * identity, identity])])
        return bool(np.abs(np.linalg.eigvals(both)).max() > 1 + 1e-9)

    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return low


def _eigenvalues(matrix: np.ndarray) -> np.ndarray:
    symmetric = np.array_equal(matrix, matrix.T)
    return np.linalg.eigvalsh(matrix) if symmetric else np.linalg.eigvals(matrix)


# Networks that change: name → placeholders of its arguments.
CHANGING = {
    "one_peer_exponential": "",  # in round t device i sends to i + 2^(t mod log₂ N) (Assran et al., ICML 2019)
    "random_matching": "",  # pairs drawn anew each round
    "fresh_random_regular": "D",  # one random regular graph, its devices reordered at random each round
    "fresh_erdos_renyi": "P",  # drawn anew each round
    "alternating": "SPEC+SPEC",  # fixed graphs by turns
}
MIXING_WEIGHTS = (
    "metropolis_hastings",
    "uniform",
    "column_uniform",
    "row_uniform",
    "lazy_metropolis_hastings",
    "lazy_uniform",
)
STOCHASTIC = {"doubly": (0, 1), "column": (0,), "row": (1,), "links": ()}  # axes along which sums must be 1
_REMEDIES = {
    "doubly": "metropolis_hastings is, on undirected graphs; push_sum can do with column_uniform",
    "column": "column_uniform is",
    "row": "row_uniform is",
}


def default_weights(graph: nx.Graph, stochastic: str = "doubly") -> str:
    """`metropolis_hastings`; of a directed graph `uniform`, or where that is not doubly stochastic and need not be,
    `column_uniform` or `row_uniform`."""
    if not graph.is_directed():
        return "metropolis_hastings"
    degrees = {degree for _, degree in (*graph.in_degree(), *graph.out_degree())}
    if len(degrees) == 1 or stochastic == "doubly":
        return "uniform"
    return "column_uniform" if stochastic == "column" else "row_uniform"


def mixing_matrix(graph: nx.Graph, weights: str = "") -> np.ndarray:
    """A stochastic matrix on the graph, `[N, N]` float64.

    Args:
      graph: nodes `0 … N − 1`; directed or not.
      weights: `metropolis_hastings`, `W[n, m] = 1 / (1 + max(d_n, d_m))` (Xiao, Boyd, Lall 2005), for undirected graphs
        and the default there; `uniform`, `1 / (d + 1)` to itself and each in-neighbour, for graphs on which every
        device has `d` in- and `d` out-neighbours, and the default for directed ones; `lazy_…`, `(I + W) / 2` of
        either, whose eigenvalues have no negative real part. These are doubly stochastic. On any graph
        `column_uniform`, where a device shares what it has evenly among its out-neighbours and itself (columns sum to
        1), and `row_uniform`, where it weighs its in-neighbours and itself alike (rows sum to 1).

    Raises:
      InputError: unknown weights, or weights that are not doubly stochastic on this graph but should be.
    """
    name = weights or default_weights(graph)
    if name not in MIXING_WEIGHTS:
        raise suggest("mixing weights", name, MIXING_WEIGHTS)
    nodes = graph.number_of_nodes()
    # NetworkX has A[m, n] = 1 for the edge m → n; the receiver is the row of W.
    adjacency = nx.to_numpy_array(graph, nodelist=range(nodes), weight=None).T
    in_degree, out_degree = adjacency.sum(1), adjacency.sum(0)
    if name in ("column_uniform", "row_uniform"):
        closed = adjacency + np.eye(nodes)
        return closed / closed.sum(STOCHASTIC[name.split("_")[0]][0], keepdims=True)
    if name.endswith("uniform"):
        if np.unique(np.concatenate([in_degree, out_degree])).size > 1:
            raise InputError(
                f"mixing weights {name!r} are doubly stochastic only where all devices have equally many in- and "
                f"out-neighbours; here they have {in_degree.min():.0f} to {in_degree.max():.0f} in and "
                f"{out_degree.min():.0f} to {out_degree.max():.0f} out"
                + (
                    "; push_sum works with column_uniform weights, and distillation over it (--mixing=push_sum)"
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


def check_mixing_matrix(matrix: np.ndarray, stochastic: str = "doubly") -> None:
    """Refuses a matrix that does not average: non-negative, with the sums it needs, on a strongly connected graph.

    Args:
      matrix: `[N, N]`.
      stochastic: `doubly`, `column` or `row`: which sums must be 1.

    Raises:
      InputError: which of these fails, and where.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"a mixing matrix is square, got shape {matrix.shape}")
    _check_sums(matrix, stochastic)
    _check_connected(matrix)


def _check_sums(matrix: np.ndarray, stochastic: str) -> None:
    if not np.isfinite(matrix).all() or matrix.min() < 0:
        raise InputError(f"mixing weights must be finite and non-negative, the smallest is {matrix.min():g}")
    for axis, kind in ((1, "row"), (0, "column")):
        sums = matrix.sum(axis)
        worst = np.abs(sums - 1).argmax()
        if axis in STOCHASTIC[stochastic] and abs(sums[worst] - 1) > 1e-6:
            raise InputError(
                f"a {stochastic} stochastic matrix is needed here, and {kind} {worst} sums to {sums[worst]:.6g}; "
                + _REMEDIES[stochastic]
            )


def _check_connected(matrix: np.ndarray) -> None:
    network = nx.from_numpy_array(matrix.T, create_using=nx.DiGraph)
    parts = nx.number_strongly_connected_components(network)
    if parts > 1:
        raise InputError(
            f"the graph is not connected: {parts} parts cannot reach one another; add edges, or change the seed of a "
            "random one"
        )


def topology(spec: str, devices: int, weights: str = "", seed: int = 0, stochastic: str = "doubly") -> Topology:
    """Builds and checks a network; see `graph` and `mixing_matrix` for arguments and errors, `CHANGING` for networks
    that change. Of a cycle, the union of its graphs must be connected, not each of them.

    Args:
      spec: of the graph, or of a changing network.
      devices: number of nodes.
      weights: name of the mixing weights; the default is what suits graph and `stochastic`.
      seed: of the random graphs.
      stochastic: `doubly`, `column` or `row`: what is asked of the matrices; `links` if they do not matter.
    """
    if devices < 1:
        raise InputError(f"a network needs at least one device, got {devices}")
    name, _, rest = spec.partition(":")
    if name not in GRAPHS and name not in CHANGING:
        raise suggest("topology", name, (*GRAPHS, *CHANGING))
    try:
        if name in ("random_matching", "fresh_erdos_renyi", "fresh_random_regular"):
            return _drawn(spec, name, rest, devices, weights, seed)
        if name == "one_peer_exponential":
            hops = powers_of_two(devices)
            graphs = [circulant(devices, [hop], directed=True) for hop in hops] or [nx.empty_graph(devices)]
        elif name == "alternating":
            specs = rest.split("+")
            if changing := next((part for part in specs if part.split(":")[0] in CHANGING), None):
                raise InputError(f"it takes fixed graphs, and {changing!r} changes itself")
            graphs = [graph(part, devices, seed + number) for number, part in enumerate(specs)]
        else:
            graphs = [graph(spec, devices, seed)]
        alone = [node for node in range(devices) if devices > 1 and not any(each.degree(node) for each in graphs)]
        if alone:
            raise InputError(
                f"{len(alone)} of {devices} devices are linked to nobody, the first is {alone[0]}, so the graph is not "
                "connected; add edges, or take as many devices as it has"
            )
        names = [weights or default_weights(each, stochastic) for each in graphs]
        matrices = np.stack([mixing_matrix(each, name) for each, name in zip(graphs, names, strict=True)])
        for matrix in matrices:
            _check_sums(matrix, stochastic)
        _check_connected(matrices.sum(0))
    except InputError as error:
        raise error if str(error).startswith("topology") else InputError(f"topology {spec!r}: {error}") from None
    cycle = len(matrices) > 1
    return Topology(spec, "+".join(dict.fromkeys(names)), matrices if cycle else matrices[0], matrices)


def _drawn(spec: str, name: str, rest: str, devices: int, weights: str, seed: int) -> Topology:
    if weights not in ("", "metropolis_hastings"):
        raise InputError(f"its mixing weights are metropolis_hastings, got {weights!r}")
    weights = "metropolis_hastings"
    if name == "fresh_erdos_renyi":
        try:
            probability = float(rest)
        except ValueError:
            probability = math.nan
        if not 0 < probability <= 1:
            raise InputError("expected 'fresh_erdos_renyi:P' with P in (0, 1]")
        network: Any = networks.ErdosRenyi(np.float32(probability), devices)
        draws = int(np.clip(2**22 // devices**2, 4, 64))  # at most 32 MiB
        keys = jax.random.split(jax.random.key(seed), draws)
        matrices = np.asarray(jax.lax.map(network.draw, keys), np.float64)
        return Topology(spec, weights, network, matrices)
    if name == "random_matching":
        if rest or devices % 2:
            raise InputError(f"expected 'random_matching' on an even number of devices, got {devices}")
        base = nx.from_edgelist((i, i + 1) for i in range(0, devices, 2))
    else:
        base = graph(f"random_regular:{rest}", devices, seed)
        if not base.number_of_edges():
            raise InputError("a graph without links cannot average; give D of at least 1")
    matrix = mixing_matrix(base, weights)
    return Topology(spec, weights, networks.Relabeled(np.float32(matrix)), matrix[None])
