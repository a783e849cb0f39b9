"""How much memory a run will take, from shapes alone, before anything is compiled."""

import os
import re
from pathlib import Path

import jax

from ddjax import sharding
from ddjax.footprint import peak_bytes, size_on
from ddjax.simulation.simulation import Simulation


def estimate(simulation: Simulation) -> tuple[int, int]:
    """Bytes that a run takes at least and at its peak: of a host's memory on CPU, else of an accelerator.

    The least is the problem and the state, which lie whole on each accelerator or spread over them. The peak adds what
    a round makes on its way; see `footprint.peak_bytes`.
    """
    shards, platform = simulation.mesh.size, sharding.platform(simulation.mesh)
    together = len(simulation.mesh.local_devices) if platform == "cpu" else 1  # those that share one memory
    size = size_on(platform)
    held = [(simulation.problem, jax.tree.map(lambda leaf: leaf.sharding, simulation.problem))]
    held += [(simulation.shapes.state, simulation.layout)]
    whole: float = sum(map(size, jax.tree.leaves(simulation.shapes.totals)))
    for tree, layouts in held:
        for leaf, layout in zip(jax.tree.leaves(tree), jax.tree.leaves(layouts), strict=True):
            whole += size(leaf) / (1 if layout.is_fully_replicated else shards)
    made = peak_bytes(simulation.traced.jaxpr.jaxpr, shards, size) / shards
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
