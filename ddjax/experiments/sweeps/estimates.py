"""Estimates of time and memory for the cells of one compiled program."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from ddjax import sharding
from ddjax.errors import InputError
from ddjax.experiments import console, records
from ddjax.experiments.experiment import Experiment, build
from ddjax.experiments.sweeps.plan import Cell
from ddjax.experiments.usage import used
from ddjax.simulation import memory
from ddjax.simulation.operations import products

_COMPILE = 0.015  # seconds of compilation per equation of the traced program
_ROUND, _SHARE = 3e-4, 0.25  # seconds to start a round; share of the peak speed that its products reach


class Estimate(NamedTuple):
    """Estimate for one cell.

    Attributes:
      operations: floating-point operations of all rounds of the cell.
      compiling: seconds that the cell's program takes to compile.
      memory: bytes at the peak of a round.
      files: path → digest, for each file from which the cell's data or graph is read.
      lines: description of the data, for the console.
    """

    operations: float
    compiling: float
    memory: int
    files: Mapping[str, str]
    lines: list[str]


def measure(cell: Cell, accelerator: jax.Device) -> Estimate:
    """Build a cell for an accelerator, and estimate the cell's operations and the memory that it needs there.

    Raises:
      InputError: the cell cannot be built, or it needs more memory than there is.
    """
    try:
        built = build(cell.settings, sharding.mesh([accelerator]))
        records.memory_needed(built.simulation)
    except InputError as error:
        raise InputError(f"cell {cell.label}: {error}") from None
    peak = memory.estimate(built.simulation)[1]
    return Estimate(operations(built), compiling(built), peak, built.facts["files"], console.data_lines(built))


def parts(operations: float, rounds: int, peak: float) -> tuple[float, float]:
    """Guess the two parts of a cell's training time in seconds: the time of its operations, and the cost of its rounds.

    Args:
      operations: floating-point operations of all rounds.
      rounds: number of rounds.
      peak: floating-point operations per second of a matrix product.
    """
    return operations / (_SHARE * peak), _ROUND * rounds


def operations(built: Experiment) -> float:
    """Estimate a run's operations: per device, 3 forward passes per training example and 1 per evaluated example."""
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


def compiling(built: Experiment) -> float:
    """Guess the seconds that an experiment's program takes to compile, from the number of its equations."""
    return _COMPILE * _equations(built.simulation.traced.jaxpr.jaxpr)


def _equations(jaxpr: Any) -> int:
    """Count the equations of a program, including those of its inner programs."""
    inner = [each for equation in jaxpr.eqns for each in jaxprs_in_params(equation.params)]
    return len(jaxpr.eqns) + sum(map(_equations, inner))


def peak(accelerator: jax.Device) -> float:
    """Measure the floating-point operations per second of a matrix product on one accelerator."""
    with jax.default_device(accelerator):
        matrix = jnp.ones((1024, 1024))
        multiply = jax.jit(jnp.matmul)
        jax.block_until_ready(multiply(matrix, matrix))
        start = time.perf_counter()
        jax.block_until_ready(multiply(matrix, matrix))
        return 2 * 1024**3 / (time.perf_counter() - start)
