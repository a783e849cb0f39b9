"""Dynamic model averaging: devices average only when one of them has moved far from the last common model."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.learning import Population, round_keys, single_group
from ddjax.registry import Entry, Registry
from ddjax.stacked import select, stacked_bytes
from ddjax.theory.convergence import measure_averaging
from ddjax.types import Algorithm, Device, Info, Problem, PyTree, Traffic


class State(NamedTuple):
    """State of dynamic averaging between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      reference: `r`, the last parameters that all devices had in common, unstacked.
      violations: `[]` `v`, the coordinator's count of violations.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    reference: PyTree
    violations: jax.Array


class Balancing(NamedTuple):
    """Rule by which the coordinator polls devices.

    Attributes:
      due: `(N) → float`, count of violations at which all devices average and the count restarts.
      grown: `(count, N) → int`, size to which the next polls enlarge a balancing set of `count` devices.
    """

    due: Callable[[int], float]
    grown: Callable[[jax.Array, int], jax.Array | int]


BALANCING: Registry[Entry] = Registry("balancing")
BALANCING.add(Entry("one", lambda: Balancing(float, lambda count, size: count + 1)))
# All other devices are polled together if the set would otherwise grow to at least half of the devices.
BALANCING.add(
    Entry(
        "hedge",
        lambda: Balancing(lambda size: math.inf, lambda count, size: jnp.where(6 * count >= size, size, 3 * count)),
    )
)
BALANCING.add(Entry("full", lambda: Balancing(lambda size: 1, lambda count, size: size)))


def dynamic_averaging(
    population: Population, *, threshold: float, check_every: int = 1, balancing: str = "one"
) -> Algorithm:
    """Dynamic model averaging (Kamp et al., ECML-PKDD 2018, algorithm 1).

    Every `check_every` rounds, each device checks the local condition `‖θ_n − r‖² ≤ Δ`. A device that violates this
    condition sends its parameters to the coordinator. The coordinator averages the parameters of the set `B` of devices
    whose parameters it has received. As long as this average also violates the condition, the coordinator polls other,
    uniformly drawn devices for their parameters. Finally, the devices in `B` receive the average. Whenever `B` contains
    all devices, their average becomes the new `r`. All devices have equal weights and start from common parameters,
    which are the first `r`. Optimizer state is not sent.

    The paper leaves open how many devices are polled at a time:

    - `one`: one device. Once the count of violations reaches `N`, `B` becomes the set of all devices, and the count
      restarts, as in the paper.
    - `hedge`: two devices for each device in `B`, or all the other devices if `B` would otherwise grow to at least half
      of the devices. Violations are not counted.
    - `full`: all the other devices, as soon as there is a violation.

    `hedge` and `full` are the two methods of the authors' library, DLplatform. There, violations arrive one after
    another, and a second violation joins the balancing that the first one started. Here, all violations of a round
    arrive together.

    The messages to the coordinator, `violation` and `answer`, contain parameters. A `poll` of a device has one byte. An
    `average` contains parameters and one byte, which says whether these parameters are the new `r`.

    Args:
      population: devices of one architecture.
      threshold: `Δ ≥ 0`. With 0, all devices average at every check (periodic averaging); with infinity, they never
        average.
      check_every: `b`, number of rounds between two checks.
      balancing: a name in `BALANCING`.

    Raises:
      InputError: the devices have several architectures, `Δ` is negative, `check_every` is below 1, or `balancing` is
        unknown.

    Examples:
      >>> algorithm = ddjax.dynamic_averaging(population, threshold=0.5, check_every=5)
      >>> algorithm.message_bytes(problem).down
      {'poll': 1, 'average': 2601}
    """
    single_group(population, "dynamic_averaging")
    if isinstance(threshold, int | float) and not threshold >= 0:
        raise InputError(f"divergence_threshold must be at least 0, got {threshold}")
    if check_every < 1:
        raise InputError(f"check_every must be at least 1, got {check_every}")
    due, grown = BALANCING.parse(balancing).build()

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        reference = jax.tree.map(lambda leaf: leaf[0], devices[0].params)
        return State(jnp.zeros((), jnp.int32), devices, reference, jnp.zeros((), jnp.int32))

    def distance(params: PyTree, reference: PyTree) -> jax.Array:
        squares = [
            jnp.sum((a - b) ** 2, axis=tuple(range(a.ndim - b.ndim, a.ndim)))
            for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True)
        ]
        return functools.reduce(jnp.add, squares)

    def check(key: jax.Array, params: PyTree, state: State):
        reference = state.reference
        violating = distance(params, reference) > threshold
        violations = state.violations + violating.sum(dtype=jnp.int32)
        full = violations >= due(population.size)
        # Violating devices come first, then the other devices in the order of polling.
        order = jnp.argsort(jnp.where(violating, -1.0, jax.random.uniform(key, (population.size,))))
        place = jnp.zeros_like(order).at[order].set(jnp.arange(population.size))

        def mean(total: PyTree, count: jax.Array) -> PyTree:
            return jax.tree.map(lambda leaf: leaf / jnp.maximum(count, 1), total)

        def unbalanced(carry) -> jax.Array:
            count, wanted, total = carry
            far = (count < wanted) | (distance(mean(total, count), reference) > threshold)
            return (count > 0) & (count < population.size) & far

        def poll(carry):
            count, wanted, total = carry
            wanted = jnp.where(count < wanted, wanted, grown(count, population.size))
            return count + 1, wanted, jax.tree.map(lambda sum, leaf: sum + leaf[order[count]], total, params)

        first = violating | full
        total = jax.tree.map(lambda leaf: jnp.tensordot(first.astype(leaf.dtype), leaf, 1), params)
        count, _, total = jax.lax.while_loop(unbalanced, poll, (first.sum(), first.sum(), total))
        members, average = place < count, mean(total, count)
        everyone = members.all()
        params = select(members, jax.tree.map(lambda leaf: leaf[None], average), params)
        reference = jax.tree.map(lambda new, old: jnp.where(everyone, new, old), average, reference)
        violations = jnp.where(full, 0, violations)
        polled = (members & ~violating).astype(jnp.int32)
        sent = Traffic(
            up={"violation": violating.astype(jnp.int32), "answer": polled},
            down={"poll": polled, "average": members.astype(jnp.int32)},
        )
        return params, reference, violations, sent

    def rest(key: jax.Array, params: PyTree, state: State):
        none = jnp.zeros(population.size, jnp.int32)
        sent = Traffic(up={"violation": none, "answer": none}, down={"poll": none, "average": none})
        return params, state.reference, state.violations, sent

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        (devices,), phase = population.train(keys.train, state.round, state.devices, problem)
        due = (state.round + 1) % check_every == 0
        params, reference, violations, sent = jax.lax.cond(due, check, rest, keys.mix, devices.params, state)
        state = State(state.round + 1, (devices._replace(params=params),), reference, violations)
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        size = stacked_bytes(population.parameters)
        return Traffic(up={"violation": size, "answer": size}, down={"poll": 1, "average": size + 1})

    def predict(state: State, x: jax.Array) -> jax.Array:
        return population.predict(state.devices, x)

    return Algorithm(init, round, predict, message_bytes, population.check)


ALGORITHMS.add(
    AlgorithmEntry(
        "dynamic_averaging",
        dynamic_averaging,
        settings={"threshold": "divergence_threshold", "check_every": "check_every", "balancing": "balancing"},
        uses=TRAINING,
        contents={
            "violation": "parameters of a device that violates the condition",
            "answer": "parameters of a polled device",
            "poll": "request for parameters",
            "average": "average parameters, and whether they are the new reference",
        },
        measure=measure_averaging,
    )
)
