"""Schedules of step sizes over rounds, for the learning rate `η_t` and the consensus step size `ζ_t`."""

from collections.abc import Callable
from typing import NamedTuple

import optax

from ddjax.registry import Argument, Entry, Registry, number


class Schedule(NamedTuple):
    """Schedule of a step size over rounds.

    Attributes:
      step_sizes: `(initial, rounds) → optax.Schedule`, the step size in round `t` (counted from 0) of a run.
      stretches: whether the schedule depends on the length of the run.
      power: `a` if the step size finally falls like `t^−a`, 0 if it is constant, `None` if it reaches zero.
      tau: `(rounds) → float`, the `τ` of a run of this many rounds: after `τ` rounds, `1 + t/τ` has doubled.
    """

    step_sizes: Callable[[float, int], optax.Schedule]
    stretches: bool
    power: float | None
    tau: Callable[[int], float] = float


SCHEDULES: Registry[Entry] = Registry("schedule")


def constant() -> Schedule:
    """Make the schedule that always equals `initial`."""
    return Schedule(lambda initial, rounds: optax.constant_schedule(initial), stretches=False, power=0.0)


def inverse_power(power: float, tau: float | None = None) -> Schedule:
    """Make the schedule `initial / (1 + t/τ)^a`.

    For `1/2 < a ≤ 1`, the sum of the step sizes diverges and the sum of their squares converges, as the paper's
    convergence claim requires.

    Args:
      power: `a > 0`.
      tau: `τ > 0` in rounds; if `None`, a tenth of the rounds of the run, but at least one round.
    """

    def rounds_to_double(rounds: int) -> float:
        return max(rounds / 10, 1) if tau is None else tau

    def step_sizes(initial: float, rounds: int) -> optax.Schedule:
        slow = rounds_to_double(rounds)
        return lambda t: initial / (1 + t / slow) ** power

    return Schedule(step_sizes, stretches=tau is None, power=power, tau=rounds_to_double)


def cosine() -> Schedule:
    """Make the schedule `initial · (1 + cos(π t / rounds)) / 2`."""
    return Schedule(
        lambda initial, rounds: optax.cosine_decay_schedule(initial, max(rounds, 1)), stretches=True, power=None
    )


_TAU = Argument("TAU", number(positive=True), optional=True)
SCHEDULES.add(Entry("constant", constant))
SCHEDULES.add(Entry("inverse_time", lambda tau=None: inverse_power(1.0, tau), (_TAU,)))
SCHEDULES.add(Entry("inverse_power", inverse_power, (Argument("A", number(positive=True)), _TAU)))
SCHEDULES.add(Entry("cosine", cosine))


def schedule(spec: str) -> Schedule:
    """Make the schedule named by `spec`: `constant`, `inverse_time[:TAU]`, `inverse_power:A[:TAU]` or `cosine`.

    Raises:
      InputError: the name is unknown, or an argument is missing or not a positive number.
    """
    return SCHEDULES.parse(spec).build()
