"""How much memory a run will take, from shapes alone, before anything is compiled."""

import math
import os
import re
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import Var

from ddjax.simulation.simulation import Simulation


def estimate(simulation: Simulation) -> tuple[int, int]:
    """Bytes that a run takes at least and at its peak: of a host's memory on CPU, else of an accelerator.

    The least is the problem and the state, which lie whole on each accelerator or spread over them. The peak adds what
    a round makes on its way, each array from where it is made to where it is last used. That is more than it will be,
    since the compiler fuses much of it and updates in place, but it leaves out what the compiler needs for itself.
    """
    shards = simulation.mesh.size
    # Those that share one memory.
    together = len(simulation.mesh.local_devices) if jax.default_backend() == "cpu" else 1
    state = zip(jax.tree.leaves(simulation.shapes.state), jax.tree.leaves(simulation.layout), strict=True)
    whole: float = sum(map(_nbytes, jax.tree.leaves((simulation.problem, simulation.shapes.totals))))
    whole += sum(_nbytes(leaf) / (1 if layout.is_fully_replicated else shards) for leaf, layout in state)
    made = _made(simulation.traced.jaxpr.jaxpr, shards) / shards
    return int(together * whole), int(together * (whole + made))


def available() -> int:
    """Bytes that there are for a run: of an accelerator what is free, of a host what its system can spare."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return 1024 * int(re.findall(r"MemAvailable:\s+(\d+)", meminfo.read_text())[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _nbytes(shape: Any) -> int:
    return math.prod(shape.shape) * shape.dtype.itemsize


def _made(jaxpr: Any, shards: int) -> int:
    """Bytes alive at the peak of a program, on all shards, beyond what it is given."""
    last: dict[Var, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        last |= {variable: number for variable in equation.invars if isinstance(variable, Var)}
    last |= {variable: len(jaxpr.eqns) for variable in jaxpr.outvars if isinstance(variable, Var)}
    ends = [0] * (len(jaxpr.eqns) + 1)
    alive = peak = 0
    for number, equation in enumerate(jaxpr.eqns):
        made = {variable: _nbytes(variable.aval) for variable in equation.outvars if variable in last}
        inner = max((_made(program, shards) for program in _programs(equation.params)), default=0)
        if equation.primitive.name == "shard_map":  # its program has the shapes of one shard
            inner *= shards
        peak = max(peak, alive + max(sum(made.values()), inner))
        alive += sum(made.values())
        for variable, size in made.items():
            ends[last[variable]] += size
        alive -= ends[number]
    return peak


def _programs(params: dict[str, Any]) -> list[Any]:
    values = [value for param in params.values() for value in (param if isinstance(param, tuple | list) else [param])]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(value, "eqns")]
