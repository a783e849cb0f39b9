"""Base-(k + 1) graphs, on which devices reach the exact average after a few sparse rounds.

Takezawa, Sato, Bao, Niwa and Yamada proposed these graphs in "Beyond Exponential Graph" (NeurIPS 2023). Names follow
the paper: `H_k` is the k-peer hyper-hypercube (algorithm 1), the simple base-(k + 1) graph is algorithm 2, and the
base-(k + 1) graph is algorithm 3. A round is a list of links `(i, j, weight)`. The weight that a device gives itself is
1 minus the sum of the weights of its links.
"""

import functools
from collections.abc import Sequence

import numpy as np
import scipy.sparse

Links = list[tuple[int, int, float]]


def base_graph(devices: int, k: int) -> list[scipy.sparse.csr_array]:
    """Build the symmetric, doubly stochastic mixing matrices of one cycle; their product gives the exact average.

    Args:
      devices: number of devices `N`.
      k: largest number of neighbours that a device has in one round.

    Returns:
      At most `2 log_{k+1} N + 2` sparse arrays `[N, N]`.
    """
    nodes = range(devices)
    rounds = simple_base(nodes, k)
    # N = p q, where p is the largest divisor of N whose prime factors are at most k + 1.
    p = max(d for d in range(1, devices + 1) if devices % d == 0 and _factors(d, k + 1) is not None)
    q = devices // p
    apart = [nodes[part * q : (part + 1) * q] for part in range(p)]
    across = [nodes[place::q] for place in range(q)]
    both = _beside([simple_base(part, k) for part in apart]) + _beside([hyper_hypercube(part, k) for part in across])
    rounds = both if len(both) <= len(rounds) else rounds
    return [_matrix(links, devices) for links in rounds or [[]]]


def hyper_hypercube(nodes: Sequence[int], k: int) -> list[Links]:
    """Build the rounds of `H_k`, one per factor of the number of nodes.

    Nodes are numbered with one digit per factor. In the round of a factor, nodes whose numbers differ only in the digit
    of that factor average their values. The number of nodes must have no prime factor above `k + 1`.
    """
    rounds, stride = [], 1
    for factor in _factors(len(nodes), k + 1) or ():
        links = []
        for place in range(len(nodes)):
            digit = place // stride % factor
            links += [(nodes[place], nodes[place + up * stride], 1 / factor) for up in range(1, factor - digit)]
        rounds.append(links)
        stride *= factor
    return rounds


def simple_base(nodes: Sequence[int], k: int) -> list[Links]:
    """Build the rounds of the simple base-(k + 1) graph on any number of nodes.

    Each digit other than 0 of the number of nodes, written in base `k + 1`, defines a part of the nodes; the part of
    the most significant digit is the first. The part of a digit `a` at position `p` has `a` sections of `(k + 1)^p`
    nodes. First, the nodes of each part average their values. Then each part in turn links every node of the later
    parts to one node in each of its own sections, so that the mean over each section is the overall mean. Finally, the
    nodes of each section average their values.
    """
    if _factors(len(nodes), k + 1) is not None:
        return hyper_hypercube(nodes, k)
    parts, sections = _parts(nodes, k)
    within = [hyper_hypercube(part, k) for part in parts]
    after = [
        # In a part of at most k nodes, each section is a single node and cannot average, so the whole part averages.
        _beside([hyper_hypercube(section, k) for section in sections[number]]) if len(part) > k else within[number]
        for number, part in enumerate(parts)
    ]
    first, last = len(within[0]), len(parts) - 1
    rounds = []
    for turn in range(first + 1 + len(after[0])):
        links: Links = []
        for number in range(len(parts)):
            done = turn - first - number  # rounds since this part was linked to the later parts
            if turn < first:
                links += _by_turns(within[number], turn)
            elif done == 0 and number < last:
                links += _give(parts[number:], sections[number], k)
            elif done >= 0:
                links += _by_turns(after[number], done - (number < last))
        rounds.append(links)
    return rounds


def _parts(nodes: Sequence[int], k: int) -> tuple[list[Sequence[int]], list[list[Sequence[int]]]]:
    """Divide nodes into parts (see `simple_base`), and parts into sections whose sizes are powers of `k + 1`."""
    parts, sections, start, power = [], [], 0, 1
    while power * (k + 1) <= len(nodes):
        power *= k + 1
    while power:
        if size := (len(nodes) - start) // power * power:
            parts.append(nodes[start : start + size])
            sections.append([nodes[at : at + power] for at in range(start, start + size, power)])
            start += size
        power //= k + 1
    return parts, sections


def _give(parts: Sequence[Sequence[int]], sections: list[Sequence[int]], k: int) -> Links:
    """Link each node of the later parts to a node in each section of the first part; other nodes average in groups."""
    share = len(parts[0]) / sum(map(len, parts)) / len(sections)
    later = [node for part in reversed(parts[1:]) for node in part]
    links = [(node, section[-1 - place], share) for section in sections for place, node in enumerate(later)]
    idle = [node for section in sections for node in section[: len(section) - len(later)]]
    groups = [idle[at : at + k + 1] for at in range(0, len(idle), k + 1)]
    return links + [
        (i, j, 1 / len(group)) for group in groups for place, i in enumerate(group) for j in group[place + 1 :]
    ]


def _by_turns(rounds: list[Links], turn: int) -> Links:
    return rounds[turn % len(rounds)] if rounds else []


def _beside(graphs: Sequence[list[Links]]) -> list[Links]:
    """Join graphs that have disjoint nodes and equally many rounds into one graph."""
    return [[link for links in turn for link in links] for turn in zip(*graphs, strict=True)]


@functools.cache
def _factors(number: int, largest: int) -> tuple[int, ...] | None:
    """Split a number into the fewest factors of at most `largest`, in ascending order; `None` if that is impossible."""
    if number == 1:
        return ()
    found = [
        (*rest, factor)
        for factor in range(2, min(largest, number) + 1)
        if number % factor == 0 and (rest := _factors(number // factor, factor)) is not None
    ]
    return min(found, key=lambda factors: (len(factors), tuple(-factor for factor in reversed(factors))), default=None)


def _matrix(links: Links, devices: int) -> scipy.sparse.csr_array:
    i, j, weights = (np.array(column) for column in zip(*links, strict=True)) if links else (np.zeros(0, int),) * 3
    half = scipy.sparse.coo_array((weights.astype(float), (i, j)), shape=(devices, devices)).tocsr()
    matrix = half + half.T
    return (matrix + scipy.sparse.diags_array(1 - matrix.sum(1), format="csr")).tocsr()
