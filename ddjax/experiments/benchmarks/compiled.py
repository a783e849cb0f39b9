"""Optimized programs of XLA: the operations of a round, how often each runs, their bytes and their cycles."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
UNESTIMATED = ("gather", "scatter", "sort")  # a TPU's compiler does not estimate their cycles

_WIDTHS = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_ARRAY = re.compile(r"\b(pred|[fsu]\d+|bf16)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_HEAD = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
# The kind is the first lower-case word before a parenthesis. No type has such a word: the names of tiles are capital
# letters, as in `:T(8,128)`.
_LINE = re.compile(r"(?:ROOT )?(%[\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id")
_NO_ESTIMATE = 2**60  # the compiler writes a number this large if it has no estimate


class Operation(NamedTuple):
    """One operation of an optimized program.

    Attributes:
      kind: kind, such as `fusion`; an asynchronous operation is listed where it ends, without `-done`.
      result: type of the result.
      operands: names of the operands.
      times: number of times that the operation runs.
      cycles: cycles of one run, as the compiler estimates; `None` if there is no estimate.
      inner: kinds of the operations inside a fusion, with their counts.
    """

    kind: str
    result: str
    operands: tuple[str, ...]
    times: int
    cycles: int | None
    inner: Counter[str]

    def has(self, kind: str) -> bool:
        """Return whether the operation has this kind, or is a fusion that contains an operation of this kind."""
        return self.kind == kind or kind in self.inner


def array_bytes(types: str) -> int:
    """Count the bytes that the arrays of a type take in memory, including the padding of a TPU's tiles."""
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
    """Optimized program.

    Args:
      text: text of the program, as XLA writes it.
      whole: whether to read the whole program; otherwise only one trip through the last loop of the entry
        computation, which is one round in `Simulation.advance`.

    Attributes:
      operations: operations that do work; their `times` include the trips of loops.
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
        # The only operand of `-done` is the matching `-start`, which has the operands of the asynchronous operation.
        return self._operands(self._lines[names[0]]) if line[3].endswith("-done") else names

    def _trips(self, loop: re.Match) -> int:
        """Return the number of trips of a loop: the compiler's count or, failing that, the bound in its condition.

        Loops count from 0.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop[4]):
            return int(known[1])
        condition = self._computations[_named(loop, "condition")]
        bounds = [
            int(line[4].partition(")")[0]) for line in condition if line[3] == "constant" and line[4][0].isdigit()
        ]
        return max(bounds, default=1)

    def cycles(self) -> int:
        """Return the estimated cycles of a round."""
        return sum(operation.times * (operation.cycles or 0) for operation in self.operations)

    def unestimated_bytes(self) -> dict[str, int]:
        """Count the bytes per round of the results of gathers, scatters and sorts that have no estimate."""
        found: Counter[str] = Counter()
        for operation in self.operations:
            for kind in UNESTIMATED:
                if operation.cycles is None and operation.has(kind):
                    found[kind] += operation.times * array_bytes(operation.result)
        return dict(found)

    def collectives(self) -> dict[str, int]:
        """Count the collectives of each kind in a round."""
        found: Counter[str] = Counter()
        for operation in self.operations:
            if operation.kind in COLLECTIVES:
                found[operation.kind] += operation.times
        return dict(found)

    def collective_bytes(self) -> int:
        """Count the bytes of the results of collectives per round on one accelerator."""
        moved = (operation for operation in self.operations if operation.kind in COLLECTIVES)
        return sum(operation.times * array_bytes(operation.result) for operation in moved)

    def kernels(self) -> int:
        """Count the operations that a round starts."""
        return sum(operation.times for operation in self.operations)

    def sorts(self) -> int:
        """Count the sorts in the program; a sort in a loop counts once."""
        return sum(operation.has("sort") for operation in self.operations)

    def traffic_bytes(self) -> int:
        """Count the bytes that a round reads and writes: each operand once, or only its gathered or sliced part."""
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
    """Return the operations of each computation, as matches of `_LINE`, and the name of the entry."""
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
    """Return the name of the computation that an operation calls in a role such as `body`."""
    found = re.search(rf"\b{role}=%([\w.\-]+)", line[4])
    assert found, line[0]
    return found[1]
