"""Reads optimized programs of XLA: the operations of a round, how often each runs, their bytes and their cycles."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
UNESTIMATED = ("gather", "scatter", "sort")  # a TPU's compiler gives no cycles for them

_WIDTHS = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_ARRAY = re.compile(r"\b(pred|[fsu]\d+|bf16)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_HEAD = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
# The first word before a parenthesis: none stands in a type, where tiles are written `:T(8,128)`.
_LINE = re.compile(r"(?:ROOT )?(%[\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id")
_NO_ESTIMATE = 2**60  # the compiler writes a number this large where it has none


class Operation(NamedTuple):
    """One operation of an optimized program.

    Attributes:
      kind: such as `fusion`; of an asynchronous one, which is seen where it is done, without `-done`.
      result: the type of its result.
      operands: the names of what it takes.
      times: how often it runs.
      cycles: as the compiler estimates one run; `None` where it does not.
      inner: the kinds inside a fusion, with their numbers.
    """

    kind: str
    result: str
    operands: tuple[str, ...]
    times: int
    cycles: int | None
    inner: Counter[str]

    def has(self, kind: str) -> bool:
        """Whether it is of this kind, or a fusion of one."""
        return self.kind == kind or kind in self.inner


def array_bytes(types: str) -> int:
    """Bytes of the arrays in a type, as they lie in memory: the tiles of a TPU are filled up."""
    total = 0
    for dtype, dimensions, layout, tiling in _ARRAY.findall(types):
        shape = [int(size) for size in dimensions.split(",") if size]
        if shape and (tile := re.match(r"T\(([\d,]+)\)", tiling)):
            steps = [int(step) for step in tile[1].split(",")]
            for axis, step in zip(map(int, layout.split(",")), reversed(steps), strict=False):  # the fastest axis first
                shape[axis] = math.ceil(shape[axis] / step) * step
        total += _WIDTHS.get(dtype, 1) * math.prod(shape)
    return total


class Program:
    """An optimized program.

    Args:
      text: of the program, as XLA writes it.
      whole: whether all is looked at, or one trip through the last loop of the entry: of `Simulation.advance` a round.

    Attributes:
      operations: those that do something, in loops with the number of trips.
    """

    def __init__(self, text: str, whole: bool = False):
        self._computations, entry = _computations(text)
        self._lines = {line[1]: line for lines in self._computations.values() for line in lines}
        loops = [line for line in self._computations[entry] if line[3] == "while"]
        parts = [entry] if whole or not loops else [_named(loops[-1], role) for role in ("condition", "body")]
        self.operations = [operation for part in parts for operation in self._walk(part, 1)]

    def _walk(self, computation: str, times: int) -> Iterator[Operation]:
        for line in self._computations[computation]:
            kind, rest = line[3], line[4]
            if kind == "while":
                yield from self._walk(_named(line, "body"), times * self._trips(line))
            elif kind == "call":
                yield from self._walk(_named(line, "to_apply"), times)
            elif kind not in _FREE and not kind.endswith("-start"):
                cycles = re.search(r'"estimated_cycles":"(\d+)"', rest)
                called = re.search(r"calls=%([\w.\-]+)", rest)
                yield Operation(
                    kind=kind.removesuffix("-done"),
                    result=line[2],
                    operands=self._operands(line),
                    times=times,
                    cycles=int(cycles[1]) if cycles and int(cycles[1]) < _NO_ESTIMATE else None,
                    inner=Counter(inner[3] for inner in self._computations.get(called[1], [])) if called else Counter(),
                )

    def _operands(self, line: re.Match) -> tuple[str, ...]:
        names = tuple(re.findall(r"%[\w.\-]+", line[4].split("), ")[0]))
        # What is done takes what was started, whose operands are those of interest.
        return self._operands(self._lines[names[0]]) if line[3].endswith("-done") else names

    def _trips(self, loop: re.Match) -> int:
        """How often a loop runs: as the compiler says, else up to the bound in its condition; loops count up from 0."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop[4]):
            return int(known[1])
        condition = self._computations[_named(loop, "condition")]
        bounds = [
            int(line[4].partition(")")[0]) for line in condition if line[3] == "constant" and line[4][0].isdigit()
        ]
        return max(bounds, default=1)

    def cycles(self) -> int:
        """Estimated cycles of a round."""
        return sum(operation.times * (operation.cycles or 0) for operation in self.operations)

    def unestimated_bytes(self) -> dict[str, int]:
        """Bytes a round of the results of gathers, scatters and sorts without estimate."""
        found: Counter[str] = Counter()
        for operation in self.operations:
            for kind in UNESTIMATED:
                if operation.cycles is None and operation.has(kind):
                    found[kind] += operation.times * array_bytes(operation.result)
        return dict(found)

    def collectives(self) -> dict[str, int]:
        """How many collectives of each kind a round has."""
        found: Counter[str] = Counter()
        for operation in self.operations:
            if operation.kind in COLLECTIVES:
                found[operation.kind] += operation.times
        return dict(found)

    def collective_bytes(self) -> int:
        """Bytes a round of the results of collectives on one accelerator."""
        moved = (operation for operation in self.operations if operation.kind in COLLECTIVES)
        return sum(operation.times * array_bytes(operation.result) for operation in moved)

    def kernels(self) -> int:
        """How many operations a round starts."""
        return sum(operation.times for operation in self.operations)

    def sorts(self) -> int:
        """How many different sorts there are."""
        return sum(operation.has("sort") for operation in self.operations)

    def traffic_bytes(self) -> int:
        """Bytes a round that operations read and write: each operand once, of what is gathered or sliced that part."""
        return sum(operation.times * self._traffic(operation) for operation in self.operations)

    def _traffic(self, operation: Operation) -> int:
        written = array_bytes(operation.result)
        read = sorted((array_bytes(self._lines[name][2]) for name in set(operation.operands)), reverse=True)
        if operation.has("gather"):
            gathers = max(operation.inner["gather"], 1)
            return written * (1 + gathers) + sum(min(size, written) for size in read[1:])
        if operation.has("dynamic-slice"):
            return written + sum(min(size, written) for size in read)
        if operation.has("scatter") or operation.has("dynamic-update-slice"):  # in place
            return sum(2 * size for size in read if size < written)
        return written + sum(read)


def _computations(text: str) -> tuple[dict[str, list[re.Match]], str]:
    """The operations of each computation, as matches of `_LINE`, and the name of the entry."""
    computations: dict[str, list[re.Match]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _LINE.match(line.strip())):
            current.append(found)
    return computations, entry


def _named(line: re.Match, role: str) -> str:
    """The computation that an operation calls in a role, such as `body`."""
    found = re.search(rf"\b{role}=%([\w.\-]+)", line[4])
    assert found, line[0]
    return found[1]
