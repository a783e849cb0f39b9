"""Settings of a study of convergence."""

import dataclasses
from functools import partial

from ddjax.algorithms import ALGORITHMS
from ddjax.errors import InputError
from ddjax.experiments.fields import Field, Role, fields, setting
from ddjax.experiments.sweeps.plan import WHOLE, SweepSettings, list_fields

_study = partial(setting, section="The study")
# By default, a study solves linear least squares, with all data in each step.
DEFAULTS = {
    "dataset": "synthetic_regression",
    "models": "linear",
    "devices": "16",
    "distillation_weight": "1",
    "batch_size": "0",
    "reference_batch_size": "0",
    "learning_rate": "0",
    "rounds": "0",
}
_HELP = {
    "learning_rate": "Learning rate; 0 derives it from the problem's curvature and the graph's spectrum. This needs "
    "linear devices, squared loss, one sgd step of constant size on all data per round, uncompressed averaging and a "
    "graph that does not change.",
    "rounds": "Communication rounds; 0 derives the number after which the distance to the resting point is 1e-10 "
    "(float64) or 1e-5 of its first value. This needs what --learning_rate=0 needs, and a constant consensus step "
    "size.",
}


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Settings of a study as a whole."""

    points: int = _study(
        60, "Largest number of measured rounds, which are evenly spaced on a logarithmic scale.", minimum=2
    )
    window: str = _study("", "FIRST:LAST, first and last round of the fits; default: the last nine tenths of the run.")
    endpoints: int = _study(
        0,
        "Largest number of devices per seed whose final models are examined (curvature, perturbation); with "
        "averaging, the mean model is examined.",
        minimum=0,
    )
    output_dir: str = _study("", "Folder to write into, new or empty; default runs/convergence-<time>.")

    def check(self) -> None:
        """Raise `InputError` for values that no study can have."""
        for name, field in fields(self).items():
            field.check(getattr(self, name))


def measured() -> list[str]:
    """List the algorithms whose convergence is measured."""
    return [entry.name for entry in ALGORITHMS.entries() if entry.measure]


def check_algorithm(name: str) -> None:
    """Raise `InputError` for an algorithm whose convergence is not measured."""
    if ALGORITHMS.parse(name).entry.measure is None:
        raise InputError(f"convergence of {name!r} is not measured; accepted: {', '.join(measured())}")


def study_fields() -> dict[str, Field]:
    """Make the flags of a study: its own flags, some flags of a sweep, and lists of the settings that affect a study.

    A study stores no run and evaluates nothing on the test set. Settings that are used only by algorithms whose
    convergence is not measured are left out.
    """
    own = fields(StudySettings)
    sweep = {name: field for name, field in fields(SweepSettings).items() if name in ("seeds", "zip", "exclude")}
    used = {name for entry in ALGORITHMS.entries() if entry.measure for name in entry.names}
    others = {name for entry in ALGORITHMS.entries() for name in entry.names} - used
    lists = {
        name: dataclasses.replace(field, default=DEFAULTS.get(name, field.default), help=_HELP.get(name, field.help))
        for name, field in list_fields().items()
        if field.role not in (Role.OUTPUT, Role.EVALUATION) and name not in others
    }
    return own | sweep | lists


def whole_settings(values: dict) -> dict:
    """Select, from the values of the flags, the settings that hold for all curves of a study."""
    return {name: values[name] for name in WHOLE if name in values}
