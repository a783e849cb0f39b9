"""Networks by name: graphs with their mixing matrices, fixed or changing.

Convention: an edge `m → n` of a directed graph means that `m` sends to `n`, and `W[n, m]` is the weight `n` gives to
what it receives from `m`. Consensus on the average needs a doubly stochastic matrix on a strongly connected graph;
push-sum a column-stochastic one, and averages that need no common limit a row-stochastic one.
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
    """A checked network.

    Attributes:
      name: the specification it was built from.
      weights: the name of the mixing weights.
      network: what `Problem.network` takes.
      matrices: `T` sparse arrays `[N, N]` float64: the one, those of the cycle, or draws to estimate from.
      note: how an edge file was understood, where a reader should know; empty otherwise.
    """

    name: str
    weights: str
    network: Network
    matrices: Sequence[scipy.sparse.csr_array]
    note: str = ""

    @property
    def directed_edges(self) -> float:
        """Links that carry a message in a round, on average over rounds; an undirected edge is two."""
        links = [matrix.count_nonzero() - np.count_nonzero(matrix.diagonal()) for matrix in self.matrices]
        return sum(links) / len(links)

    @property
    def spectral_gap(self) -> float | None:
        """See `spectrum.spectral_gap`; `None` also where messages are lost."""
        if self.network.loses_messages:
            return None
        return spectrum.spectral_gap(self.matrices, drawn=self.network.draws)

    def largest_consensus_step_size(self) -> float:
        """See `spectrum.largest_consensus_step_size`."""
        return largest_consensus_step_size(self.network, self.matrices)


def largest_consensus_step_size(network: Network, matrices: Sequence[scipy.sparse.csr_array] | None = None) -> float:
    """The `ζ` below which the gradient form is stable on a network; see `spectrum.largest_consensus_step_size`.

    Args:
      network: what `Problem.network` holds.
      matrices: those of the network in full precision, where they are at hand.
    """
    matrices = matrices or network.sample_matrices()
    if network.loses_messages:  # what is lost only adds to a diagonal
        return spectrum.gershgorin_step_size(matrices)
    return spectrum.largest_consensus_step_size(matrices)


class Request(NamedTuple):
    """What is asked of a topology beside its own arguments.

    Attributes:
      devices: `N`.
      weights: name of the mixing weights; empty for what suits graph and `stochastic`.
      seed: for random graphs.
      stochastic: `doubly`, `column` or `row`: which sums must be 1; `links` if weights do not matter.
      product: one of `PRODUCTS`; empty for the quickest.
    """

    devices: int
    weights: str = ""
    seed: int = 0
    stochastic: str = "doubly"
    product: str = ""


@dataclasses.dataclass(frozen=True)
class TopologyEntry(Entry):
    """A graph, or a network that is more than one.

    `build` is `(devices, seed, *arguments) → nx.Graph`, directed or not, or `(request, *arguments) → Topology`.

    Attributes:
      whole: whether it is the latter.
    """

    whole: bool = False


TOPOLOGIES: Registry[TopologyEntry] = Registry("topology")

PRODUCTS = ("dense", "gather", "shift")  # see `forms.mixing_product`


def build_topology(
    spec: str, devices: int, weights: str = "", seed: int = 0, stochastic: str = "doubly", product: str = ""
) -> Topology:
    """Builds and checks the network named by `spec`.

    A random graph follows from the seed. For a cycle the union of its graphs must be connected, not each of them.

    Args:
      spec: a name of `TOPOLOGIES` with its arguments, such as `ring`, `erdos_renyi:0.2`, `edges:FILE`.
      devices: see `Request` for this and the others.

    Raises:
      InputError: unknown names, arguments that do not fit, an unreadable file, or a network that does not average.
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
    """The graph named by `spec` on nodes `0 … devices − 1`, without self-loops.

    Raises:
      InputError: a name that is not a graph's, arguments that do not fit, or an unreadable file.
    """
    choice = TOPOLOGIES.parse(spec)
    if choice.entry.whole:
        raise InputError(f"a fixed graph is needed, and {spec!r} changes itself")
    from networkx import NetworkXException  # slow to import

    from ddjax.networks.graphs import tidy

    try:
        return tidy(choice.build(devices, seed))
    except InputError:
        raise
    except (ValueError, NetworkXException) as error:
        raise InputError(f"topology {spec!r} on {devices} devices: {error}; expected {choice.entry.usage!r}") from None


def of_graphs(members: Sequence["nx.Graph"], request: Request) -> Topology:
    """A network of one graph, or of several by turns."""
    devices = request.devices
    alone = [node for node in range(devices) if devices > 1 and not any(each.degree(node) for each in members)]
    if alone:
        raise InputError(
            f"{len(alone)} of {devices} devices are linked to nobody, the first is {alone[0]}, so the graph is not "
            "connected; add edges, or take as many devices as it has"
        )
    names = [request.weights or default_weights(each, request.stochastic) for each in members]
    matrices = [mixing_matrix(each, name) for each, name in zip(members, names, strict=True)]
    note = "; ".join(filter(None, (each.graph.get("note") for each in members)))
    return of_matrices(matrices, request)._replace(weights="+".join(dict.fromkeys(names)), note=note)


def of_matrices(matrices: Sequence[scipy.sparse.csr_array], request: Request) -> Topology:
    """A network of one mixing matrix, or of several by turns."""
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
    """Whether a mixing matrix is kept by its links: on 64 devices or more of which each hears at most an eighth. On CPU
    this is where a sum over the links is the quicker product, as measured."""
    devices = matrix.shape[0]
    return devices >= 64 and matrix.nnz <= devices**2 / 8


def _drawn_weights(request: Request) -> str:
    if request.product not in ("", "dense"):
        raise InputError(f"a network that draws a graph each round is dense, so it has no product {request.product!r}")
    if request.weights not in ("", "metropolis_hastings"):
        raise InputError(f"its mixing weights are metropolis_hastings, got {request.weights!r}")
    return "metropolis_hastings"


def _relabeled(base: "nx.Graph", request: Request) -> Topology:
    weights = _drawn_weights(request)
    matrix = mixing_matrix(base, weights)
    return Topology("", weights, Relabeled(matrix.toarray()), [matrix])


def one_peer_exponential(request: Request) -> Topology:
    """In round `t` device `i` sends to `i + 2^(t mod log₂ N)` (Assran et al., ICML 2019)."""
    from ddjax.networks.graphs import circulant, complete, powers_of_two

    devices = request.devices
    members = [circulant(devices, [hop], directed=True) for hop in powers_of_two(devices)]
    return of_graphs(members or [complete(devices, 0)], request)


def base_k_plus_one(request: Request, k: int) -> Topology:
    """Graphs by turns, with weights of their own, after which any number of devices has the exact average (Takezawa et
    al., NeurIPS 2023); a device has at most `K` neighbours in a round."""
    if request.weights:
        raise InputError(f"its mixing weights are its own, so leave them out, got {request.weights!r}")
    return of_matrices(base_graph(request.devices, k), request)._replace(weights="base_k_plus_one")


def random_matching(request: Request) -> Topology:
    """Pairs drawn anew each round."""
    _drawn_weights(request)
    if request.devices % 2:
        raise InputError(f"expected 'random_matching' on an even number of devices, got {request.devices}")
    from networkx import from_edgelist  # slow to import

    return _relabeled(from_edgelist((i, i + 1) for i in range(0, request.devices, 2)), request)


def fresh_random_regular(request: Request, degree: int) -> Topology:
    """One random regular graph, its devices reordered at random each round."""
    _drawn_weights(request)
    base = build_graph(f"random_regular:{degree}", request.devices, request.seed)
    if not base.number_of_edges():
        raise InputError("a graph without links cannot average; give D of at least 1")
    return _relabeled(base, request)


def fresh_erdos_renyi(request: Request, probability: float) -> Topology:
    """Every link is there with probability `P`, drawn anew each round."""
    weights = _drawn_weights(request)
    network = ErdosRenyi(np.float64(probability), request.devices)
    return Topology("", weights, network, network.sample_matrices(request.seed))


def alternating(request: Request, specs: str) -> Topology:
    """Fixed graphs by turns."""
    names = specs.split("+")
    members = [build_graph(name, request.devices, request.seed + turn) for turn, name in enumerate(names)]
    return of_graphs(members, request)


def _graph(name: str, *arguments: Argument) -> None:
    """Registers the graph that the function of that name in `graphs` makes."""

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
