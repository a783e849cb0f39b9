"""Step sizes over rounds, for the learning rate `η_t` and the consensus step size `ζ_t` alike."""

import optax

from ddjax.errors import InputError, suggest

SCHEDULES = ("constant", "inverse_time", "inverse_power", "cosine")


def schedule(spec: str, initial: float, rounds: int) -> optax.Schedule:
    """The step size at round `t` (counted from 0).

    Args:
      spec: `constant`; `inverse_time[:TAU]`, `initial / (1 + t/TAU)`, whose sum diverges and whose squares converge, as
        the convergence claim asks; `inverse_power:A[:TAU]`, `initial / (1 + t/TAU)^A` (TAU in rounds, default a tenth
        of the run); `cosine`, `initial · (1 + cos(π t / rounds)) / 2`.
      initial: the value at round 0.
      rounds: length of the run.

    Raises:
      InputError: unknown name, or an argument that is missing or not a positive number.
    """
    name, *arguments = spec.split(":")
    if name not in SCHEDULES:
        raise suggest("schedule", name, SCHEDULES)
    usage = {"inverse_time": "inverse_time[:TAU]", "inverse_power": "inverse_power:A[:TAU]"}.get(name, name)
    wanted = usage.count(":")
    try:
        numbers = [float(argument) for argument in arguments]
    except ValueError:
        numbers = [0.0]
    enough = wanted - usage.count("[") <= len(numbers) <= wanted
    if not enough or not all(0 < number < float("inf") for number in numbers):
        raise InputError(f"schedule {spec!r}: expected {usage!r}" + (" with positive numbers" if wanted else ""))
    if name == "constant":
        return optax.constant_schedule(initial)
    if name == "cosine":
        return optax.cosine_decay_schedule(initial, max(rounds, 1))
    power = numbers.pop(0) if name == "inverse_power" else 1.0
    tau = numbers[0] if numbers else max(rounds / 10, 1)
    return lambda t: initial / (1 + t / tau) ** power
