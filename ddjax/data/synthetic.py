"""Synthetic data, generated for each device."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.data.rows import BLOCK, Streamed
from ddjax.registry import Argument, number, whole
from ddjax.types import working_dtype

Blocks = Iterator[np.ndarray]


def synthetic_classification(
    seed: int, devices: int, train: int, test: int, classes: int = 10, dimensions: int = 60, heterogeneity: float = 1.0
) -> Dataset:
    """Generate data for classification: all devices share one labelling rule, but their inputs differ.

    The data are similar to Synthetic(α, β) of FedProx (Li et al., MLSys 2020), but all devices share `A` and `b`.
    Device `n` draws `x ~ N(v_n, Σ)` with `v_n ~ N(0, h² I)` and diagonal `Σ_jj = j^−1.2`. The label is
    `argmax(A x + b)`, with standard normal `A` and `b`.
    A heterogeneity `h = 0` makes all devices alike. With larger `h`, the inputs of different devices are further apart,
    and each device has fewer classes. Test examples come from all devices in equal parts.

    Args:
      seed: seed of all randomness.
      devices: number of devices `N`.
      train: total number of training examples; example `i` belongs to device `i mod N`.
      test: total number of test examples.
      classes: number of classes `K`.
      dimensions: length of an input.
      heterogeneity: heterogeneity `h`.
    """
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(dimensions, classes)), rng.normal(size=classes)
    scale = np.arange(1, dimensions + 1) ** -0.6
    centers = heterogeneity * rng.normal(size=(devices, dimensions))
    owner = np.arange(train + test) % devices

    drawn, _ = _drawn(rng, owner, lambda noise, owner: centers[owner] + scale * noise, dimensions)
    y = np.concatenate([(x @ weights + bias).argmax(1).astype(np.int32) for x in drawn()])
    return _dataset(drawn, y, dimensions, train, classes, owner)


def synthetic_regression(
    seed: int,
    devices: int,
    train: int,
    test: int,
    dimensions: int = 10,
    noise: float = 0.1,
    heterogeneity: float = 0.5,
) -> Dataset:
    """Generate data for regression: targets are linear in inputs, plus noise; inputs and functions differ by device.

    Device `n` draws `x = S (h c_n + ε)` with diagonal `S_jj² = j^−1.2 / ((1 + h²) Σ_i i^−1.2)`, so that the mean of
    `‖x‖²` is 1. The number to predict is `y = (w + h u_n)ᵀ x + b + σ e`. All of `c_n, ε, w, u_n, b, e` are standard
    normal; all devices share `w` and `b`. Heterogeneity `h = 0` makes all devices alike. With larger `h`, the inputs of
    different devices are further apart, as are the devices' own solutions. Test examples come from all devices in equal
    parts.

    Args:
      seed: seed of all randomness.
      devices: number of devices `N`.
      train: total number of training examples; example `i` belongs to device `i mod N`.
      test: total number of test examples.
      dimensions: length of an input.
      noise: standard deviation `σ` of the noise.
      heterogeneity: heterogeneity `h`.
    """
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=dimensions), rng.normal()
    centers, offsets = heterogeneity * rng.normal(size=(2, devices, dimensions))
    variances = np.arange(1, dimensions + 1) ** -1.2
    owner = np.arange(train + test) % devices
    scale = np.sqrt(variances / ((1 + heterogeneity**2) * variances.sum()))

    drawn, after = _drawn(rng, owner, lambda noise, owner: (centers[owner] + noise) * scale, dimensions)
    y, end = bias + noise * after.normal(size=len(owner)), 0
    for x in drawn():
        start, end = end, end + len(x)
        y[start:end] += ((weights + offsets[owner[start:end]]) * x).sum(1)
    return _dataset(drawn, y.astype(working_dtype())[:, None], dimensions, train, 1, owner)


def _drawn(
    rng: np.random.Generator, owner: np.ndarray, place: Callable, dimensions: int
) -> tuple[Callable[[], Blocks], np.random.Generator]:
    """Return a function that iterates over blocks of float64 inputs, and a copy of `rng` that has drawn all inputs.

    If there are several processes, the inputs are drawn again for each pass, so that no process holds all of them.
    """

    def inputs(rng: np.random.Generator) -> Blocks:
        for start in range(0, len(owner), BLOCK):
            some = owner[start : start + BLOCK]
            yield place(rng.normal(size=(len(some), dimensions)), some)

    after = copy.deepcopy(rng)
    if jax.process_count() == 1:
        held = list(inputs(after))
        return lambda: iter(held), after
    for _ in inputs(after):
        pass
    return lambda: inputs(copy.deepcopy(rng)), after


def _dataset(
    drawn: Callable[[], Blocks], y: np.ndarray, dimensions: int, train: int, outputs: int, owner: np.ndarray
) -> Dataset:
    """Make the data set; if there are several processes, each generates training inputs only when it needs them."""
    dtype = working_dtype()

    def cast() -> Blocks:
        return (x.astype(dtype) for x in drawn())

    x: Any = Streamed((len(y), dimensions), dtype, cast)
    if jax.process_count() == 1:
        x = np.concatenate(list(cast()))
        return Dataset(x[:train], y[:train], x[train:], y[train:], outputs, owner[:train], scaled=True)

    def first() -> Blocks:
        left = train
        for block in cast():
            if left > 0:
                yield block[:left]
            left -= len(block)

    x_train: Any = Streamed((train, dimensions), dtype, first)
    return Dataset(x_train, y[:train], x[train:], y[train:], outputs, owner[:train], scaled=True)


def _made(make, *arguments: Argument) -> None:
    def build(wanted: Wanted, *values: float) -> Dataset:
        return make(wanted.seed, wanted.devices, wanted.train, max(1000, wanted.devices), *values)

    optional = tuple(argument._replace(optional=True) for argument in arguments)
    DATASETS.add(DatasetEntry(make.__name__, build, optional))


_made(
    synthetic_classification,
    Argument("CLASSES", whole(2)),
    Argument("DIMENSIONS", whole(1)),
    Argument("HETEROGENEITY", number(0)),
)
_made(
    synthetic_regression,
    Argument("DIMENSIONS", whole(1)),
    Argument("NOISE", number(0)),
    Argument("HETEROGENEITY", number(0)),
)
