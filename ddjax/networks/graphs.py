"""Graphs by name; NetworkX makes them where it can.

Convention: an edge `m → n` of a directed graph means that `m` sends to `n`.
"""

import math
from collections.abc import Callable
from pathlib import Path

import networkx as nx

from ddjax.errors import InputError, suggest


def circulant(n: int, offsets: list[int], directed: bool) -> nx.Graph:
    """Device `i` linked to `i + offset` modulo `n`."""
    if not directed:
        return nx.circulant_graph(n, offsets)
    graph = nx.empty_graph(n, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + k) % n) for i in range(n) for k in offsets)
    return graph


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … below `n`."""
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


def _erdos_renyi(n: int, seed: int, p: float) -> nx.Graph:
    # The quick generator draws other graphs, the plain one takes N²/2 steps.
    return (nx.fast_gnp_random_graph if n > 2000 else nx.gnp_random_graph)(n, p, seed=seed)


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
    "exponential": ("", (), lambda n, seed: circulant(n, powers_of_two(n), directed=False)),
    "directed_ring": ("", (), lambda n, seed: circulant(n, [1], directed=True)),
    "directed_exponential": ("", (), lambda n, seed: circulant(n, powers_of_two(n), directed=True)),
    "erdos_renyi": ("P", (float,), _erdos_renyi),
    "watts_strogatz": ("K:P", (int, float), lambda n, seed, k, p: nx.watts_strogatz_graph(n, k, p, seed=seed)),
    "random_regular": ("D", (int,), lambda n, seed, d: nx.random_regular_graph(d, n, seed=seed)),
    "barabasi_albert": ("M", (int,), lambda n, seed, m: nx.barabasi_albert_graph(n, m, seed=seed)),
    "edges": ("FILE", (str,), lambda n, seed, path: _edge_list(path, n, directed=False)),
    "directed_edges": ("FILE", (str,), lambda n, seed, path: _edge_list(path, n, directed=True)),
}


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
