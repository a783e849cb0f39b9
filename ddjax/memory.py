"""How much memory a run will take, from shapes alone, before anything is compiled."""

import math
import os
import re
from pathlib import Path
from typing import Any

import jax

from ddjax import sharding
from ddjax.simulate import Simulation


def estimate(simulation: Simulation) -> int:
    """Bytes at the peak of a round: of a host's memory on CPU, else of the fullest accelerator.

    The problem and the state once (an array that is kept whole lies in every place), and what a round makes on its way,
    each array from where it is made to where it is last used. What the compiler fuses away is counted, what its own
    buffers need is not: right to about a third.
    """
    mesh, traced = simulation.mesh, simulation.traced.jaxpr
    local = len(mesh.local_devices)
    together = local if jax.default_backend() == "cpu" else 1  # places that share one memory
    held = sum(_nbytes(leaf) * together for leaf in jax.tree.leaves((simulation.problem, simulation.totals)))
    layout = jax.tree.leaves(sharding.stacked(mesh, simulation.shapes.state))
    for leaf, spread in zip(jax.tree.leaves(simulation.shapes.state), layout, strict=True):
        held += _nbytes(leaf) * together // (1 if spread.is_fully_replicated else mesh.size)
    return held + _made(traced.jaxpr) * together // mesh.size


def available() -> int:
    """Bytes that a run may take: of an accelerator what it lends, of a host what is free."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if (meminfo := Path("/proc/meminfo")).exists():
        free.append(1024 * int(re.findall(r"MemAvailable:\s+(\d+)", meminfo.read_text())[0]))
    return min(free)


def _nbytes(shape: Any) -> int:
    size = getattr(shape.dtype, "itemsize", 4)
    return math.prod(shape.shape) * size


def _made(jaxpr: Any) -> int:
    """Bytes alive at the peak of a program, beyond what it is given."""
    last: dict[Any, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        last |= {variable: number for variable in equation.invars if isinstance(variable, jax.extend.core.Var)}
    last |= {variable: len(jaxpr.eqns) for variable in jaxpr.outvars if isinstance(variable, jax.extend.core.Var)}
    alive = peak = 0
    ends: dict[int, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        made = [variable for variable in equation.outvars if variable in last]
        inner = max((_made(getattr(p, "jaxpr", p)) for p in _programs(equation.params)), default=0)
        size = sum(_nbytes(variable.aval) for variable in made)
        peak = max(peak, alive + max(size, inner))
        alive += size
        for variable in made:
            ends[last[variable]] = ends.get(last[variable], 0) + _nbytes(variable.aval)
        alive -= ends.pop(number, 0)
    return max(peak, alive)


def _programs(params: dict[str, Any]) -> list[Any]:
    values = [v for p in params.values() for v in (p if isinstance(p, (tuple, list)) else (p,))]
    return [value for value in values if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
