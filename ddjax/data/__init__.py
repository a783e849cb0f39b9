"""Data sets, and how their examples are shared out. Nothing outside this package knows a data set by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.partition import PARTITIONS, share_out
from ddjax.data.sources import DATASETS, load, npz
from ddjax.errors import InputError
from ddjax.learning import tasks
from ddjax.networks.matrices import Sparse
from ddjax.types import Problem, working_dtype

__all__ = ["DATASETS", "PARTITIONS", "Dataset", "load", "make_problem", "npz", "share_out"]


def make_problem(
    dataset: Dataset,
    mixing_matrix: Any,
    *,
    partition: str = "",
    dirichlet_alpha: float = 0.5,
    examples_per_device: int = 0,
    reference_size: int = 0,
    eval_examples: int = 0,
    seed: int = 0,
) -> Problem:
    """Shares a data set out over the devices of a network.

    The reference set is drawn uniformly from the training data and its labels are thrown away; private, reference and
    test examples are disjoint. Integer inputs are pixels: they are standardized by the mean and standard deviation of
    the reference set, which all devices know. Floating-point inputs and numbers to predict are taken as they are.

    Args:
      dataset: what to share out.
      mixing_matrix: as `Topology.network` is: `[N, N]`, `[T, N, N]`, a `networks.Sparse` or a `networks.Drawn`.
      partition: a key of `PARTITIONS`, or `natural`: each device holds what was made for it. Default `dirichlet`, where
        there are numbers to predict `iid`.
      dirichlet_alpha: concentration of the `dirichlet` and `quantity` partitions.
      examples_per_device: mean number of private examples of a device; 0 for all that are left. With `natural`, the
        largest number.
      reference_size: `R`; 0 for a quarter of the training data, at most 2,000.
      eval_examples: test examples, drawn at random; 0 for all.
      seed: of every draw.

    Raises:
      InputError: not enough examples for what is asked, or an unknown partition.
    """
    devices = mixing_matrix.shape[-1]
    total = len(dataset.x_train)
    reference_size = reference_size or min(2000, total // 4)
    if not 0 < reference_size < total:
        raise InputError(
            f"reference_size must lie in 1 … {total - 1}, below the {total} training examples, got {reference_size}"
        )
    if not 0 <= eval_examples <= len(dataset.x_test):
        raise InputError(f"eval_examples must lie in 0 … {len(dataset.x_test)}, the test set, got {eval_examples}")
    if examples_per_device < 0:
        raise InputError(f"examples_per_device must be 0 (all) or positive, got {examples_per_device}")
    y_train, y_test = _targets(dataset.y_train), _targets(dataset.y_test)
    partition = partition or tasks.of(y_train).partition
    rng = np.random.default_rng(seed)
    reference, private = np.split(rng.permutation(total), [reference_size])
    test = rng.permutation(len(dataset.x_test))[: eval_examples or None]
    if partition == "natural":
        parts = _natural(dataset, private, devices, examples_per_device)
    else:
        shares = share_out(partition, y_train[private], devices, rng, dirichlet_alpha, examples_per_device)
        parts = [private[share] for share in shares]
    # Only the rows that devices hold travel to the accelerator.
    rows = np.concatenate(parts)
    sizes = np.array([len(part) for part in parts], np.int32)
    held = np.zeros((devices, sizes.max()), np.int32)
    for n, start in enumerate(np.cumsum(sizes) - sizes):
        held[n, : sizes[n]] = np.arange(start, start + sizes[n])
    as_inputs = _standardize(dataset.x_train[reference])
    return Problem(
        x=jnp.asarray(as_inputs(dataset.x_train[rows])),
        y=jnp.asarray(y_train[rows]),
        private_indices=jnp.asarray(held),
        private_counts=jnp.asarray(sizes),
        reference=jnp.asarray(as_inputs(dataset.x_train[reference])),
        network=_working(mixing_matrix),
        x_test=jnp.asarray(as_inputs(dataset.x_test[test])),
        y_test=jnp.asarray(y_test[test]),
    )


def _targets(y: np.ndarray) -> np.ndarray:
    return y.reshape(len(y), -1).astype(working_dtype()) if y.dtype.kind == "f" else y


def _working(mixing_matrix: Any) -> Any:
    """All weights in the working precision; the indices of a sparse matrix stay integers."""

    def cast(leaf: Any) -> jax.Array:
        index = isinstance(mixing_matrix, Sparse) and np.issubdtype(leaf.dtype, np.integer)
        return jnp.asarray(leaf, jnp.int32 if index else working_dtype())

    return jax.tree.map(cast, mixing_matrix)


def _standardize(reference: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    number = working_dtype().type
    if reference.dtype.kind == "f":
        return lambda x: x.astype(number, copy=False)
    mean, std = number(reference.mean()), number(reference.std() or 1)
    return lambda x: (x.astype(number) - mean) / std


def _natural(dataset: Dataset, private: np.ndarray, devices: int, most: int) -> list[np.ndarray]:
    if dataset.owner is None:
        raise InputError(
            f"partition 'natural' needs data made for each device; this has none; use {', '.join(PARTITIONS)}"
        )
    parts = [private[dataset.owner[private] == n][: most or None] for n in range(devices)]
    empty = [n for n, part in enumerate(parts) if not len(part)]
    if empty:
        raise InputError(f"partition 'natural' leaves device {empty[0]} without examples; take fewer devices")
    return parts
