"""Step sizes over rounds, for the learning rate `η_t` and the consensus step size `ζ_t` alike."""

import optax

from ddjax.types import InputError, suggest

SCHEDULES = ("constant", "inverse_time", "cosine")


def schedule(spec: str, initial: float, rounds: int) -> optax.Schedule:
    """The step size at round `t` (counted from 0).

    Args:
      spec: `constant`; `inverse_time` or `inverse_time:TAU`, `initial / (1 + t/TAU)`, whose sum diverges and whose
        squares converge, as the convergence claim asks (TAU in rounds, default a tenth of the run);
        `cosine`, `initial · (1 + cos(π t / rounds)) / 2`.
      initial: the value at round 0.
      rounds: length of the run.

    Raises:
      InputError: unknown name, or a TAU that is not a positive number.
    """
    name, _, argument = spec.partition(":")
    if name not in SCHEDULES:
        raise suggest("schedule", name, SCHEDULES)
    if argument and name != "inverse_time":
        raise InputError(f"schedule {name!r} takes no argument, got {spec!r}")
    if name == "constant":
        return optax.constant_schedule(initial)
    if name == "cosine":
        return optax.cosine_decay_schedule(initial, max(rounds, 1))
    try:
        tau = float(argument or max(rounds / 10, 1))
    except ValueError:
        tau = 0.0
    if not 0 < tau < float("inf"):
        raise InputError(f"schedule 'inverse_time:TAU' needs a positive number of rounds, got {spec!r}")
    return lambda t: initial / (1 + t / tau)
