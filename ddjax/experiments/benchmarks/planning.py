"""Plan of one row: the program is compiled from shapes alone, for accelerators that may be absent, and analysed."""

import dataclasses
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ddjax import forms, sharding
from ddjax.experiments import execution
from ddjax.experiments.benchmarks import workloads
from ddjax.experiments.benchmarks.compiled import Program
from ddjax.experiments.benchmarks.launches import launches
from ddjax.experiments.benchmarks.targets import Target, devices, environment
from ddjax.experiments.benchmarks.workloads import Case
from ddjax.networks import Dense, Network, as_network
from ddjax.networks.topology import is_sparse
from ddjax.simulation import Simulation, memory
from ddjax.types import Problem

# Figures of a row that need a compiled program.
_READ = (
    *("held_bytes", "temporary_bytes", "estimate_ms", "unestimated_bytes", "traffic_bytes", "floor_ms"),
    *("collectives", "collective_bytes", "collective_kinds", "kernels", "sorts"),
    *("different_kernels", "kernels_in_graphs", "graphs", "host_in_loop"),
)


def shapes(case: Case, network: Network) -> Problem:
    """Return the shapes of `workloads.problem`, with the given network."""

    def shape(*dimensions: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(dimensions, dtype)

    total, tests = case.devices * case.examples_per_device, case.test_examples or 1
    return Problem(
        x=shape(total, *case.input_shape),
        y=shape(total, dtype=jnp.int32),
        private_indices=shape(case.devices, case.examples_per_device, dtype=jnp.int32),
        private_counts=shape(case.devices, dtype=jnp.int32),
        reference=shape(workloads.REFERENCE_SIZE, *case.input_shape),
        network=network,
        x_test=shape(tests, *case.input_shape),
        y_test=shape(tests, dtype=jnp.int32),
    )


def simulation(case: Case, mesh: jax.sharding.Mesh) -> Simulation:
    """Build the simulation of a row on a mesh of accelerators that may be absent.

    Raises:
      InputError: the algorithm refuses the network.
    """
    graph = case.graph()
    with jax.set_mesh(mesh):
        algorithm = workloads.algorithm(case.work, case)
    links: Any = as_network(graph.network)
    algorithm.check(shapes(case, links))
    network = dataclasses.replace(links, form=case.mixing_product)
    if case.mixing_product == "dense" or not (case.mixing_product or is_sparse(graph.matrices[0])):
        network = Dense(jax.ShapeDtypeStruct((case.devices, case.devices), jnp.float32))
    problem = shapes(case, network)
    return Simulation(algorithm._replace(check=lambda problem: None), problem, mesh)


def plan(target: Target, case: Case) -> dict:
    """Compile the program of one row, and return the row for the JSON; this function runs in a fresh process.

    Args:
      target: accelerators for which to compile.
      case: work of the row.

    Raises:
      InputError: the algorithm refuses the network.
    """
    with tempfile.TemporaryDirectory() as folder:
        _prepare(target, case, folder)
        planned = simulation(case, sharding.mesh(devices(target)))
        start, compiled, refusal = time.perf_counter(), None, None
        try:
            compiled = planned.lower("measure" if case.work == "evaluation" else "advance").compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            refusal = str(error).splitlines()[0]
        seconds = time.perf_counter() - start
        row: dict[str, Any] = read(target, case, compiled, Path(folder)) if compiled else dict.fromkeys(_READ)
    held, temporary = row["held_bytes"], row["temporary_bytes"]
    return {
        "target": target.name,
        "chips": target.chips,
        **case._asdict(),
        "fits": refusal is None and held + temporary <= target.available_bytes,
        "refusal": refusal,
        "available_bytes": target.available_bytes,
        "ddjax_estimate_bytes": memory.estimate(planned)[1],
        **row,
        **workloads.picked_forms(planned, case),
        "seconds_compile": seconds,
        "versions": {name: version(name) for name in ("jax", target.package)},
    }


def _prepare(target: Target, case: Case, folder: str) -> None:
    """Let JAX run on a machine without accelerators, and silence the compiler."""
    os.environ.update(environment(target, folder))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_default_matmul_precision", forms.matmul_precision(target.platform, case.precision))
    execution.silence()


def read(target: Target, case: Case, compiled: jax.stages.Compiled, folder: Path) -> dict[str, Any]:
    """Read the figures of a compiled program; figures that a target does not have are `None`.

    Args:
      target: accelerators for which the program was compiled.
      case: work that the program does.
      compiled: compiled program.
      folder: folder into which a GPU's compiler wrote the launches.
    """
    sizes: Any = compiled.memory_analysis()
    whole = case.work == "evaluation"
    program = Program(compiled.as_text() or "", whole)
    row: dict[str, Any] = dict.fromkeys(_READ)
    row |= {
        "held_bytes": sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        "temporary_bytes": sizes.temp_size_in_bytes,
        "collectives": sum(program.collectives().values()),
        "collective_bytes": program.collective_bytes(),
        "collective_kinds": program.collectives(),
        "kernels": program.kernels(),
        "sorts": program.sorts(),
    }
    if target.clock:
        estimate = 1e3 * program.cycles() / target.clock
        return row | {"estimate_ms": estimate, "unestimated_bytes": program.unestimated_bytes()}
    traffic = program.traffic_bytes()
    dumped = sorted(folder.glob("*.thunk_sequence_after_thunk_passes.txt"))
    launched = launches(dumped[-1].read_text(), whole)
    return row | {
        "traffic_bytes": traffic,
        "floor_ms": 1e3 * traffic / target.bytes_per_second,
        "different_kernels": launched.different,
        "kernels_in_graphs": launched.in_graphs,
        "graphs": launched.graphs,
        "host_in_loop": launched.host_in_loop,
    }
