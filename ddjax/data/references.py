"""Sources of the reference set."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.rows import blocks
from ddjax.errors import InputError, check_number, suggest


def held_out(
    dataset: Dataset,
    order: np.ndarray,
    size: int,
    rng: np.random.Generator,
    classes: Sequence[str] = (),
    alpha: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the reference set from the training examples; no device will hold the chosen examples.

    Args:
      dataset: data set with the training examples.
      order: row numbers `[M]` of the training examples, in random order.
      size: number `R` of reference examples.
      rng: source of randomness for the class shares.
      classes: names of the classes that may be chosen; empty for all classes.
      alpha: concentration of the Dirichlet distribution from which class shares are drawn; 0 to use the class shares of
        the training data.

    Returns:
      Row numbers `[R]` of the reference examples, and row numbers `[M − R]` of the remaining examples.

    Raises:
      InputError: `classes` or `alpha` is set but the data set has no classes, a class is unknown, or a class has too
        few examples.
    """
    if not classes and not alpha:
        return order[:size], order[size:]
    labels = dataset.y_train[order]
    if labels.dtype.kind == "f":
        raise InputError("reference_classes and reference_alpha need classes, but the task is regression")
    names = list(dataset.classes or map(str, range(dataset.outputs)))
    for name in classes:
        if name not in names:
            raise suggest("class of the reference set", name, names)
    taken = np.array(sorted({names.index(name) for name in classes}) or range(dataset.outputs))
    shares = rng.dirichlet(np.full(len(taken), alpha)) if alpha else (labels[:, None] == taken).mean(0)
    chosen: list[np.ndarray] = []
    for label, count in zip(taken, _whole(shares / shares.sum(), size), strict=True):
        rows = np.flatnonzero(labels == label)
        if len(rows) < count:
            raise InputError(
                f"a reference set of {size} examples needs {count} of class {names[label]!r}, but there are "
                f"{len(rows)}; use a smaller --reference_size or a larger --reference_alpha"
            )
        chosen.append(rows[:count])
    known = np.concatenate(chosen)
    return order[known], np.delete(order, known)


def _whole(shares: np.ndarray, total: int) -> np.ndarray:
    """Round `shares · total` to whole numbers that sum to `total`."""
    return np.diff(np.round(np.cumsum([0, *shares]) * total).astype(int))


def outside(dataset: Dataset, other: Dataset | None, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw reference inputs `[R, …]` from the data set `other`, or make noise if `other` is `None`.

    Noise is normally distributed and has the dtype, mean and standard deviation of the training inputs. Inputs `[M, P]`
    have one mean and one standard deviation per column; other inputs have a single mean and a single standard
    deviation. For token ids, noise consists of training tokens drawn at random. Texts from another data set are cut, or
    padded with the id 0, to the length of the training texts.
    """
    x = dataset.x_train
    if other is not None:
        drawn = other.x_train[rng.permutation(len(other.x_train))[:size]].astype(x.dtype, copy=False)
        if dataset.tokens:
            drawn = drawn[:, : x.shape[1]]
            drawn = np.pad(drawn, ((0, 0), (0, x.shape[1] - drawn.shape[1])))
        return drawn
    if dataset.tokens:
        return rng.choice(x.ravel(), (size, *x.shape[1:]))
    x, axis = np.asarray(x), 0 if x.ndim == 2 else None
    values = rng.normal(x.mean(axis, dtype=float), x.std(axis, dtype=float), (size, *x.shape[1:]))
    if x.dtype.kind in "iu":
        values = np.clip(np.round(values), x.min(axis), x.max(axis))
    return values.astype(x.dtype)


def known_by_device(devices: int, size: int, share: float, rng: np.random.Generator) -> jax.Array | None:
    """Draw the reference examples that each device knows, `[N, R]` bool; return `None` if every device knows all.

    Raises:
      InputError: `share` is outside (0, 1], or `share · size` rounds to 0 examples.
    """
    check_number("reference_known", share, 0, 1, positive=True)
    count = round(share * size)
    if not count:
        raise InputError(
            f"--reference_known={share:g} of {size} reference examples is less than one example; use a larger share"
        )
    if count == size:
        return None
    return jnp.asarray(rng.permuted(np.broadcast_to(np.arange(size) < count, (devices, size)), axis=1))


def check(dataset: Dataset, other: Dataset, size: int, name: str) -> None:
    """Raise `InputError` if `other` has fewer than `size` inputs, or inputs of another form than the devices' data."""
    here, there = dataset.x_train, other.x_train
    if not 0 < size <= len(there):
        raise InputError(
            f"reference_size must be between 1 and {len(there)} (the number of examples in {name}), got {size}"
        )
    if dataset.columns and other.columns:
        ours, theirs = (
            {column.name: column.categories for column in each.columns if column.kind != "ignored"}
            for each in (dataset, other)
        )
        if list(ours.items()) != list(theirs.items()):
            column = next((name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name)), "")
            raise InputError(
                f"the reference data {name} and the devices' data have different inputs: "
                + (f"column {column!r} differs" if column else "the columns are in a different order")
            )
    if dataset.tokens != other.tokens or (here.shape[1:] != there.shape[1:] and not dataset.tokens):
        kinds = [
            f"{list(x.shape[1:])} {'token ids' if each.tokens else 'numbers'}"
            for each, x in ((dataset, here), (other, there))
        ]
        raise InputError(
            f"the inputs of the reference data {name} are {kinds[1]}, but the devices' inputs are {kinds[0]}"
        )
    if here.dtype.kind != there.dtype.kind:
        raise InputError(
            f"the reference data {name} have dtype {there.dtype}, but the devices' data have dtype {here.dtype}"
        )
    if here.dtype.kind in "iu":
        limits = np.iinfo(here.dtype)
        least = min(int(block.min()) for block in blocks(there))
        most = max(int(block.max()) for block in blocks(there))
        if least < limits.min or most > limits.max:
            raise InputError(
                f"the reference data {name} range from {least} to {most}, which does not fit the dtype {here.dtype} of "
                "the devices' data"
            )
