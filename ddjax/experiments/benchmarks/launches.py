"""Reads how a GPU is told to run a program: which kernels lie in CUDA graphs, and what the host does itself."""

import re
from typing import NamedTuple

_THUNK = re.compile(r"( *)\d+: (k\w+)")
_NO_KERNELS = ("kAsyncDone", "kPartitionId")


class Launches(NamedTuple):
    """How a round is launched.

    Attributes:
      different: kernels and copies, each counted once even if in a loop.
      in_graphs: how many of them lie in CUDA graphs, which start many kernels at once.
      graphs: how many graphs there are.
      host_in_loop: whether the host steps through a loop, and starts what lies in it each time.
    """

    different: int
    in_graphs: int
    graphs: int
    host_in_loop: bool


def launches(text: str, whole: bool = False) -> Launches:
    """Reads a sequence of thunks, as XLA dumps it.

    Args:
      text: a thunk a line, indented by what holds it.
      whole: whether all is looked at, or what lies in loops: of `Simulation.advance` a round.
    """
    thunks = [(len(found[1]), found[2]) for line in text.splitlines() if (found := _THUNK.match(line))]
    different = in_graphs = 0
    graphs: set[int] = set()
    host_in_loop = False
    holders: list[int] = []  # numbers of thunks, the outermost first
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
