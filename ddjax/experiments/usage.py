"""Which settings an experiment uses, from what the entries of the registries say about themselves."""

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

# Settings that choose an entry with settings of its own, in the order in which they are looked at.
_OF_ALGORITHMS: dict[str, Registry] = {"consensus": CONSENSUS, "detector": DETECTORS}
_CHOOSING: dict[str, Registry] = {"mixing": MIXERS, **_OF_ALGORITHMS, "partition": PARTITIONS}


def algorithm(settings: Settings) -> AlgorithmEntry:
    """The entry of the algorithm; raises `InputError` for an unknown one."""
    return ALGORITHMS.parse(settings.algorithm).entry


def resolve(settings: Settings) -> Settings:
    """The settings with those that a published name fixes, such as the mixing of `choco`."""
    return dataclasses.replace(settings, **algorithm(settings).fixed)


_NAMING: tuple[Registry, ...] = (ALGORITHMS, DATASETS, *_CHOOSING.values())


def _owned() -> frozenset[str]:
    """Settings that some entry of ddjax names as its own; an entry of a user takes no setting away from others."""
    entries = (entry for registry in _NAMING for entry in registry.entries())
    return frozenset(
        name for entry in entries if (entry.build.__module__ or "").startswith("ddjax.") for name in entry.names
    )


def check_entries() -> None:
    """Refuses entries that name settings which there are not, or which are not data of their kind.

    Raises:
      InputError: the first of them.
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
                        f"{registry.kind} {entry.name!r} cannot take the setting {name!r}: runs that differ in it "
                        "share one compiled program"
                    )


def taken(entry: AlgorithmEntry, settings: Settings) -> dict[str, str]:
    """The parameters of an algorithm's factory with the settings that fill them in, those of what it chooses too."""
    names = dict(entry.settings)
    for setting, registry in _OF_ALGORITHMS.items():
        if setting in entry.settings.values():
            names |= registry[getattr(settings, setting)].settings
    return names


def datasets(settings: Settings) -> list[str]:
    """The data sets that are read: that of the devices, and that of the reference set where it is another."""
    return [settings.dataset, *({settings.reference_dataset} - {"", "noise"})]


def used(settings: Settings) -> frozenset[str]:
    """The settings that matter to what is run: with other values of the others, its numbers are the same.

    Raises:
      InputError: an unknown name among those that are used.
    """
    entry, effective = algorithm(settings), resolve(settings)
    names = set(entry.names).union(*(find_dataset(spec).names for spec in datasets(settings)))
    for setting, registry in _CHOOSING.items():
        if setting in names or setting not in _owned():
            spec = getattr(effective, setting)
            if setting == "partition" and not spec:
                spec = "dirichlet"  # the default where there are labels
            names |= set(registry.parse(spec).entry.names)
    if effective.local_epochs:
        names.discard("local_steps")
    return (frozenset(fields(Settings)) - _owned() | names) - set(entry.fixed)


def users(name: str) -> str:
    """The algorithms that use a setting, or the other choices that do, for a message."""
    found = [entry.name for entry in ALGORITHMS.entries() if name in entry.names and name not in entry.fixed]
    for setting, registry in _CHOOSING.items():
        found += [f"--{setting}={entry.name}" for entry in registry.entries() if name in entry.names]
    found += [f"--dataset={entry.usage}" for entry in DATASETS.entries() if name in entry.names]
    return ", ".join(found)


def check_used(settings: Settings) -> None:
    """Refuses settings that were changed from their default but are not used, or would come too late.

    Raises:
      InputError: the first of them, and what uses it.
    """
    uses, fixed = used(settings), algorithm(settings).fixed
    if "homogenize_after" in uses and settings.homogenize_after > settings.rounds:
        raise InputError(
            f"homogenize_after {settings.homogenize_after} lies behind the last of the {settings.rounds} rounds, so "
            f"that {settings.algorithm} would be dsgd; take fewer, or more --rounds"
        )
    for name, field in fields(Settings).items():
        value: Any = getattr(settings, name)
        shared = field.shared and name not in fixed
        if name not in uses and not shared and value != field.default:
            choices = users(name)
            without = f"--dataset={settings.dataset}" if choices.startswith("--dataset=") else settings.algorithm
            raise InputError(f"--{name} is not used by {without}; it belongs to {choices}")
    try:
        resolve(settings).check()  # what a published name fixes goes with the rest
    except InputError as error:
        has = ", ".join(f"--{name}={value}" for name, value in fixed.items())
        raise InputError(f"{error}; {settings.algorithm} has {has}" if has else str(error)) from None
