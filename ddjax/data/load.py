"""Lookup of data sets by name or by path."""

from pathlib import Path

from ddjax.data.dataset import Dataset
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.errors import InputError, no_file, suggest


def find_dataset(spec: str) -> DatasetEntry:
    """Find the entry that reads the data set with a given name or path.

    Args:
      spec: specification, as in `load_dataset`.

    Raises:
      InputError: the name is unknown, the path does not exist, or no entry reads paths of this kind.

    Examples:
      >>> from ddjax.data import find_dataset
      >>> find_dataset("synthetic_regression:20").usage
      'synthetic_regression[:DIMENSIONS[:NOISE[:HETEROGENEITY]]]'
      >>> find_dataset("people.csv").name  # by the ending; the file is not opened
      'csv'
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
            f"{spec!r} is {'a folder' if path.is_dir() else 'a file'} of unknown kind; accepted: "
            + ", ".join(entry.usage for entry in paths)
        )
    if "/" in spec:
        raise no_file(spec)
    raise suggest(DATASETS.kind, spec, [*named, *(entry.usage for entry in paths)])


def load_dataset(spec: str, **wanted: int | str) -> Dataset:
    """Load the data set that `spec` names.

    Args:
      spec: name in `DATASETS` with its arguments, such as `digits` or `synthetic_classification:4:60:0.5`; or a path,
        such as `mine.npz`.
      **wanted: values for attributes of `Wanted`, such as `task="regression"`.

    Raises:
      InputError: the name or path is unknown, an argument is malformed, an attribute in `wanted` does not apply to this
        data set, or the file contains a mistake.

    Examples:
      >>> digits = ddjax.load_dataset("digits")
      >>> digits.x_train.shape, digits.x_test.shape, digits.outputs
      ((1437, 8, 8), (360, 8, 8), 10)
      >>> ddjax.load_dataset("synthetic_classification:3", devices=4, train=8).owner
      array([0, 1, 2, 3, 0, 1, 2, 3])
    """
    entry, asked = find_dataset(spec), Wanted(**wanted)  # type: ignore[arg-type]
    for name in (name for name in Wanted._fields if name in _own()):
        if getattr(asked, name) and name not in entry.names:
            takers = ", ".join(entry.usage for entry in DATASETS.entries() if name in entry.names)
            raise InputError(f"--{name} is not used by {spec!r}; it belongs to {takers}")
    return entry.build(asked, spec) if entry.form else DATASETS.parse(spec).build(asked)


def _own() -> frozenset[str]:
    """Return the names of the attributes of `Wanted` that apply only to some data sets."""
    return frozenset(name for entry in DATASETS.entries() for name in entry.names)
