"""Positions of devices in a drawing of their network."""

import math

import networkx as nx
import numpy as np

_AROUND = 60  # largest number of devices on one circle, so that their marks do not get too small
_SPRINGS = 100  # largest number of devices for which a layout with springs between all pairs is fast


def places(devices: int, links: np.ndarray, topology: str = "", server: bool = False) -> np.ndarray:
    """Lay out a network.

    Args:
      devices: number of devices `N`.
      links: `[E, 2]` pairs of linked devices; links to the server may be left out.
      topology: specification of the graph, such as `torus`.
      server: whether a server is in the middle.

    Returns:
      Positions in the square from -1 to 1: `[N, 2]`, or `[N + 1, 2]` with the server last.
    """
    if server:
        return np.append(_circles(devices), [[0.0, 0.0]], 0)
    graph = nx.empty_graph(devices)
    graph.add_edges_from(links[(links < devices).all(1)])
    edges, degrees = graph.number_of_edges(), np.array([degree for _, degree in graph.degree])
    if not edges:
        root = math.ceil(math.sqrt(devices))
        return grid(devices, next((c for c in range(root, 2 * root) if devices % c == 0), root))
    if topology == "torus":
        return grid(devices, devices // max(d for d in range(1, math.isqrt(devices) + 1) if devices % d == 0))
    if edges == devices - 1 == degrees.max() > 1:  # a star
        hub = int(degrees.argmax())
        return np.insert(_circles(devices - 1), hub, 0.0, axis=0)
    if edges == devices - 1 and degrees.max() <= 2:  # a path, as a circle with a gap
        order = list(nx.dfs_preorder_nodes(graph, int(degrees.argmin())))
        return _circles(devices + 1)[:devices][np.argsort(order)]
    if _turns_into_itself(graph) or degrees.mean() > devices / 4 or not nx.is_connected(graph):
        return _circles(devices)
    if devices <= _SPRINGS:
        found = nx.kamada_kawai_layout(graph)
    else:
        found = nx.spring_layout(graph, seed=0, k=2 / math.sqrt(devices), iterations=100)
    at = np.array([found[device] for device in range(devices)])
    at = at - (at.max(0) + at.min(0)) / 2
    return at / np.abs(at).max(0).clip(1e-9)


def grid(devices: int, columns: int) -> np.ndarray:
    """Return positions on a grid, row by row: `[N, 2]` in the square from -1 to 1."""
    rows = math.ceil(devices / columns)
    row, column = np.divmod(np.arange(devices), columns)
    step = 2 / max(columns, rows)
    return np.stack([(column - (columns - 1) / 2) * step, ((rows - 1) / 2 - row) * step], 1)


def _circles(devices: int) -> np.ndarray:
    """Return positions clockwise from the top, on several circles in turn if one circle is too small."""
    angle = math.pi / 2 - 2 * math.pi * np.arange(devices) / max(devices, 1)
    circles = math.ceil(devices / _AROUND)
    turn = np.arange(devices) % max(2 * circles - 2, 1)  # inwards and back, so that neighbours stay close
    radius = 1 - np.minimum(turn, 2 * circles - 2 - turn) * 0.55 / max(circles, 5)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _turns_into_itself(graph: nx.Graph) -> bool:
    """Return whether every device `n` has the neighbours `n + h` for the same hops `h`, as in a ring."""
    devices = len(graph)
    hops = {frozenset((other - device) % devices for other in graph[device]) for device in graph}
    return len(hops) == 1
