"""Examines where the devices of a run end."""

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
    """Finds what kind of point a run came to.

    Args:
      population: the devices' population.
      state: the last one.
      problem: the data.
      measure: what was measured, which says whose loss is examined. For `measure_distillation` it is `L_n(·; z̄)` of a
        device, with `z̄` held fixed; for `measure_separate` its private loss; for `measure_averaging` `F`, at `θ̄`, once.
      devices: how many are examined, from the first.
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
