"""Where the reference set comes from."""

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
    """Training examples that no device holds.

    Args:
      dataset: where they are taken from.
      order: `[M]` the rows of its training data, in random order.
      size: `R`.
      rng: of the shares of classes.
      classes: names of the only ones to take; empty for all.
      alpha: concentration of the shares of classes, Dirichlet-distributed; 0 for those of the training data.

    Returns:
      `[R]` rows of the reference set, and `[M − R]` rows that are left.

    Raises:
      InputError: classes where there are none, an unknown class, or too few examples.
    """
    if not classes and not alpha:
        return order[:size], order[size:]
    labels = dataset.y_train[order]
    if labels.dtype.kind == "f":
        raise InputError("the classes of the reference set can be chosen only where there are classes")
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
                f"a reference set of {size} examples asks for {count} of class {names[label]!r}, and there are "
                f"{len(rows)}; take a smaller one, or a larger --reference_alpha"
            )
        chosen.append(rows[:count])
    known = np.concatenate(chosen)
    return order[known], np.delete(order, known)


def _whole(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers near `shares · total` that add up to it."""
    return np.diff(np.round(np.cumsum([0, *shares]) * total).astype(int))


def outside(dataset: Dataset, other: Dataset | None, size: int, rng: np.random.Generator) -> np.ndarray:
    """`[R, …]` inputs that are none of the training data: of another data set, or noise.

    Noise has the mean and deviation of the training inputs, of a table by column and else of all together, in their
    dtype. Instead of token ids it is the training tokens in random order. Other texts are cut, or end in the id 0, to
    be as long as the training texts.
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
    """`[N, R]` bool, the reference examples that each device knows, drawn for each alone; `None` where it is all.

    Raises:
      InputError: a share outside of (0, 1], or of less than one example.
    """
    check_number("reference_known", share, 0, 1, positive=True)
    count = round(share * size)
    if not count:
        raise InputError(f"--reference_known={share:g} of {size} reference examples is less than one")
    if count == size:
        return None
    return jnp.asarray(rng.permuted(np.broadcast_to(np.arange(size) < count, (devices, size)), axis=1))


def check(dataset: Dataset, other: Dataset, size: int, name: str) -> None:
    """Refuses a reference data set whose inputs are others, or too few; raises `InputError`."""
    here, there = dataset.x_train, other.x_train
    if not 0 < size <= len(there):
        raise InputError(f"reference_size must lie in 1 … {len(there)}, the examples of {name}, got {size}")
    if dataset.columns and other.columns:
        ours, theirs = (
            {column.name: column.categories for column in each.columns if column.kind != "ignored"}
            for each in (dataset, other)
        )
        if list(ours.items()) != list(theirs.items()):
            column = next((name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name)), "")
            raise InputError(
                f"the reference data {name} have other inputs than devices have: "
                + (f"column {column!r} differs" if column else "columns in another order")
            )
    if dataset.tokens != other.tokens or (here.shape[1:] != there.shape[1:] and not dataset.tokens):
        kinds = [
            f"{list(x.shape[1:])} {'token ids' if each.tokens else 'numbers'}"
            for each, x in ((dataset, here), (other, there))
        ]
        raise InputError(f"the reference data {name} have inputs {kinds[1]}, but devices have {kinds[0]}")
    if here.dtype.kind != there.dtype.kind:
        raise InputError(f"the reference data {name} hold {there.dtype}, but devices hold {here.dtype}")
    if here.dtype.kind in "iu":
        limits = np.iinfo(here.dtype)
        least = min(int(block.min()) for block in blocks(there))
        most = max(int(block.max()) for block in blocks(there))
        if least < limits.min or most > limits.max:
            raise InputError(f"the reference data {name} reach {most}, beyond the {here.dtype} that devices hold")
