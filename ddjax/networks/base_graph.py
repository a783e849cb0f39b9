"""Base-(k + 1) graphs (Takezawa, Sato, Bao, Niwa, Yamada, NeurIPS 2023): after a few sparse rounds, the exact average.

Names follow the paper: `H_k` is the k-peer hyper-hypercube (its algorithm 1), the simple base-(k + 1) graph is
algorithm 2, and the base-(k + 1) graph algorithm 3. A round is a list of links `(i, j, weight)`; what is left to 1 is a
device's own weight.
"""

import functools
from collections.abc import Sequence

import numpy as np
import scipy.sparse

Links = list[tuple[int, int, float]]


def base_graph(devices: int, k: int) -> list[scipy.sparse.csr_array]:
    """The mixing matrices of one cycle, symmetric and doubly stochastic; their product is the average.

    Args:
      devices: `N`, any number.
      k: at most so many neighbours in a round.

    Returns:
      At most `2 log_{k+1} N + 2` sparse arrays `[N, N]`.
    """
    nodes = range(devices)
    rounds = simple_base(nodes, k)
    # N = p q, with p the largest divisor whose prime factors are at most k + 1.
    p = max(d for d in range(1, devices + 1) if devices % d == 0 and _factors(d, k + 1) is not None)
    q = devices // p
    apart = [nodes[part * q : (part + 1) * q] for part in range(p)]
    across = [nodes[place::q] for place in range(q)]
    both = _beside([simple_base(part, k) for part in apart]) + _beside([hyper_hypercube(part, k) for part in across])
    rounds = both if len(both) <= len(rounds) else rounds
    return [_matrix(links, devices) for links in rounds or [[]]]


def hyper_hypercube(nodes: Sequence[int], k: int) -> list[Links]:
    """`H_k`: a round for each factor of their number, in which those that differ in one digit average.

    The number of nodes has no prime factor above `k + 1`.
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
    """The simple base-(k + 1) graph on any number of nodes.

    The nodes are parted by the digits of their number to base `k + 1`, largest first: part `l` has `a_l (k + 1)^p_l`
    nodes. Each part averages within itself. Then part after part gives one node of each of its `a_l` sections to every
    node of the later parts, so that each section has the overall average, and averages within its sections.
    """
    if _factors(len(nodes), k + 1) is not None:
        return hyper_hypercube(nodes, k)
    parts, sections = _parts(nodes, k)
    within = [hyper_hypercube(part, k) for part in parts]
    after = [
        # A part of at most k nodes averages as a whole, which its sections of one node would not.
        _beside([hyper_hypercube(section, k) for section in sections[number]]) if len(part) > k else within[number]
        for number, part in enumerate(parts)
    ]
    first, last = len(within[0]), len(parts) - 1
    rounds = []
    for turn in range(first + 1 + len(after[0])):
        links: Links = []
        for number in range(len(parts)):
            done = turn - first - number  # rounds since this part gave
            if turn < first:
                links += _by_turns(within[number], turn)
            elif done == 0 and number < last:
                links += _give(parts[number:], sections[number], k)
            elif done >= 0:
                links += _by_turns(after[number], done - (number < last))
        rounds.append(links)
    return rounds


def _parts(nodes: Sequence[int], k: int) -> tuple[list[Sequence[int]], list[list[Sequence[int]]]]:
    """The parts by the digits of their number, and the sections of each, of a power of `k + 1` nodes."""
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
    """Links every node of the later parts to one node of each section of the first; the others average in groups."""
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
    """Graphs on other nodes each, with as many rounds each, as one."""
    return [[link for links in turn for link in links] for turn in zip(*graphs, strict=True)]


@functools.cache
def _factors(number: int, largest: int) -> tuple[int, ...] | None:
    """As few factors as there can be, at most `largest` each, in ascending order; `None` if there are none."""
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
