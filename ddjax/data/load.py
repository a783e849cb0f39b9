"""Data sets by name or by path."""

from ddjax.data.dataset import Dataset
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.errors import InputError, suggest


def find_dataset(spec: str) -> DatasetEntry:
    """The entry that a specification names, or the kind of file that a path is.

    Raises:
      InputError: an unknown name.
    """
    path = spec.lower().removesuffix(".gz")
    for entry in DATASETS.entries():
        if entry.suffix and path.endswith(entry.suffix):
            return entry
    named = [entry.name for entry in DATASETS.entries() if not entry.suffix]
    if spec.partition(":")[0] not in named:
        raise suggest(DATASETS.kind, spec, [*named, *(entry.usage for entry in DATASETS.entries() if entry.suffix)])
    return DATASETS[spec.partition(":")[0]]


def load_dataset(
    spec: str,
    *,
    devices: int = 1,
    train: int = 1000,
    seed: int = 0,
    target_column: str = "",
    task: str = "",
    ignore_columns: str = "",
) -> Dataset:
    """The data set named by `spec`.

    Args:
      spec: a name of `DATASETS` with its arguments, such as `digits` or `synthetic_classification:4:60:0.5`, or the
        path of a file, such as `mine.npz`.
      devices: `N`, for synthetic data.
      train: training examples to make, for synthetic data.
      seed: of a random split, or of synthetic data.
      target_column: of a `.csv`, what is learned.
      task: of a file, `classification` or `regression`; empty to decide by the targets.
      ignore_columns: of a `.csv`, names of columns that are no inputs, joined by `+`.

    Raises:
      InputError: an unknown name, malformed arguments, or what the file has wrong.
    """
    entry, wanted = find_dataset(spec), Wanted(seed, devices, train, target_column, task, ignore_columns)
    for name in ("target_column", "task", "ignore_columns"):
        if getattr(wanted, name) and name not in entry.names:
            takers = ", ".join(entry.usage for entry in DATASETS.entries() if name in entry.names)
            raise InputError(f"--{name} belongs to {takers}, and the data set is {spec!r}")
    return entry.build(wanted, spec) if entry.suffix else DATASETS.parse(spec).build(wanted)
