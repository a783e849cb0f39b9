"""Data sets by name or by path."""

from pathlib import Path

from ddjax.data.dataset import Dataset
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.errors import InputError, no_file, suggest


def find_dataset(spec: str) -> DatasetEntry:
    """The entry that a specification names, or the kind of path that it is.

    Raises:
      InputError: an unknown name, or a path of no kind.
    """
    named = {entry.name: entry for entry in DATASETS.entries() if not entry.form}
    if (name := spec.partition(":")[0]) in named:
        return named[name]
    paths = [entry for entry in DATASETS.entries() if entry.form]
    plain = spec.lower().removesuffix(".gz")
    for entry in paths:
        if plain.endswith(entry.suffixes):
            return entry
    path = Path(spec).expanduser()
    if path.exists():
        for entry in paths:
            if entry.recognize(path):
                return entry
        raise InputError(
            f"{spec!r} is {'a folder' if path.is_dir() else 'a file'} of no known kind; known are "
            + ", ".join(entry.usage for entry in paths)
        )
    if "/" in spec:
        raise no_file(spec)
    raise suggest(DATASETS.kind, spec, [*named, *(entry.usage for entry in paths)])


def load_dataset(spec: str, **wanted: int | str) -> Dataset:
    """The data set named by `spec`.

    Args:
      spec: a name of `DATASETS` with its arguments, such as `digits` or `synthetic_classification:4:60:0.5`, or a
        path, such as `mine.npz`.
      **wanted: attributes of `Wanted`.

    Raises:
      InputError: an unknown name, malformed arguments, what is asked and does not belong to this data set, or what the
        file has wrong.
    """
    entry, asked = find_dataset(spec), Wanted(**wanted)  # type: ignore[arg-type]
    for name in (name for name in Wanted._fields if name in _own()):
        if getattr(asked, name) and name not in entry.names:
            takers = ", ".join(entry.usage for entry in DATASETS.entries() if name in entry.names)
            raise InputError(f"--{name} belongs to {takers}, and the data set is {spec!r}")
    return entry.build(asked, spec) if entry.form else DATASETS.parse(spec).build(asked)


def _own() -> frozenset[str]:
    """What only some data sets can be asked for."""
    return frozenset(name for entry in DATASETS.entries() for name in entry.names)
