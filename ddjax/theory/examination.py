"""Examination of the points at which the devices of a run end."""

from collections.abc import Callable
from typing import Any

import jax

from ddjax.learning import Population
from ddjax.theory.convergence import counted, measure_averaging, measure_distillation
from ddjax.theory.endpoint import EndPoint, examine
from ddjax.types import Problem, PyTree


def examine_devices(
    population: Population, state: Any, problem: Problem, measure: Callable, devices: int
) -> list[EndPoint]:
    """Find the kinds of points at which a run ended.

    Args:
      population: the devices, as the run trained them.
      state: last state of the run.
      problem: problem from which the devices learn.
      measure: function that measured the run; it determines the loss that is examined. For `measure_distillation`, this
        loss is `L_n(·; z̄)` of each device, with `z̄` held fixed. For `measure_separate`, it is the private loss of
        each device. For `measure_averaging`, it is the mean private loss `F`, examined once, at `θ̄`.
      devices: number of devices to examine, starting with the first.

    Returns:
      One `EndPoint` per device; a single `EndPoint` for `measure_averaging`.

    Examples:
      >>> state = ddjax.local(population).init(jax.random.key(0), problem)
      >>> found = examination.examine_devices(population, state, problem, convergence.measure_separate, 2)
      >>> [point.verdict for point in found]  # the devices have not learned yet
      ['undecided', 'undecided']
    """
    weights = counted(problem)

    def batch(n: Any) -> tuple:
        held = problem.private_indices[n]
        labels = problem.y[held]
        return problem.x[held], labels, weights[n], (labels, weights[n])

    if measure is measure_averaging:

        def loss(params: PyTree, batches: tuple) -> jax.Array:
            return jax.vmap(population.groups[0].learner.objective, (None, 0))(params, batches).mean()

        mean = jax.tree.map(lambda leaf: leaf.mean(0), state.devices[0].params)
        return [examine(loss, mean, batch(slice(None)))]
    target: tuple = ()
    if measure is measure_distillation:
        reference = problem.reference[:]
        target = reference, population.predict(state.devices, reference).mean(0)
    found: list[EndPoint] = []
    start = 0
    for group, stacked in zip(population.groups, state.devices, strict=True):
        for n in range(min(group.size, devices - start)):
            params = jax.tree.map(lambda leaf, n=n: leaf[n], stacked.params)
            objective = group.learner.objective
            found.append(examine(objective, params, batch(start + n), *target))
        start += group.size
    return found
