"""Settings that an experiment uses, as the entries of the registries declare them."""

import dataclasses
from typing import Any

from ddjax.algorithms import ALGORITHMS, CONSENSUS, DETECTORS
from ddjax.algorithms.registry import AlgorithmEntry
from ddjax.data import DATASETS, PARTITIONS, find_dataset
from ddjax.errors import InputError, suggest
from ddjax.experiments.fields import Role, fields
from ddjax.experiments.settings import Settings
from ddjax.mixing import MIXERS
from ddjax.registry import Registry

# Settings that choose an entry of a registry, which may use settings of its own, in the order of the checks.
_OF_ALGORITHMS: dict[str, Registry] = {"consensus": CONSENSUS, "detector": DETECTORS}
_CHOOSING: dict[str, Registry] = {"mixing": MIXERS, **_OF_ALGORITHMS, "partition": PARTITIONS}


def algorithm(settings: Settings) -> AlgorithmEntry:
    """Return the entry of the algorithm; raise `InputError` if it is unknown."""
    return ALGORITHMS.parse(settings.algorithm).entry


def resolve(settings: Settings) -> Settings:
    """Apply the settings that the algorithm's name fixes, such as the mixing of `choco`."""
    return dataclasses.replace(settings, **algorithm(settings).fixed)


_NAMING: tuple[Registry, ...] = (ALGORITHMS, DATASETS, *_CHOOSING.values())


def _owned() -> frozenset[str]:
    """Return the settings that ddjax's own entries name; entries that users register do not count."""
    entries = (entry for registry in _NAMING for entry in registry.entries())
    return frozenset(
        name for entry in entries if (entry.build.__module__ or "").startswith("ddjax.") for name in entry.names
    )


def check_entries() -> None:
    """Refuse entries that name an unknown setting, or take a setting on which no compiled program depends.

    Raises:
      InputError: an entry names or takes such a setting.
    """
    known = fields(Settings)
    baked = (Role.HYPERPARAMETER, Role.PROGRAM, Role.EXECUTION)
    for registry in _NAMING:
        for entry in registry.entries():
            for name in entry.names:
                if name not in known:
                    raise suggest(f"setting of {registry.kind} {entry.name!r}:", name, known)
            for name in entry.taken:
                if known[name].role not in baked:
                    raise InputError(
                        f"{registry.kind} {entry.name!r} cannot take the setting {name!r}, because runs "
                        "that differ in it share one compiled program"
                    )


def taken(entry: AlgorithmEntry, settings: Settings) -> dict[str, str]:
    """Return parameter → setting that fills it, for an algorithm's factory and for entries that its settings choose."""
    names = dict(entry.settings)
    for setting, registry in _OF_ALGORITHMS.items():
        if setting in entry.settings.values():
            names |= registry[getattr(settings, setting)].settings
    return names


def datasets(settings: Settings) -> list[str]:
    """Return the data sets to read: the devices' data set and, if there is another one, the reference data set."""
    return [settings.dataset, *({settings.reference_dataset} - {"", "noise"})]


def used(settings: Settings) -> frozenset[str]:
    """Return the settings that affect the results of the run; the values of all other settings make no difference.

    Raises:
      InputError: the value of a setting that the run uses is an unknown name.
    """
    entry, effective = algorithm(settings), resolve(settings)
    names = set(entry.names).union(*(find_dataset(spec).names for spec in datasets(settings)))
    for setting, registry in _CHOOSING.items():
        if setting in names or setting not in _owned():
            spec = getattr(effective, setting)
            if setting == "partition" and not spec:
                spec = "dirichlet"  # the default for classes
            names |= set(registry.parse(spec).entry.names)
    if effective.local_epochs:
        names.discard("local_steps")
    return (frozenset(fields(Settings)) - _owned() | names) - set(entry.fixed)


def users(name: str) -> str:
    """List the algorithms and other choices that use a setting, for a message."""
    found = [entry.name for entry in ALGORITHMS.entries() if name in entry.names and name not in entry.fixed]
    for setting, registry in _CHOOSING.items():
        found += [f"--{setting}={entry.name}" for entry in registry.entries() if name in entry.names]
    found += [f"--dataset={entry.usage}" for entry in DATASETS.entries() if name in entry.names]
    return ", ".join(found)


def check_used(settings: Settings) -> None:
    """Refuse settings that are not at their defaults but have no effect in the run.

    Raises:
      InputError: a setting has no effect; the message names the choices that use it.
    """
    uses, fixed = used(settings), algorithm(settings).fixed
    if "homogenize_after" in uses and settings.homogenize_after > settings.rounds:
        raise InputError(
            f"homogenize_after {settings.homogenize_after} lies beyond the last of the {settings.rounds} rounds, so "
            f"{settings.algorithm} would be the same as dsgd; lower it or raise --rounds"
        )
    for name, field in fields(Settings).items():
        value: Any = getattr(settings, name)
        shared = field.shared and name not in fixed
        if name not in uses and not shared and value != field.default:
            choices = users(name)
            without = f"--dataset={settings.dataset}" if choices.startswith("--dataset=") else settings.algorithm
            raise InputError(f"--{name} is not used by {without}; it belongs to {choices}")
    try:
        resolve(settings).check()  # the settings that the algorithm's name fixes must agree with the others
    except InputError as error:
        has = ", ".join(f"--{name}={value}" for name, value in fixed.items())
        raise InputError(f"{error}; {settings.algorithm} fixes {has}" if has else str(error)) from None
