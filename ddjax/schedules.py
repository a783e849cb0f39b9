"""Step sizes over rounds, for the learning rate `η_t` and the consensus step size `ζ_t` alike."""

from collections.abc import Callable
from typing import NamedTuple

import optax

from ddjax.registry import Argument, Entry, Registry, number


class Schedule(NamedTuple):
    """How a step size falls over rounds.

    Attributes:
      step_sizes: `(initial, rounds) → optax.Schedule`, the step size in round `t` (counted from 0) of such a run.
      stretches: whether it depends on how long the run is.
      power: `a` where it falls like `t^−a` in the end, 0 where it stays; `None` where it reaches zero.
      tau: `(rounds) → ` the rounds in which `1 + t/τ` doubles.
    """

    step_sizes: Callable[[float, int], optax.Schedule]
    stretches: bool
    power: float | None
    tau: Callable[[int], float] = float


SCHEDULES: Registry[Entry] = Registry("schedule")


def constant() -> Schedule:
    """`initial`, always."""
    return Schedule(lambda initial, rounds: optax.constant_schedule(initial), stretches=False, power=0.0)


def inverse_power(power: float, tau: float | None = None) -> Schedule:
    """`initial / (1 + t/τ)^a`; for `1/2 < a ≤ 1` its sum diverges and its squares converge, as the convergence claim
    asks.

    Args:
      power: `a > 0`.
      tau: `τ > 0` in rounds; a tenth of the run if `None`.
    """

    def rounds_to_double(rounds: int) -> float:
        return max(rounds / 10, 1) if tau is None else tau

    def step_sizes(initial: float, rounds: int) -> optax.Schedule:
        slow = rounds_to_double(rounds)
        return lambda t: initial / (1 + t / slow) ** power

    return Schedule(step_sizes, stretches=tau is None, power=power, tau=rounds_to_double)


def cosine() -> Schedule:
    """`initial · (1 + cos(π t / rounds)) / 2`."""
    return Schedule(
        lambda initial, rounds: optax.cosine_decay_schedule(initial, max(rounds, 1)), stretches=True, power=None
    )


_TAU = Argument("TAU", number(positive=True), optional=True)
SCHEDULES.add(Entry("constant", constant))
SCHEDULES.add(Entry("inverse_time", lambda tau=None: inverse_power(1.0, tau), (_TAU,)))
SCHEDULES.add(Entry("inverse_power", inverse_power, (Argument("A", number(positive=True)), _TAU)))
SCHEDULES.add(Entry("cosine", cosine))


def schedule(spec: str) -> Schedule:
    """The schedule named by `spec`: `constant`, `inverse_time[:TAU]`, `inverse_power:A[:TAU]` or `cosine`.

    Raises:
      InputError: an unknown name, or an argument that is missing or not a positive number.
    """
    return SCHEDULES.parse(spec).build()
