"""Synthetic data, made for each device."""

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
    """One labelling for all, inputs that differ between devices.

    After Synthetic(α, β) of FedProx (Li et al., MLSys 2020): device `n` draws `x ~ N(v_n, Σ)` with `v_n ~ N(0, h² I)`
    and diagonal `Σ_jj = j^−1.2`, labelled `argmax(A x + b)`, `A` and `b` standard normal. Heterogeneity `h = 0` makes
    all devices alike; the larger it is, the further apart their inputs and the fewer their classes. Test examples come
    from all devices in equal parts.

    Args:
      seed: of everything.
      devices: `N`.
      train: training examples in all, owned in turn.
      test: test examples in all.
      classes: `K`.
      dimensions: length of an input.
      heterogeneity: `h`.
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
    """Numbers that are linear in the input but for noise, with inputs and maps that differ between devices.

    Device `n` draws `x = S (h c_n + ε)` with diagonal `S_jj² = j^−1.2 / ((1 + h²) Σ_i i^−1.2)`, so that the mean of
    `‖x‖²` is 1, and `y = (w + h u_n)ᵀ x + b + σ e`. All of `c_n, ε, w, u_n, b, e` are standard normal, and `w` and `b`
    those of all devices. Heterogeneity `h = 0` makes all devices alike; the larger it is, the further apart are their
    inputs and what each finds alone. Test examples come from all devices in equal parts.

    Args:
      seed: of everything.
      devices: `N`.
      train: training examples in all, owned in turn.
      test: test examples in all.
      dimensions: length of an input.
      noise: `σ`.
      heterogeneity: `h`.
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
    """Inputs of examples in float64, of standard normal noise, some at a time, and the generator as they leave it.

    Where there are several processes they are drawn anew each time, so that no process holds all.
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
    """The data set; where there are several processes each makes the training inputs that it needs, when it does."""
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
