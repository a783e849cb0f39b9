"""Checks of an algorithm."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddjax import sharding
from ddjax.learning import Group, Population, supervised_learner
from ddjax.models import build_model
from ddjax.simulation import Simulation
from ddjax.testing.base import check_traffic, close, in_double_precision, small_problem
from ddjax.types import Algorithm, Problem

_DEVICES, _ROUNDS = 4, 4


def check_algorithm(
    make: Callable[[Population], Algorithm],
    *,
    topology: str = "ring",
    stochastic: str = "doubly",
    loop: Callable[[Problem, Any, list[jax.Array]], Any] | None = None,
) -> None:
    """Check an algorithm on four devices with linear models and labelled data.

    A run must:

    - count its rounds, stay finite, and give the same numbers wherever it is interrupted, on one shard and on several;
    - keep the structure of its state, and use only float64 in double precision;
    - predict arrays `[N, B, K]`;
    - use the same names for the counts and for the sizes of its messages;
    - never call back to the host, because such a call can wait forever on several shards.

    Args:
      make: `(population) → Algorithm`; called in single and in double precision.
      topology: specification of a network that the algorithm accepts.
      stochastic: sums of the mixing matrix that must be 1, as in `build_topology`: `column`, `row`, both (`doubly`) or
        neither (`links`).
      loop: `(problem, first state, keys) → parameters`: the parameters of each group after one round per key, computed
        by a plain loop over devices in NumPy. The algorithm must reach the same parameters.

    Raises:
      AssertionError: a check fails; the message says what is wrong.
      InputError: the algorithm refuses the network.

    Examples:
      >>> check_algorithm(lambda population: ddjax.dsgd(population, ddjax.weighted_average()))
    """
    problem = small_problem(topology, _DEVICES, stochastic)
    algorithm = make(_population())
    one = sharding.mesh(jax.devices()[:1])
    simulation = Simulation(algorithm, problem, one)
    program = str(simulation.traced.jaxpr)
    calls = any(word in program for word in ("callback", "debug_print"))
    assert not calls, "a round calls back to the host; move work that cannot be compiled to `start`"
    _check_info(simulation.shapes.totals.info)
    state, totals = _run(simulation, [_ROUNDS])
    assert int(state.round) == _ROUNDS, f"state.round is {state.round} after {_ROUNDS} rounds"
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        sound = not np.issubdtype(leaf.dtype, np.floating) or np.isfinite(leaf).all()
        assert sound or "mixer" in jax.tree_util.keystr(path), f"state{jax.tree_util.keystr(path)} is not finite"
    cut = _run(simulation, [1, 3, _ROUNDS])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, "a run that was interrupted"), cut[0], state)
    check_traffic(totals.info.messages, algorithm.message_bytes(problem), (_DEVICES, _DEVICES), _DEVICES)
    s = np.asarray(algorithm.predict(state, problem.x_test))
    assert s.shape == (_DEVICES, len(problem.x_test), 3), f"predictions have shape {s.shape}, not [N, B, K]"
    if jax.device_count() > 1:
        close(_run(Simulation(algorithm, problem), [_ROUNDS])[0], state, "one shard or several")
    with jax.enable_x64(True):
        wide = small_problem(topology, _DEVICES, stochastic)
        in_double_precision(_run(Simulation(make(_population()), wide, one), [1])[0], "state")
    if loop:
        _check_loop(algorithm, problem, loop)


def _population() -> Population:
    learner = supervised_learner(build_model("linear", (5,), 3), optax.sgd(0.1), distillation_weight=2.0)
    return Population([Group(learner, _DEVICES)], batch_size=4)


def _run(simulation: Simulation, stops: list[int]) -> tuple[Any, Any]:
    """Return the last state, and the sums over the last part of the run, as NumPy arrays."""
    key = jax.random.key(3)
    state, totals = simulation.init(key), None
    for stop in stops:
        state, totals = simulation.advance(key, state, simulation.zeros(), stop)
    simulation.measure(state)
    return jax.tree.map(np.asarray, (state, totals))


def _check_info(info: Any) -> None:
    for name in ("loss", "distillation_loss", "steps"):
        shape = getattr(info, name).shape
        assert shape == (_DEVICES,), f"info.{name} has shape {shape}, not ({_DEVICES},)"
    assert np.issubdtype(info.steps.dtype, np.integer), f"info.steps is {info.steps.dtype}"


def _check_loop(algorithm: Algorithm, problem: Problem, loop: Callable) -> None:
    keys = [jax.random.fold_in(jax.random.key(7), t) for t in range(_ROUNDS)]
    first = state = algorithm.init(jax.random.key(3), problem)
    step = jax.jit(algorithm.round)
    for key in keys:
        state, _ = step(key, state, problem)
    found = [group.params for group in state.devices]
    close(found, jax.tree.map(jnp.asarray, loop(problem, first, keys)), "the plain loop", 1e-4)
