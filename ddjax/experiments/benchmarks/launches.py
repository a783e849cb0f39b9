"""Launches of a program on a GPU: which kernels lie in CUDA graphs, and which steps the host performs itself."""

import re
from typing import NamedTuple

_THUNK = re.compile(r"( *)\d+: (k\w+)")
_NO_KERNELS = ("kAsyncDone", "kPartitionId")


class Launches(NamedTuple):
    """Launches of one round.

    Attributes:
      different: number of kernels and copies; each counts once, even in a loop.
      in_graphs: number of these that lie in CUDA graphs; the host starts all kernels of a graph with one call.
      graphs: number of CUDA graphs.
      host_in_loop: whether the host steps through a loop and launches its body on each trip.
    """

    different: int
    in_graphs: int
    graphs: int
    host_in_loop: bool


def launches(text: str, whole: bool = False) -> Launches:
    """Read the launches of a program from its thunks, which are XLA's units of execution.

    Args:
      text: the thunks as XLA dumps them, one per line, each indented according to its nesting.
      whole: whether to read the whole program; otherwise only the bodies of loops, which make up one round in
        `Simulation.advance`.
    """
    thunks = [(len(found[1]), found[2]) for line in text.splitlines() if (found := _THUNK.match(line))]
    different = in_graphs = 0
    graphs: set[int] = set()
    host_in_loop = False
    holders: list[int] = []  # indices of the enclosing thunks, the outermost first
    for number, (indent, kind) in enumerate(thunks):
        while holders and thunks[holders[-1]][0] >= indent:
            holders.pop()
        around = [holder for holder in holders if thunks[holder][1] == "kCommandBuffer"]
        host_in_loop |= kind == "kWhile" and not around
        repeated = whole or any(thunks[holder][1] == "kWhile" for holder in holders)
        leaf = number + 1 == len(thunks) or thunks[number + 1][0] <= indent
        if repeated and leaf and kind not in _NO_KERNELS:
            different += 1
            in_graphs += bool(around)
            graphs.update(around)
        holders.append(number)
    return Launches(different, in_graphs, len(graphs), host_in_loop)
