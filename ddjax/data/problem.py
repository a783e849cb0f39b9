"""Problems: data sets divided among the devices of a network."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ddjax.data import references
from ddjax.data.dataset import Dataset
from ddjax.data.partition import share_out
from ddjax.data.registry import PARTITIONS
from ddjax.data.rows import Chosen, located
from ddjax.data.scaling import Scaling, input_scaling, target_scaling
from ddjax.data.shifts import shifted
from ddjax.data.validation import set_apart
from ddjax.errors import InputError
from ddjax.learning.tasks import infer_task
from ddjax.networks import as_network
from ddjax.types import Problem


class Prepared(NamedTuple):
    """Problem, with a description of how its data were interpreted.

    Attributes:
      problem: the problem (see `types.Problem`).
      facts: entries for `config.json`, in types that JSON accepts: `task`, `classes`, `outputs`, `inputs`, `columns`,
        `standardized`, `examples`, `reference`, `duplicates` (number of test examples that have the same input and
        target as a private or reference example) and `notes`.
    """

    problem: Problem
    facts: dict[str, Any]


def make_problem(dataset: Dataset, network: Any, **choices: Any) -> Problem:
    """Divide a data set among the devices of a network.

    Args:
      dataset: data set to divide.
      network: network, as in `prepare`.
      **choices: keyword arguments of `prepare`.

    Raises:
      InputError: `prepare` refuses an argument.

    Examples:
      >>> problem = ddjax.make_problem(dataset, network, examples_per_device=100, reference_size=500)
      >>> problem.private_counts
      Array([100, 100, 100, 100], dtype=int32)
      >>> problem.reference.shape, problem.x_test.shape
      ((500, 8, 8), (360, 8, 8))
    """
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
    """Divide a data set among the devices of a network, and describe the result.

    By default, the reference set is drawn uniformly from the training data, and its labels are discarded. Private,
    reference, validation and test examples are disjoint. Inputs and numbers to predict are scaled if necessary (see
    `scaling.input_scaling` and `scaling.target_scaling`); token ids remain integers (int32).

    Args:
      dataset: data set to divide.
      network: a `networks.Network`, a mixing matrix `[N, N]`, or mixing matrices `[T, N, N]` that are used in turn.
      partition: specification in `PARTITIONS`; empty for `dirichlet` with classes, and for `iid` with numbers to
        predict.
      dirichlet_alpha: concentration of the `dirichlet` and `quantity` partitions.
      examples_per_device: mean number of private examples per device or, with `natural`, the largest number; 0 to
        divide all training examples that are not used for the reference set or for validation.
      reference_size: number `R` of reference examples; 0 for the smallest of three numbers: a quarter of the training
        data, 2,000, and the number of training examples of `reference_dataset`.
      eval_examples: number of test examples, drawn at random; 0 for all.
      standardize: way to scale inputs: `columns`, `whole` or `none`; empty to decide from the data.
      seed: seed of all random draws.
      feature_shift: specification in `shifts.SHIFTS` of a shift that changes the inputs of each device differently;
        empty for no shift. Each reference and test example gets the shift of a randomly drawn device.
      reference_source: name of the reference set in messages if it is not drawn from the training data: `noise`, or the
        name of `reference_dataset`.
      reference_dataset: data set from whose training inputs the reference set is drawn; `None` for the training data,
        or for noise if `reference_source` is set.
      reference_classes: names of the classes from which the reference set is drawn; empty for all classes.
      reference_alpha: concentration of the Dirichlet distribution from which the class shares of the reference set are
        drawn; 0 to use the class shares of the training data.
      reference_known: share of the reference set that each device knows; these examples are drawn at random per device.
      reference_labels: whether the problem keeps the labels of the reference set. These labels exist only if the
        reference set is drawn from the training data, because another data set has its own classes.
      validation_examples: number of validation examples. They are drawn uniformly from the training data before all
        other examples, and no device holds them.
      evaluate_on: `test`, or `validation` to use the validation examples as the test examples of the problem.
      shards: number of accelerators (or host devices of a CPU) over which the devices will be spread. If it is above 1
        and there is no `feature_shift`, private inputs are prepared only when they are needed (see `rows.Chosen`).

    Raises:
      InputError: there are too few examples, a name is unknown, an argument does not suit the data set, or token ids
        have the wrong dtype, shape or range.

    Examples:
      >>> prepared = ddjax.data.prepare(dataset, network, partition="iid", reference_size=400)
      >>> prepared.facts["task"], prepared.facts["examples"]["private_most"]
      ('classification', 260)
      >>> prepared.problem.x.shape, str(prepared.problem.x.dtype)  # private inputs of all devices
      ((1037, 8, 8), 'float32')
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
            "--reference_classes and --reference_alpha choose from the training data; leave them out with "
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
    # Draw `drawn` in either case, so that the devices hold the same examples whether or not the test set is used.
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
                notes.append(f"the reference set contains the inputs of {common} of the {len(places)} {name} examples")
    if known_by_device is not None and (unknown := int((~known_by_device.any(0)).sum())):
        notes.append(f"{unknown} of the {reference_size} reference examples are unknown to all devices")
    if not numbers and len(held_classes) < dataset.outputs:
        notes.append(f"{dataset.outputs - len(held_classes)} of the classes have no example on any device")
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
    """Pair inputs with the devices that see them: private inputs with their holders, all others with random devices."""
    devices = len(sizes)
    return [
        (x, np.repeat(np.arange(devices), sizes)),
        *((each, np.resize(rng.integers(devices, size=count), len(each))) for each, count in others),
    ]


def _duplicates(dataset: Dataset, known: np.ndarray, tests: np.ndarray) -> int:
    """Count the test rows `tests` that have the same input and target as one of the training rows `known`."""

    def codes(x: Any, y: np.ndarray, rows: np.ndarray) -> Iterator[int]:
        return (hash((example.tobytes(), y[row].tobytes())) for row, example in _each(x, rows))

    wanted = set(codes(dataset.x_test, dataset.y_test, tests))
    seen = wanted.intersection(codes(dataset.x_train, dataset.y_train, known))
    return sum(code in seen for code in codes(dataset.x_test, dataset.y_test, tests))


def _each(x: Any, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Iterate over the numbers and contents of the rows `rows`, in no particular order."""
    for block, places, inside in located(x, rows):
        yield from zip(rows[places], block[inside], strict=True)


def _check_sizes(total: int, reference_size: int, tests: int, eval_examples: int, examples_per_device: int) -> None:
    if not 0 < reference_size < total:
        raise InputError(
            f"reference_size must be between 1 and {total - 1}, because there are {total} training examples; got "
            f"{reference_size}"
        )
    if not 0 <= eval_examples <= tests:
        raise InputError(
            f"eval_examples must be between 0 and {tests} (the number of examples for evaluation), got {eval_examples}"
        )
    if examples_per_device < 0:
        raise InputError(f"examples_per_device must be 0 (all) or positive, got {examples_per_device}")


def _owned(
    dataset: Dataset, private: np.ndarray, devices: int, partition: str, most: int, rng: np.random.Generator
) -> Sequence[np.ndarray]:
    """Divide examples by owner; return, for each device, the positions of its examples in `private`."""
    if dataset.owner is None:
        others = ", ".join(entry.name for entry in PARTITIONS.entries() if not entry.by_owner)
        raise InputError(
            f"partition {partition!r} needs the owners of examples, but this data set names no owners; add an array "
            "`owner` to a .npz, set natural:KEY to a column of a table or a feature of tfds, or use one of the "
            f"partitions {others}"
        )
    return PARTITIONS.parse(partition).build(dataset.owner[private], devices, rng, most, bool(dataset.owners))


def _pooled(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows that devices hold, each device's indices into these rows, and its number of indices.

    Only these rows are copied to the accelerator.
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
    """Return the function that prepares token ids."""
    _check_tokens(dataset)
    if standardize not in ("", "none"):
        raise InputError(f"token ids are not standardized; leave out --standardize={standardize}")
    return lambda x, rows: x[rows].astype(np.int32, copy=False)


def _check_tokens(dataset: Dataset) -> None:
    for split, x in (("train", dataset.x_train), ("test", dataset.x_test)):
        if x.dtype.kind not in "iu" or x.ndim != 2:
            raise InputError(
                f"token ids must be integers [examples, length], but x_{split} is {x.dtype} {list(x.shape)}; "
                "use tokens=False for other inputs"
            )
        if x.size and not 0 <= x.min() <= x.max() < 2**31:
            raise InputError(f"token ids must be in [0, {2**31 - 1}], but x_{split} ranges from {x.min()} to {x.max()}")


def pool(problem: Problem) -> Problem:
    """Give all private examples to a single device, so that the algorithm `local` is centralized training.

    The `Population` of this device should have `N` times the batch size of the original population. A round then
    processes as many examples as before.

    Examples:
      >>> problem = ddjax.make_problem(dataset, network, reference_size=437)
      >>> problem.private_counts
      Array([250, 250, 250, 250], dtype=int32)
      >>> ddjax.data.pool(problem).private_counts
      Array([1000], dtype=int32)
    """
    held = jnp.arange(problem.private_indices.shape[1]) < problem.private_counts[:, None]
    rows = problem.private_indices[held]
    return problem._replace(
        private_indices=rows[None],
        private_counts=jnp.array([rows.size], jnp.int32),
        network=as_network(jnp.ones((1, 1))),
        known=None,
    )
