"""Networks of devices: graphs with their mixing matrices, fixed or changing.

Convention: an edge `m → n` of a directed graph means that `m` sends to `n`, and `W[n, m]` is the weight `n` gives to
what it receives from `m`. Consensus on the average needs a doubly stochastic matrix on a strongly connected graph;
push-sum a column-stochastic one, and averages that need no common limit a row-stochastic one.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import networkx as nx
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg

from ddjax.errors import InputError, suggest
from ddjax.networks.graphs import GRAPHS, circulant, graph, powers_of_two
from ddjax.networks.matrices import Drawn, ErdosRenyi, Relabeled, sparse

# Devices up to which eigenvalues are found by dense methods, in seconds, and the size of the iterative ones above.
_DENSE = 2000
_KRYLOV, _RESTARTS, _TOLERANCE = 40, 75, 1e-10


class Topology(NamedTuple):
    """A checked network with its mixing matrix or matrices.

    Attributes:
      name: the specification it was built from.
      weights: the name of the mixing weights.
      network: what `Problem.network` takes: `[N, N]`, a cycle `[T, N, N]`, a `matrices.Sparse` of either,
        or a `matrices.Drawn`.
      matrices: `T` sparse arrays `[N, N]` float64: the one, those of the cycle, or draws to estimate from.
    """

    name: str
    weights: str
    network: Any
    matrices: Sequence[scipy.sparse.csr_array]

    @property
    def changes(self) -> bool:
        """Whether not all rounds have the same graph."""
        return len(self.matrices) > 1 or isinstance(self.network, Drawn)

    @property
    def directed_edges(self) -> float:
        """Links that carry a message in a round, on average over rounds; an undirected edge is two."""
        links = [matrix.count_nonzero() - np.count_nonzero(matrix.diagonal()) for matrix in self.matrices]
        return sum(links) / len(links)

    @property
    def spectral_gap(self) -> float | None:
        """By how much disagreement shrinks in a round, `1 − ` its factor; 1 for a single device.

        Of a fixed graph `1 − |λ₂|`, with `λ₂` the second largest eigenvalue in modulus; of a cycle the geometric mean
        over its rounds; of graphs drawn anew `1 − √λ₂(E[WᵀW])` (Boyd, Ghosh, Prabhakar, Shah 2006). `None` where it
        could not be found: on thousands of devices with an irregular graph that mixes very slowly.
        """
        rounds, devices = len(self.matrices), self.matrices[0].shape[0]
        if devices == 1:
            return 1.0
        if isinstance(self.network, Drawn):
            # All devices being alike, E[WᵀW] is a I + b 11ᵀ, and its trace is that of one draw on average.
            squares = sum((matrix.data**2).sum() for matrix in self.matrices) / rounds
            return float(1 - np.sqrt((squares - 1) / (devices - 1)))
        second = _second_modulus(self.matrices)
        # A root would magnify rounding.
        return None if second is None else float(1 - (second if second > 1e-12 else 0) ** (1 / rounds))

    def largest_consensus_step_size(self) -> float:
        """The `ζ` below which `z ← W z + ζ (s − z)` is stable: every eigenvalue of `W − ζ I` inside the unit circle.

        `|λ − ζ| < 1` is `ζ < Re λ + √(1 − (Im λ)²)`, smallest over the eigenvalues: 2/3 on a large ring, but 2/(d + 1)
        on a `d`-dimensional hypercube. Of several matrices the smallest; that suffices where they are normal. Of
        column-stochastic matrices, which push-sum uses, weights far below 1 amplify what is added: there the limit is
        found by bisection. Where the eigenvalues of thousands of devices could not be found it is `2 min_n W_nn`, below
        which all is stable by Gershgorin's theorem.

        Raises:
          InputError: no limit is known: column-stochastic matrices that change or are of thousands of devices, or
            weights that all but vanish.
        """
        rows, columns = (max(abs(m.sum(axis) - 1).max() for m in self.matrices) for axis in (1, 0))
        if rows > 1e-6 and columns < 1e-6:
            return _push_sum_limit(self.matrices)
        return min(map(_step_limit, self.matrices))


def _step_limit(matrix: scipy.sparse.csr_array) -> float:
    eigenvalues: np.ndarray | None = _circulant_eigenvalues(matrix)
    if eigenvalues is None and matrix.shape[0] <= _DENSE:
        eigenvalues = _eigenvalues(matrix.toarray())
    elif eigenvalues is None and _symmetric(matrix):
        eigenvalues = _extreme(scipy.sparse.linalg.eigsh, matrix, which="SA")
    if eigenvalues is None:
        return float(2 * matrix.diagonal().min())
    return float(np.min(eigenvalues.real + np.sqrt(np.maximum(1 - eigenvalues.imag**2, 0))))


def _push_sum_limit(matrices: Sequence[scipy.sparse.csr_array]) -> float:
    """The `ζ` up to which distillation over `mixing.push_sum` is stable, once the weights have settled."""
    devices = matrices[0].shape[0]
    reason = "which changes" if len(matrices) > 1 else f"which has over {_DENSE} devices" if devices > _DENSE else ""
    if not reason:
        matrix = matrices[0].toarray()
        settled = np.linalg.matrix_power(matrix, 10_000) @ np.ones(devices)
        if settled.min() < 1e-4:
            reason = f"where weights settle as low as {settled.min():.1g}"
    if reason:
        raise InputError(
            f"no stable consensus step size is known for push_sum on this network, {reason}; use consensus tracking, "
            "which needs none"
        )
    debiased, identity = matrix / settled[:, None], np.eye(devices)

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


def _symmetric(matrix: scipy.sparse.csr_array) -> bool:
    return (matrix != matrix.T).nnz == 0


def _circulant_eigenvalues(matrix: scipy.sparse.csr_array) -> np.ndarray | None:
    """In the order of the Fourier basis, which circulant matrices share; `None` of another."""
    column = matrix[:, [0]].toarray()[:, 0]
    entries = matrix.tocoo()
    same = np.allclose(entries.data, column[(entries.row - entries.col) % len(column)], rtol=0, atol=1e-12)
    return np.fft.fft(column) if same and matrix.nnz == len(column) * np.count_nonzero(column) else None


def _eigenvalues(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(matrix) if np.array_equal(matrix, matrix.T) else np.linalg.eigvals(matrix)


def _second_modulus(matrices: Sequence[scipy.sparse.csr_array]) -> float | None:
    """Of the eigenvalues of the product of stochastic matrices, the second largest modulus; `None` if not found."""
    devices = matrices[0].shape[0]
    shared = [each for matrix in matrices if (each := _circulant_eigenvalues(matrix)) is not None]
    if len(shared) == len(matrices):
        eigenvalues = np.prod(shared, axis=0)
    elif devices <= _DENSE:
        eigenvalues = _eigenvalues(functools.reduce(lambda all, matrix: matrix @ all, matrices).toarray())
    else:
        return _iterated_modulus(matrices)
    return float(np.sort(np.abs(eigenvalues))[-2])


def _iterated_modulus(matrices: Sequence[scipy.sparse.csr_array]) -> float | None:
    devices = matrices[0].shape[0]
    symmetric = len(matrices) == 1 and _symmetric(matrices[0])

    def apply(x: np.ndarray) -> np.ndarray:
        # Less the mean, which moves the eigenvalue 1 of a row- or column-stochastic matrix to 0, and no other.
        return functools.reduce(lambda x, matrix: matrix @ x, matrices, x) - x.mean()

    operator = scipy.sparse.linalg.LinearOperator((devices, devices), apply, dtype=float)
    found = _extreme(scipy.sparse.linalg.eigsh if symmetric else scipy.sparse.linalg.eigs, operator, which="LM")
    return None if found is None else float(np.abs(found[0]))


def _extreme(method: Callable, operator: Any, which: str) -> np.ndarray | None:
    """An eigenvalue at the end of the spectrum by Lanczos' or Arnoldi's method; `None` if it does not converge."""
    start = np.random.default_rng(0).normal(size=operator.shape[0])
    limits = {"ncv": _KRYLOV, "maxiter": _RESTARTS, "tol": _TOLERANCE}
    try:
        return method(operator, k=1, which=which, v0=start, return_eigenvectors=False, **limits)
    except scipy.sparse.linalg.ArpackNoConvergence:
        return None


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
PRODUCTS = ("dense", "gather")  # a matrix product with W [N, N], or a sum over the links of a `matrices.Sparse`
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


def mixing_matrix(graph: nx.Graph, weights: str = "") -> scipy.sparse.csr_array:
    """A stochastic matrix on the graph, sparse `[N, N]` float64.

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
    adjacency = scipy.sparse.csr_array((nodes, nodes))
    if graph.number_of_edges():
        adjacency = nx.to_scipy_sparse_array(graph, nodelist=range(nodes), weight=None, dtype=float).T.tocsr()
    in_degree, out_degree = adjacency.sum(1), adjacency.sum(0)
    identity = scipy.sparse.eye_array(nodes, format="csr")
    if name == "column_uniform":
        return (adjacency + identity).multiply(1 / (1 + out_degree)).tocsr()
    if name == "row_uniform":
        return (adjacency + identity).multiply(1 / (1 + in_degree)[:, None]).tocsr()
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
        edges = adjacency.tocoo()
        edges.data /= 1 + np.maximum(in_degree[edges.row], in_degree[edges.col])
        matrix = edges.tocsr()
    matrix = matrix + scipy.sparse.diags_array(1 - matrix.sum(1), format="csr")
    return (identity + matrix) / 2 if name.startswith("lazy_") else matrix


def check_mixing_matrix(matrix: Any, stochastic: str = "doubly") -> None:
    """Refuses a matrix that does not average: non-negative, with the sums it needs, on a strongly connected graph.

    Args:
      matrix: `[N, N]`, an array or of `scipy.sparse`.
      stochastic: `doubly`, `column` or `row`: which sums must be 1.

    Raises:
      InputError: which of these fails, and where.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"a mixing matrix is square, got shape {matrix.shape}")
    matrix = scipy.sparse.csr_array(matrix)
    _check_sums(matrix, stochastic)
    _check_connected(matrix)


def _check_sums(matrix: scipy.sparse.csr_array, stochastic: str) -> None:
    if not np.isfinite(matrix.data).all() or matrix.data.min() < 0:
        raise InputError(f"mixing weights must be finite and non-negative, the smallest is {matrix.min():g}")
    for axis, kind in ((1, "row"), (0, "column")):
        sums = matrix.sum(axis)
        worst = np.abs(sums - 1).argmax()
        if axis in STOCHASTIC[stochastic] and abs(sums[worst] - 1) > 1e-6:
            raise InputError(
                f"a {stochastic} stochastic matrix is needed here, and {kind} {worst} sums to {sums[worst]:.6g}; "
                + _REMEDIES[stochastic]
            )


def _check_connected(matrix: scipy.sparse.csr_array) -> None:
    parts, _ = scipy.sparse.csgraph.connected_components(matrix, connection="strong")
    if parts > 1:
        raise InputError(
            f"the graph is not connected: {parts} parts cannot reach one another; add edges, or change the seed of a "
            "random one"
        )


def topology(
    spec: str, devices: int, weights: str = "", seed: int = 0, stochastic: str = "doubly", product: str = ""
) -> Topology:
    """Builds and checks a network; see `graph` and `mixing_matrix` for arguments and errors, `CHANGING` for networks
    that change. Of a cycle, the union of its graphs must be connected, not each of them.

    Args:
      spec: of the graph, or of a changing network.
      devices: number of nodes.
      weights: name of the mixing weights; the default is what suits graph and `stochastic`.
      seed: of the random graphs.
      stochastic: `doubly`, `column` or `row`: what is asked of the matrices; `links` if they do not matter.
      product: a key of `PRODUCTS`: the form of the mixing matrix; the default is the quicker one. A network that draws
        is dense.
    """
    if devices < 1:
        raise InputError(f"a network needs at least one device, got {devices}")
    if product and product not in PRODUCTS:
        raise suggest("mixing product", product, PRODUCTS)
    name, _, rest = spec.partition(":")
    if name not in GRAPHS and name not in CHANGING:
        raise suggest("topology", name, (*GRAPHS, *CHANGING))
    try:
        if name in ("random_matching", "fresh_erdos_renyi", "fresh_random_regular"):
            if product == "gather":
                raise InputError("a network that draws a graph each round is dense, so it has no product 'gather'")
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
        matrices = [mixing_matrix(each, name) for each, name in zip(graphs, names, strict=True)]
        for matrix in matrices:
            _check_sums(matrix, stochastic)
        union = functools.reduce(lambda a, b: a + b, matrices)
        _check_connected(union)
    except InputError as error:
        raise error if str(error).startswith("topology") else InputError(f"topology {spec!r}: {error}") from None
    if (product or quickest_product(union)) == "gather":
        form: Any = sparse(*matrices)
    else:
        stack = np.stack([matrix.toarray() for matrix in matrices])
        form = stack if len(matrices) > 1 else stack[0]
    return Topology(spec, "+".join(dict.fromkeys(names)), form, matrices)


def quickest_product(matrix: scipy.sparse.csr_array) -> str:
    """The quicker of `PRODUCTS`, as measured on CPU: `gather` on 64 devices or more of which each hears at most an
    eighth."""
    devices = matrix.shape[0]
    return "gather" if devices >= 64 and matrix.nnz <= devices**2 / 8 else "dense"


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
        network: Any = ErdosRenyi(np.float64(probability), devices)
        draws = int(np.clip(2**22 // devices**2, 4, 64))  # at most 32 MiB
        keys = jax.random.split(jax.random.key(seed), draws)
        drawn = np.asarray(jax.lax.map(network.draw, keys), np.float64)
        return Topology(spec, weights, network, [scipy.sparse.csr_array(matrix) for matrix in drawn])
    if name == "random_matching":
        if rest or devices % 2:
            raise InputError(f"expected 'random_matching' on an even number of devices, got {devices}")
        base = nx.from_edgelist((i, i + 1) for i in range(0, devices, 2))
    else:
        base = graph(f"random_regular:{rest}", devices, seed)
        if not base.number_of_edges():
            raise InputError("a graph without links cannot average; give D of at least 1")
    matrix = mixing_matrix(base, weights)
    return Topology(spec, weights, Relabeled(matrix.toarray()), [matrix])
