"""What the cells of one compiled program will take, and what they understood of their data."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import sharding
from ddjax.errors import InputError
from ddjax.experiments import console, records
from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.usage import used
from ddjax.simulation import memory
from ddjax.simulation.operations import products

# Seconds that a program takes to compile and a round to start, and what part of the machine's peak in products rounds
# reach.
_COMPILE, _ROUND, _SHARE = 4.0, 3e-4, 0.25


class Estimate(NamedTuple):
    """What one cell will take.

    Attributes:
      operations: of all its rounds.
      memory: bytes at the peak of a round.
      files: the digests of the files that its data and its graph are read from, by path.
      lines: what was understood of the data.
    """

    operations: float
    memory: int
    files: Mapping[str, str]
    lines: list[str]


def measure(cell: Cell, accelerator: jax.Device) -> Estimate:
    """Builds a cell and estimates what it will take on an accelerator.

    Raises:
      InputError: it cannot be built, or needs more memory than there is.
    """
    try:
        built = build(cell.settings, sharding.mesh([accelerator]))
        records.memory_needed(built.simulation)
    except InputError as error:
        raise InputError(f"cell {cell.label}: {error}") from None
    peak = memory.estimate(built.simulation)[1]
    return Estimate(operations(built), peak, built.facts["files"], console.data_lines(built))


def seconds(operations: float, rounds: int, cells: int, peak: float) -> float:
    """A first guess of how long a cell takes, of `cells` that share the compilation."""
    return operations / (_SHARE * peak) + _ROUND * rounds + _COMPILE / cells


def operations(built: Experiment) -> float:
    """Estimates the operations of a run: three forward passes a training example, one an evaluated one, per device."""
    population, problem, settings = built.population, built.problem, built.settings
    devices = jax.eval_shape(population.init, jax.random.key(0))
    one = jax.ShapeDtypeStruct((1, *problem.x.shape[1:]), problem.x.dtype)
    forward = sum(products(jax.make_jaxpr(population.predict)(devices, one)))
    held = problem.private_indices.shape[1]
    seen = population.steps_per_round(held) * (population.batch_size or held)
    if "reference_batch_size" in used(settings):
        seen += settings.reference_batch_size or problem.reference.shape[0]
    evaluated = len(problem.x_test) + len(problem.reference)
    return forward * (3 * seen * settings.rounds + evaluated * (settings.rounds // settings.eval_every + 1))


def peak(accelerator: jax.Device) -> float:
    """Operations a second of a matrix product, on one accelerator."""
    with jax.default_device(accelerator):
        matrix = jnp.ones((1024, 1024))
        multiply = jax.jit(jnp.matmul)
        jax.block_until_ready(multiply(matrix, matrix))
        start = time.perf_counter()
        jax.block_until_ready(multiply(matrix, matrix))
        return 2 * 1024**3 / (time.perf_counter() - start)
