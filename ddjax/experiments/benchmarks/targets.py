"""Accelerators for which a run can be planned: XLA compiles for accelerators whose compiler is installed."""

import importlib.util
import os
import re
from collections.abc import Callable
from importlib.metadata import requires, version
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental import topologies

from ddjax.errors import InputError
from ddjax.registry import Argument, Entry, Registry, number

# Number of chips → shape of the slice.
_SLICES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"}
_GPUS = (1, 2, 4, 8)  # GPUs per host
_H100 = Path(__file__).with_name("h100.txtpb")


class Target(NamedTuple):
    """Accelerators of one kind.

    Attributes:
      name: name as in `--target`, such as `v5e:4`.
      platform: JAX's name of the platform, `tpu` or `gpu`.
      chips: number of chips.
      available_bytes: memory per chip that programs and their arrays can use.
      bytes_per_second: largest memory bandwidth per chip.
      clock: cycles per second; `None` if the compiler does not estimate cycles.
      package: Python package that compiles for these accelerators.
      extra: extra of ddjax that installs the package.
    """

    name: str
    platform: str
    chips: int
    available_bytes: int
    bytes_per_second: float
    clock: float | None
    package: str
    extra: str


def _v5e(chips: int) -> Target:
    return Target(f"v5e:{chips}", "tpu", chips, int(15.75 * 2**30), 819e9, 1.5e9, "libtpu", "tpu")


def _h100(chips: int) -> Target:
    described = _H100.read_text()
    memory, bandwidth = (
        int(re.findall(rf"{name}: (\d+)", described)[0]) for name in ("device_memory_size", "memory_bandwidth")
    )
    given = os.environ.get("XLA_CLIENT_MEM_FRACTION") or os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or "0.75"
    try:
        share = number(0, 1, positive=True)(given)  # fraction of a GPU's memory that JAX may take
    except ValueError as error:
        raise InputError(f"XLA_CLIENT_MEM_FRACTION {error}, got {given!r}") from None
    return Target(f"h100:{chips}", "gpu", chips, int(share * memory), bandwidth, None, "jax-cuda12-plugin", "cuda")


def _one_of(counts: tuple[int, ...]) -> Callable[[str], int]:
    """Make a parser of a number of chips."""

    def parse(text: str) -> int:
        if text not in map(str, counts):
            raise ValueError(f"must be one of {', '.join(map(str, counts))}")
        return int(text)

    return parse


TARGETS: Registry[Entry] = Registry("target")
TARGETS.add(Entry("v5e", _v5e, (Argument("CHIPS", _one_of(tuple(_SLICES))),)))
TARGETS.add(Entry("h100", _h100, (Argument("CHIPS", _one_of(_GPUS)),)))


def target(spec: str) -> Target:
    """Return the target of a specification such as `v5e:4`.

    Raises:
      InputError: the target is unknown, its compiler is not installed, or the compiler is not of the version that JAX
        needs.
    """
    found = TARGETS.parse(spec).build()
    install = f"pip install -e '.[{found.extra}]'"
    if not importlib.util.find_spec(found.package.replace("-", "_")):
        raise InputError(f"--target={spec} needs {found.package}, which is not installed: {install}")
    for package in ("jaxlib", found.package):
        needed, there = _needed(package, found.extra), version(package)
        if not there.startswith(needed):
            raise InputError(
                f"--target={spec}: JAX {version('jax')} needs {package} {needed}, but {there} is installed: {install}"
            )
    return found


def _needed(package: str, extra: str) -> str:
    """Return the prefix that the version of a package must have, according to the extras of JAX."""
    for line in requires("jax") or ():
        named = re.match(rf"{package}(?:\[[^]]*\])?[^;]*?==?([\d.]+)[^;]*; extra == \"{extra}\"", line)
        if named:
            return named[1].rstrip(".")
    return ""


def environment(target: Target, folder: str) -> dict[str, str]:
    """Return the environment variables that JAX needs at its start in a process that compiles for a target.

    Args:
      target: accelerators for which to compile.
      folder: folder into which a GPU's compiler writes the launches of its programs.
    """
    if target.platform == "tpu":
        return {
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # without a chip, processes cannot conflict
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # otherwise libtpu requests it over the network
            "TPU_LOG_DIR": "disabled",
            "TPU_MIN_LOG_LEVEL": "3",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_STDERR_LOG_LEVEL": "3",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
        }
    dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text=true --xla_dump_hlo_module_re=jit_(advance|measure)"
    return {"TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {dump}".strip()}


def devices(target: Target) -> list[jax.Device]:
    """Return the accelerators as JAX devices that can only compile."""
    if target.platform == "tpu":
        hosts = {"chips_per_host_bounds": (1, 1, 1)} if target.chips == 1 else {}
        name = f"v5e:{_SLICES[target.chips]}"
        return list(topologies.get_topology_desc(name, platform="tpu", **hosts).devices)
    topology, config = f"1x1x{target.chips}", _H100.read_text()
    return list(topologies.get_topology_desc(platform="cuda", topology=topology, target_config=config).devices)
