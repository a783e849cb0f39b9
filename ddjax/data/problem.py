"""Makes a problem: a data set shared out over the devices of a network."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ddjax.data import references
from ddjax.data.dataset import Dataset
from ddjax.data.partition import share_out
from ddjax.data.registry import PARTITIONS
from ddjax.data.rows import Chosen, blocks, located
from ddjax.data.scaling import Scaling, input_scaling, target_scaling
from ddjax.data.shifts import shifted
from ddjax.data.validation import set_apart
from ddjax.errors import InputError
from ddjax.learning.tasks import infer_task
from ddjax.networks import as_network
from ddjax.types import Problem


class Prepared(NamedTuple):
    """A problem, and what was understood and decided on the way to it.

    Attributes:
      problem: see `types.Problem`.
      facts: what `config.json` keeps, as JSON takes it: `task`, `classes`, `inputs`, `columns`, `standardized`,
        `examples`, `reference`, `duplicates` (test examples that are training examples too) and `notes`.
    """

    problem: Problem
    facts: dict[str, Any]


def make_problem(dataset: Dataset, network: Any, **choices: Any) -> Problem:
    """Shares a data set out over the devices of a network; takes what `prepare` takes, and raises what it raises."""
    return prepare(dataset, network, **choices).problem


def prepare(
    dataset: Dataset,
    network: Any,
    *,
    partition: str = "",
    dirichlet_alpha: float = 0.5,
    examples_per_device: int = 0,
    reference_size: int = 0,
    eval_examples: int = 0,
    standardize: str = "",
    seed: int = 0,
    feature_shift: str = "",
    reference_source: str = "",
    reference_dataset: Dataset | None = None,
    reference_classes: Sequence[str] = (),
    reference_alpha: float = 0.0,
    reference_known: float = 1.0,
    reference_labels: bool = False,
    validation_examples: int = 0,
    evaluate_on: str = "test",
    shards: int = 1,
) -> Prepared:
    """Shares a data set out over the devices of a network, and says how.

    The reference set is drawn from the training data, uniformly unless something else is asked, and its labels are
    thrown away, unless they are asked for. Private, reference, validation and test examples are disjoint. Inputs and
    numbers to predict are brought to unit scale where they are not, see `scaling.input_scaling` and
    `scaling.target_scaling`; token ids stay integers (int32).

    Args:
      dataset: what to share out.
      network: a `networks.Network`, a mixing matrix `[N, N]`, or the matrices `[T, N, N]` of a cycle.
      partition: a name of `PARTITIONS`; by default `dirichlet`, or `iid` where there are numbers to predict.
      dirichlet_alpha: concentration of the `dirichlet` and `quantity` partitions.
      examples_per_device: mean number of private examples of a device; 0 for all that are left. With `natural`, the
        largest number.
      reference_size: `R`; 0 for a quarter of the training data, at most 2,000.
      eval_examples: test examples, drawn at random; 0 for all.
      standardize: `columns`, `whole` or `none`; empty to decide.
      seed: of every draw.
      feature_shift: a specification in `shifts.SHIFTS`, by which every device sees its inputs differently. Reference
        and test examples are each seen as a device drawn at random sees them.
      reference_source: what the reference set is called in messages, where it is not drawn from the training data:
        `noise`, or the name of `reference_dataset`.
      reference_dataset: data whose training inputs the reference set is drawn from.
      reference_classes: names of the only classes of the reference set.
      reference_alpha: concentration of a Dirichlet distribution that the shares of the classes in the reference set are
        drawn from; 0 for those of the training data.
      reference_known: share of the reference set that each device knows, drawn for each at random.
      reference_labels: whether the problem keeps the labels of the reference set. Only one that is drawn from the
        training data has any: those of another data set are of classes of its own.
      validation_examples: examples drawn uniformly from the training data, before all others, that no device holds.
      evaluate_on: `test`, or `validation`: then these are the problem's test examples, and the data set's are not used.
      shards: over how many accelerators devices will be spread. With more than one, private inputs are made ready only
        when a shard asks for its own (`rows.Chosen`), unless there is a `feature_shift`.

    Raises:
      InputError: not enough examples for what is asked, an unknown partition, or token ids that are none.
    """
    network = as_network(network)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset.x_train))
    tests = len(dataset.x_test)
    dataset, order = set_apart(dataset, order, validation_examples, evaluate_on)
    total = len(order)
    outside = reference_source or reference_dataset is not None
    supply = total if reference_dataset is None else len(reference_dataset.x_train)
    reference_size = reference_size or min(2000, total // 4, supply)
    evaluated = min(tests, len(dataset.x_test))
    _check_sizes(total, 1 if outside else reference_size, evaluated, eval_examples, examples_per_device)
    if outside and (reference_classes or reference_alpha):
        raise InputError(
            "--reference_classes and --reference_alpha choose from the training data; they do nothing with "
            f"--reference_dataset={reference_source}"
        )
    if reference_dataset is not None:
        references.check(dataset, reference_dataset, reference_size, reference_source)
    numbers = dataset.y_train.dtype.kind == "f"
    outcomes = target_scaling(dataset, standardize) if numbers else None
    y_train, y_test = (_targets(y, outcomes) for y in (dataset.y_train, dataset.y_test))
    partition = partition or infer_task(y_train).partition
    if outside:
        private, known = order, np.zeros(0, int)
        unlabeled = references.outside(dataset, reference_dataset, reference_size, rng)
    else:
        known, private = references.held_out(dataset, order, reference_size, rng, reference_classes, reference_alpha)
        unlabeled = dataset.x_train[known]
    drawn = rng.permutation(tests)[: eval_examples or None]
    # What is drawn next, and so what devices hold, is the same whatever is evaluated on.
    test = drawn if evaluate_on == "test" else np.arange(len(dataset.x_test))[: eval_examples or None]
    if PARTITIONS.parse(partition).entry.by_owner:
        shares = _owned(dataset, private, network.devices, partition, examples_per_device, rng)
    else:
        shares = share_out(partition, y_train[private], network.devices, rng, dirichlet_alpha, examples_per_device)
    parts = [private[share] for share in shares]
    rows, held, sizes = _pooled(parts)
    inputs = None if dataset.tokens else input_scaling(dataset, unlabeled, standardize)
    as_inputs = _tokens(dataset, standardize) if inputs is None else inputs.apply
    x: Any = Chosen(dataset.x_train, rows, as_inputs)
    y: Any = y_train[rows]
    if shards == 1 or feature_shift:
        x = x[:]
    x_test = as_inputs(dataset.x_test, test)
    reference = as_inputs(unlabeled, np.arange(reference_size))
    labels = jnp.asarray(y_train[known]) if reference_labels and not outside else None
    known_by_device = references.known_by_device(network.devices, reference_size, reference_known, rng)
    if feature_shift:
        seen = _seen(x, sizes, ((reference, len(reference)), (x_test, len(drawn))), rng)
        shifted(feature_shift, dataset, seen, network.devices, rng)
    if shards == 1:
        x, y = jnp.asarray(x), jnp.asarray(y)
    problem = Problem(
        x=x,
        y=y,
        private_indices=jnp.asarray(held),
        private_counts=jnp.asarray(sizes),
        reference=jnp.asarray(reference),
        network=network,
        x_test=jnp.asarray(x_test),
        y_test=jnp.asarray(y_test[test]),
        known=known_by_device,
        reference_labels=labels,
    )
    held_classes = [] if numbers else np.unique(y_train[rows]).tolist()
    each = reference[0].nbytes + (0 if labels is None else labels[0].nbytes)
    part = reference_size if known_by_device is None else int(known_by_device[0].sum())
    notes = list(dataset.notes)
    if reference_dataset is not None:
        taken = {example.tobytes() for example in unlabeled}
        for name, some, places in (("private", dataset.x_train, rows), (evaluate_on, dataset.x_test, test)):
            if common := sum(example.tobytes() in taken for _, example in _each(some, places)):
                notes.append(f"{common} of the {len(places)} {name} examples have inputs that are in the reference set")
    if known_by_device is not None and (unknown := int((~known_by_device.any(0)).sum())):
        notes.append(f"no device knows {unknown} of the {reference_size} reference examples")
    if not numbers and len(held_classes) < dataset.outputs:
        notes.append(f"no device holds an example of {dataset.outputs - len(held_classes)} of the classes")
    facts = {
        "task": "regression" if numbers else "classification",
        "classes": None if numbers else list(dataset.classes or map(str, range(dataset.outputs))),
        "outputs": dataset.outputs,
        "inputs": {"shape": list(problem.x.shape[1:]), "dtype": str(dataset.x_train.dtype), "tokens": dataset.tokens},
        "columns": [column._asdict() for column in dataset.columns],
        "standardized": {
            "inputs": {"how": "none"} if inputs is None else inputs.facts(),
            "targets": outcomes.facts() if outcomes else {"how": "none"},
        },
        "examples": {
            "partition": partition,
            "private_least": int(sizes.min()),
            "private_most": int(sizes.max()),
            "reference": reference_size,
            "validation": validation_examples,
            "test": len(test),
            "evaluated_on": evaluate_on,
        },
        "reference": {
            "source": reference_source or "the training data",
            "known": part,
            "labels": labels is not None,
            "bytes_per_device": part * each,
            "bytes_to_distribute": network.devices * part * each,
        },
        "duplicates": _duplicates(dataset, np.concatenate([rows, known]), test),
        "notes": notes,
    }
    return Prepared(problem, facts)


def _seen(
    x: np.ndarray, sizes: np.ndarray, others: Sequence[tuple[np.ndarray, int]], rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs with the devices that see them: private ones in order, the others as some devices drawn at random do."""
    devices = len(sizes)
    return [
        (x, np.repeat(np.arange(devices), sizes)),
        *((each, np.resize(rng.integers(devices, size=count), len(each))) for each, count in others),
    ]


def digest(dataset: Dataset, reference: Dataset | None = None) -> str:
    """A digest of a data set, and of the one that the reference set comes from, before they are standardized."""
    others = (dataset.owner, None if reference is None else reference.x_train)
    return digest_arrays([*dataset[:4], *(array for array in others if array is not None)])


def digest_arrays(arrays: Iterable[np.ndarray]) -> str:
    """A digest of shapes, dtypes and contents, 16 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        for block in blocks(array):
            found.update(np.ascontiguousarray(block).data)
    return found.hexdigest()


def digest_path(path: str | Path) -> str:
    """A digest of the contents of a file, or of all files in a folder, 16 hexadecimal digits."""
    root, found = Path(path).expanduser(), hashlib.blake2b(digest_size=8)
    for file in sorted(each for each in root.rglob("*") if each.is_file()) if root.is_dir() else [root]:
        found.update(str(file.relative_to(root)).encode())
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "blake2b").digest())
    return found.hexdigest()


def _duplicates(dataset: Dataset, known: np.ndarray, tests: np.ndarray) -> int:
    """The number of test examples that are, with their target, training examples too; both as rows of the data set."""

    def codes(x: Any, y: np.ndarray, rows: np.ndarray) -> Iterator[int]:
        return (hash((example.tobytes(), y[row].tobytes())) for row, example in _each(x, rows))

    wanted = set(codes(dataset.x_test, dataset.y_test, tests))
    seen = wanted.intersection(codes(dataset.x_train, dataset.y_train, known))
    return sum(code in seen for code in codes(dataset.x_test, dataset.y_test, tests))


def _each(x: Any, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The numbers of some rows, and what is in them; not in their order."""
    for block, places, inside in located(x, rows):
        yield from zip(rows[places], block[inside], strict=True)


def _check_sizes(total: int, reference_size: int, tests: int, eval_examples: int, examples_per_device: int) -> None:
    if not 0 < reference_size < total:
        raise InputError(
            f"reference_size must lie in 1 … {total - 1}, below the {total} training examples, got {reference_size}"
        )
    if not 0 <= eval_examples <= tests:
        raise InputError(
            f"eval_examples must lie in 0 … {tests}, the examples there are to evaluate on, got {eval_examples}"
        )
    if examples_per_device < 0:
        raise InputError(f"examples_per_device must be 0 (all) or positive, got {examples_per_device}")


def _owned(
    dataset: Dataset, private: np.ndarray, devices: int, partition: str, most: int, rng: np.random.Generator
) -> Sequence[np.ndarray]:
    """The positions in `private` that belong to each device, by the owners of the examples."""
    if dataset.owner is None:
        others = ", ".join(entry.name for entry in PARTITIONS.entries() if not entry.by_owner)
        raise InputError(
            f"partition {partition!r} needs to know who holds an example: an array `owner` in a .npz, or natural:KEY "
            f"with a column of a table or a feature of tfds; here nothing says so, so use {others}"
        )
    return PARTITIONS.parse(partition).build(dataset.owner[private], devices, rng, most, bool(dataset.owners))


def _pooled(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows that any device holds, and as indices into these what each holds, with its count.

    Only these rows travel to the accelerator.
    """
    rows = np.concatenate(parts)
    sizes = np.array([len(part) for part in parts], np.int32)
    held = np.zeros((len(parts), sizes.max()), np.int32)
    for n, start in enumerate(np.cumsum(sizes) - sizes):
        held[n, : sizes[n]] = np.arange(start, start + sizes[n])
    return rows, held, sizes


def _targets(y: np.ndarray, scaling: Scaling | None) -> np.ndarray:
    return scaling.apply(y.reshape(len(y), -1)) if scaling else y


def _tokens(dataset: Dataset, standardize: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """How token ids are made ready."""
    _check_tokens(dataset)
    if standardize not in ("", "none"):
        raise InputError(f"token ids are not standardized, so --standardize={standardize} cannot be; leave it out")
    return lambda x, rows: x[rows].astype(np.int32, copy=False)


def _check_tokens(dataset: Dataset) -> None:
    for split, x in (("train", dataset.x_train), ("test", dataset.x_test)):
        if x.dtype.kind not in "iu" or x.ndim != 2:
            raise InputError(
                f"token ids are integers [examples, length], but x_{split} is {x.dtype} {list(x.shape)}; "
                "take tokens=False for other inputs"
            )
        if x.size and not 0 <= x.min() <= x.max() < 2**31:
            raise InputError(f"token ids lie from 0 to {2**31 - 1}, but x_{split} goes from {x.min()} to {x.max()}")


def pool(problem: Problem) -> Problem:
    """Gives all data to one device; `local` on this problem is centralized training.

    Give its one learner `N` times the batch size, so that a round sees as many examples as a round of the others.
    """
    held = jnp.arange(problem.private_indices.shape[1]) < problem.private_counts[:, None]
    rows = problem.private_indices[held]
    return problem._replace(
        private_indices=rows[None],
        private_counts=jnp.array([rows.size], jnp.int32),
        network=as_network(jnp.ones((1, 1))),
        known=None,
    )
