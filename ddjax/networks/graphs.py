"""Functions that make graphs, one for each name of a fixed graph; NetworkX makes most of the graphs.

Each function takes the number of devices and a seed, then its own arguments. An edge `m → n` of a directed graph means
that `m` sends to `n`. NetworkX is slow to load, so other modules import this module only where they need it.
"""

import math

import networkx as nx

from ddjax.errors import InputError
from ddjax.networks.edge_files import read_edges


def circulant(n: int, offsets: list[int], directed: bool) -> nx.Graph:
    """Link each device `i` to `i + offset` modulo `n`, for each offset."""
    if not directed:
        return nx.circulant_graph(n, offsets)
    graph = nx.empty_graph(n, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + k) % n) for i in range(n) for k in offsets)
    return graph


def powers_of_two(n: int) -> list[int]:
    """List the powers of two below `n`: 1, 2, 4, …."""
    return [2**j for j in range(max(n - 1, 0).bit_length())]


def ring(n: int, seed: int) -> nx.Graph:
    """Link the devices in a circle, each to the next."""
    return nx.cycle_graph(n)


def path(n: int, seed: int) -> nx.Graph:
    """Link the devices in a line, each to the next."""
    return nx.path_graph(n)


def binary_tree(n: int, seed: int) -> nx.Graph:
    """Link each device `i` to `i // 2`, as in the tree of Vogels et al. 2021; a device has at most three neighbours."""
    graph = nx.empty_graph(n)
    graph.add_edges_from((i, i // 2) for i in range(1, n))
    return graph


def complete(n: int, seed: int) -> nx.Graph:
    """Link each device to every other device."""
    return nx.complete_graph(n)


def star(n: int, seed: int) -> nx.Graph:
    """Link device 0 to all others."""
    return nx.star_graph(n - 1)


def exponential(n: int, seed: int) -> nx.Graph:
    """Link each device `i` to every `i ± 2^j`.

    This graph is undirected. The graph of Assran et al. 2019 and Ying et al. 2021 is `directed_exponential`.
    """
    return circulant(n, powers_of_two(n), directed=False)


def directed_ring(n: int, seed: int) -> nx.Graph:
    """Make each device send to the next."""
    return circulant(n, [1], directed=True)


def directed_exponential(n: int, seed: int) -> nx.Graph:
    """Make each device `i` send to every `i + 2^j`."""
    return circulant(n, powers_of_two(n), directed=True)


def torus(n: int, seed: int) -> nx.Graph:
    """Make the periodic grid of `n` devices that is nearest to a square."""
    rows = max((d for d in range(1, math.isqrt(n) + 1) if n % d == 0), default=1)
    if rows < 2:
        raise InputError(f"torus needs a number of devices that is a product of two numbers above 1, got {n}")
    return nx.grid_2d_graph(rows, n // rows, periodic=True)


def hypercube(n: int, seed: int) -> nx.Graph:
    """Make the hypercube of `n` devices, where `n` is a power of two."""
    if n & (n - 1):
        below = 2 ** (n.bit_length() - 1)
        raise InputError(
            f"hypercube needs a number of devices that is a power of two, got {n}; the nearest are {below} and "
            f"{2 * below}"
        )
    return nx.hypercube_graph(n.bit_length() - 1) if n > 1 else nx.empty_graph(1)


def erdos_renyi(n: int, seed: int, p: float) -> nx.Graph:
    """Draw a graph in which each link exists with probability `p`."""
    # The plain generator takes N²/2 steps, too many for a large graph. From the same seed, the fast one draws another
    # graph.
    return (nx.fast_gnp_random_graph if n > 2000 else nx.gnp_random_graph)(n, p, seed=seed)


def watts_strogatz(n: int, seed: int, k: int, p: float) -> nx.Graph:
    """Make a ring in which each device has `k` neighbours, and rewire each link with probability `p`."""
    return nx.watts_strogatz_graph(n, k, p, seed=seed)


def random_regular(n: int, seed: int, d: int) -> nx.Graph:
    """Draw a graph in which each device has `d` neighbours."""
    return nx.random_regular_graph(d, n, seed=seed)


def barabasi_albert(n: int, seed: int, m: int) -> nx.Graph:
    """Draw a graph with hubs: each new device links to `m` earlier devices."""
    return nx.barabasi_albert_graph(n, m, seed=seed)


def edges(n: int, seed: int, path: str) -> nx.Graph:
    """Read links from a file with one link `i j` per line; see `read_edges`."""
    return read_edges(path, n, directed=False)


def directed_edges(n: int, seed: int, path: str) -> nx.Graph:
    """Read links from a file, each from `i` to `j`."""
    return read_edges(path, n, directed=True)


def tidy(graph: nx.Graph) -> nx.Graph:
    """Renumber the nodes as `0 … N − 1`, and remove self-loops."""
    graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph
