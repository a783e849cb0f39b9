"""Networks by name: graphs with their mixing matrices, fixed or changing.

An edge `m → n` of a directed graph means that `m` sends to `n`, and `W[n, m]` is the weight that `n` gives to what it
receives from `m`. Consensus on the average needs a doubly stochastic matrix on a strongly connected graph. Push-sum
needs a column-stochastic matrix. Mixing that need not reach the average, such as gossip, needs only a row-stochastic
matrix.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from ddjax.errors import InputError, suggest
from ddjax.networks import spectrum
from ddjax.networks.base_graph import base_graph
from ddjax.networks.changing import Cycle, ErdosRenyi, Relabeled
from ddjax.networks.checks import check_connected, check_sums
from ddjax.networks.links import from_matrices
from ddjax.networks.matrices import Dense
from ddjax.networks.network import Network
from ddjax.networks.weights import default_weights, mixing_matrix
from ddjax.registry import Argument, Entry, Registry, number, whole

if TYPE_CHECKING:
    import networkx as nx


class Topology(NamedTuple):
    """Network that was built by name and checked.

    Attributes:
      name: specification from which the network was built, such as `random_regular:4`.
      weights: name of the mixing weights.
      network: network for `Problem.network`.
      matrices: sparse float64 arrays `[N, N]`: one matrix, the matrices of a cycle, or a few draws.
      note: remark on how an edge file was read; empty if there is nothing to remark.
    """

    name: str
    weights: str
    network: Network
    matrices: Sequence[scipy.sparse.csr_array]
    note: str = ""

    @property
    def directed_edges(self) -> float:
        """Number of links that carry a message in a round, averaged over rounds; an undirected edge counts twice."""
        links = [matrix.count_nonzero() - np.count_nonzero(matrix.diagonal()) for matrix in self.matrices]
        return sum(links) / len(links)

    @property
    def spectral_gap(self) -> float | None:
        """Spectral gap (see `spectrum.spectral_gap`); also `None` if messages are lost."""
        if self.network.loses_messages:
            return None
        return spectrum.spectral_gap(self.matrices, drawn=self.network.draws)

    def largest_consensus_step_size(self) -> float:
        """Compute the largest stable consensus step size; see `spectrum.largest_consensus_step_size`."""
        return largest_consensus_step_size(self.network, self.matrices)


def largest_consensus_step_size(network: Network, matrices: Sequence[scipy.sparse.csr_array] | None = None) -> float:
    """Compute the `ζ` below which consensus by `gradient` is stable; see `spectrum.largest_consensus_step_size`.

    Args:
      network: network as in `Problem.network`.
      matrices: matrices of the network in full precision; by default `network.sample_matrices()`.

    Raises:
      InputError: if no limit is known.

    Examples:
      >>> from ddjax.networks import build_topology, largest_consensus_step_size
      >>> round(largest_consensus_step_size(build_topology("ring", 32).network), 3)  # 2/3
      0.667
      >>> round(largest_consensus_step_size(build_topology("hypercube", 32).network), 3)  # 2/(5 + 1)
      0.333
    """
    matrices = matrices or network.sample_matrices()
    if network.loses_messages:  # a lost message only increases a diagonal entry
        return spectrum.gershgorin_step_size(matrices)
    return spectrum.largest_consensus_step_size(matrices)


class Request(NamedTuple):
    """Settings of a topology besides the arguments in its specification.

    Attributes:
      devices: number of devices `N`.
      weights: name of the mixing weights; empty for weights that suit the graph and `stochastic`.
      seed: seed of random graphs.
      stochastic: sums of `W` that must be 1: of each `column`, each `row`, or both (`doubly`); `links` for neither.
      product: one of `PRODUCTS`; empty for the fastest.
    """

    devices: int
    weights: str = ""
    seed: int = 0
    stochastic: str = "doubly"
    product: str = ""


@dataclasses.dataclass(frozen=True)
class TopologyEntry(Entry):
    """Entry for a graph, or for a whole network.

    `build` is `(devices, seed, *arguments) → nx.Graph`, directed or not, or `(request, *arguments) → Topology`.

    Attributes:
      whole: whether `build` returns a `Topology` (the second form) and not a graph.
    """

    whole: bool = False


TOPOLOGIES: Registry[TopologyEntry] = Registry("topology")

PRODUCTS = ("dense", "gather", "shift")  # see `forms.mixing_product`


def build_topology(
    spec: str, devices: int, weights: str = "", seed: int = 0, stochastic: str = "doubly", product: str = ""
) -> Topology:
    """Build and check the network that `spec` names.

    The seed determines a random graph. In a cycle, the union of the graphs must be connected; a single graph need not
    be.

    Args:
      spec: name in `TOPOLOGIES` with its arguments, such as `ring`, `erdos_renyi:0.2` or `edges:FILE`.
      devices: number of devices `N`.
      weights: name of the mixing weights; empty for weights that suit the graph and `stochastic`.
      seed: seed of random graphs.
      stochastic: sums of `W` that must be 1: of each `column`, each `row`, or both (`doubly`); `links` for neither.
      product: one of `PRODUCTS`; empty for the fastest.

    Raises:
      InputError: if a name is unknown, arguments do not fit, a file cannot be read, or the network fails a check.

    Examples:
      >>> from ddjax.networks import build_topology
      >>> for spec in ("ring", "torus", "hypercube", "complete"):
      ...     print(spec, round(build_topology(spec, 16).spectral_gap, 3))
      ring 0.051
      torus 0.4
      hypercube 0.4
      complete 1.0
    """
    if devices < 1:
        raise InputError(f"a network needs at least one device, got {devices}")
    if product and product not in PRODUCTS:
        raise suggest("mixing product", product, PRODUCTS)
    choice = TOPOLOGIES.parse(spec)
    request = Request(devices, weights, seed, stochastic, product)
    try:
        if choice.entry.whole:
            return choice.build(request)._replace(name=spec)
        return of_graphs([build_graph(spec, devices, seed)], request)._replace(name=spec)
    except InputError as error:
        raise error if str(error).startswith("topology") else InputError(f"topology {spec!r}: {error}") from None


def build_graph(spec: str, devices: int, seed: int = 0) -> "nx.Graph":
    """Build the graph that `spec` names on nodes `0 … devices − 1`, without self-loops.

    Raises:
      InputError: if no fixed graph has this name, arguments do not fit, or a file cannot be read.

    Examples:
      >>> from ddjax.networks import build_graph
      >>> build_graph("torus", 12)
      <networkx.classes.graph.Graph object ...>
      >>> sorted(build_graph("torus", 12)[0])  # neighbours of device 0 in the grid of 3 × 4
      [1, 3, 4, 8]
    """
    choice = TOPOLOGIES.parse(spec)
    if choice.entry.whole:
        raise InputError(f"topology {spec!r} changes from round to round, but a fixed graph is needed here")
    from networkx import NetworkXException  # slow to import

    from ddjax.networks.graphs import tidy

    try:
        return tidy(choice.build(devices, seed))
    except InputError:
        raise
    except (ValueError, NetworkXException) as error:
        raise InputError(f"topology {spec!r} on {devices} devices: {error}; expected {choice.entry.usage!r}") from None


def of_graphs(members: Sequence["nx.Graph"], request: Request) -> Topology:
    """Make a network from one graph, or from several graphs that are used in turn."""
    devices = request.devices
    alone = [node for node in range(devices) if devices > 1 and not any(each.degree(node) for each in members)]
    if alone:
        raise InputError(
            f"the graph is not connected: {len(alone)} of {devices} devices have no link (the first is device "
            f"{alone[0]}); add edges, or use as many devices as the graph has nodes"
        )
    names = [request.weights or default_weights(each, request.stochastic) for each in members]
    matrices = [mixing_matrix(each, name) for each, name in zip(members, names, strict=True)]
    note = "; ".join(filter(None, (each.graph.get("note") for each in members)))
    return of_matrices(matrices, request)._replace(weights="+".join(dict.fromkeys(names)), note=note)


def of_matrices(matrices: Sequence[scipy.sparse.csr_array], request: Request) -> Topology:
    """Make a network from one mixing matrix, or from several matrices that are used in turn."""
    for matrix in matrices:
        check_sums(matrix, request.stochastic)
    union = functools.reduce(lambda a, b: a + b, matrices)
    check_connected(union)
    if request.product != "dense" and (request.product or is_sparse(union)):
        form: Any = from_matrices(*matrices, form=request.product)
    else:
        stack = np.stack([matrix.toarray() for matrix in matrices])
        form = Dense(stack if len(matrices) > 1 else stack[0])
    network = Cycle(form, len(matrices)) if len(matrices) > 1 else form
    return Topology("", request.weights, network, matrices)


def is_sparse(matrix: scipy.sparse.csr_array) -> bool:
    """Decide whether a mixing matrix is stored by its links.

    It is stored by its links if there are at least 64 devices, and each hears at most an eighth of the others on
    average. Then, as measured on a CPU, a sum over the links is faster than a dense product.
    """
    devices = matrix.shape[0]
    return devices >= 64 and matrix.nnz <= devices**2 / 8


def _drawn_weights(request: Request) -> str:
    if request.product not in ("", "dense"):
        raise InputError(f"a graph that is drawn in each round needs mixing product 'dense', got {request.product!r}")
    if request.weights not in ("", "metropolis_hastings"):
        raise InputError(
            f"a graph that is drawn in each round needs mixing weights 'metropolis_hastings', got {request.weights!r}"
        )
    return "metropolis_hastings"


def _relabeled(base: "nx.Graph", request: Request) -> Topology:
    weights = _drawn_weights(request)
    matrix = mixing_matrix(base, weights)
    return Topology("", weights, Relabeled(matrix.toarray()), [matrix])


def one_peer_exponential(request: Request) -> Topology:
    """Make each device `i` send to `i + 2^(t mod log₂ N)` in round `t` (Assran et al., ICML 2019)."""
    from ddjax.networks.graphs import circulant, complete, powers_of_two

    devices = request.devices
    members = [circulant(devices, [hop], directed=True) for hop in powers_of_two(devices)]
    return of_graphs(members or [complete(devices, 0)], request)


def base_k_plus_one(request: Request, k: int) -> Topology:
    """Make a cycle of sparse graphs with their own weights; after one cycle, all devices have the exact average.

    This works for any number of devices. A device has at most `K` neighbours in a round (Takezawa et al., NeurIPS
    2023).
    """
    if request.weights:
        raise InputError(f"this topology has its own mixing weights; leave out {request.weights!r}")
    return of_matrices(base_graph(request.devices, k), request)._replace(weights="base_k_plus_one")


def random_matching(request: Request) -> Topology:
    """Draw a perfect matching of the devices anew in each round."""
    _drawn_weights(request)
    if request.devices % 2:
        raise InputError(f"a perfect matching needs an even number of devices, got {request.devices}")
    from networkx import from_edgelist  # slow to import

    return _relabeled(from_edgelist((i, i + 1) for i in range(0, request.devices, 2)), request)


def fresh_random_regular(request: Request, degree: int) -> Topology:
    """Draw one random regular graph, and permute its devices in each round."""
    _drawn_weights(request)
    base = build_graph(f"random_regular:{degree}", request.devices, request.seed)
    if not base.number_of_edges():
        raise InputError("a graph without links cannot average; use a degree D of at least 1")
    return _relabeled(base, request)


def fresh_erdos_renyi(request: Request, probability: float) -> Topology:
    """Draw a graph anew in each round; each link exists with probability `P`."""
    weights = _drawn_weights(request)
    network = ErdosRenyi(np.float64(probability), request.devices)
    return Topology("", weights, network, network.sample_matrices(request.seed))


def alternating(request: Request, specs: str) -> Topology:
    """Use fixed graphs in turn."""
    names = specs.split("+")
    members = [build_graph(name, request.devices, request.seed + turn) for turn, name in enumerate(names)]
    return of_graphs(members, request)


def _graph(name: str, *arguments: Argument) -> None:
    """Register a graph; the function `name` in the module `graphs` makes it."""

    def build(devices: int, seed: int, *values: Any) -> "nx.Graph":
        from ddjax.networks import graphs  # loads NetworkX, which is slow

        return getattr(graphs, name)(devices, seed, *values)

    TOPOLOGIES.add(TopologyEntry(name, build, arguments))


def _network(name: str, build: Callable[..., Topology], *arguments: Argument) -> None:
    TOPOLOGIES.add(TopologyEntry(name, build, arguments, whole=True))


_probability = Argument("P", number(0, 1))
for _name in (
    "ring",
    "path",
    "binary_tree",
    "complete",
    "star",
    "torus",
    "hypercube",
    "exponential",
    "directed_ring",
    "directed_exponential",
):
    _graph(_name)
_graph("erdos_renyi", _probability)
_graph("watts_strogatz", Argument("K", whole()), _probability)
_graph("random_regular", Argument("D", whole()))
_graph("barabasi_albert", Argument("M", whole()))
_graph("edges", Argument("FILE"))
_graph("directed_edges", Argument("FILE"))
_network("one_peer_exponential", one_peer_exponential)
_network("base_k_plus_one", base_k_plus_one, Argument("K", whole(1)))
_network("random_matching", random_matching)
_network("fresh_random_regular", fresh_random_regular, Argument("D", whole()))
_network("fresh_erdos_renyi", fresh_erdos_renyi, Argument("P", number(0, 1, positive=True)))
_network("alternating", alternating, Argument("SPEC+SPEC"))
