"""Splits of labelled examples over devices.

Every function takes the labels `[M]` of the examples to share out and returns, for each of `N` devices, the rows it
holds. All rows are held by exactly one device, and every device holds at least one.
"""

from collections.abc import Callable

import numpy as np

from ddjax.types import InputError, suggest

Parts = list[np.ndarray]


def _equal_sizes(examples: int, devices: int) -> np.ndarray:
    return np.full(devices, examples // devices) + (np.arange(devices) < examples % devices)


def iid(labels: np.ndarray, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Uniformly at random, in sizes that differ by at most one."""
    cuts = np.cumsum(_equal_sizes(len(labels), devices))[:-1]
    return np.split(rng.permutation(len(labels)), cuts)


def quantity(labels: np.ndarray, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Like labels, unlike amounts: shares drawn from Dirichlet(alpha) over devices (Li et al., ICDE 2022)."""
    shares = rng.dirichlet(np.full(devices, alpha))
    cuts = _sizes(shares, len(labels))
    return np.split(rng.permutation(len(labels)), np.cumsum(cuts)[:-1])


def _sizes(shares: np.ndarray, examples: int) -> np.ndarray:
    """Whole numbers near `shares · examples`, each at least 1, summing to `examples`."""
    spare = shares * (examples - len(shares))
    sizes = np.floor(spare).astype(int)
    largest_remainders = np.argsort(sizes - spare, kind="stable")[: examples - len(shares) - sizes.sum()]
    sizes[largest_remainders] += 1
    return sizes + 1


def dirichlet(labels: np.ndarray, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Label skew: device `n` draws its labels from its own `q_n ~ Dirichlet(alpha · p)` (Hsu, Qi, Brown 2019).

    `p` are the class shares times the number of classes. Sizes differ by at most one. Devices draw in turn, one
    example at a time; a class that has run out is drawn no more, so the last examples are less skewed than `q_n`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    queues = [list(rng.permutation(np.flatnonzero(labels == c))) for c in classes]
    preferences = rng.dirichlet(alpha * counts / counts.mean(), size=devices)
    # A preference may underflow to zero; where only such classes are left, they are drawn by what is left.
    left = counts.astype(float)
    sizes = _equal_sizes(len(labels), devices)
    parts: list[list[int]] = [[] for _ in range(devices)]
    for turn in range(sizes.max()):
        for n in np.flatnonzero(sizes > turn):
            weights = preferences[n] * (left > 0)
            if weights.sum() <= 0:
                weights = left
            cumulative = np.cumsum(weights)
            c = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            parts[n].append(queues[c].pop())
            left[c] -= 1
    return [np.array(part) for part in parts]


def shards(labels: np.ndarray, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Sorted by label, cut into `2 N` shards, two random ones to each device (McMahan et al., AISTATS 2017)."""
    if len(labels) < 2 * devices:
        raise InputError(f"partition 'shards' needs two examples a device, got {len(labels)} for {devices} devices")
    order = rng.permutation(len(labels))
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], 2 * devices)
    return [np.concatenate([pieces[a], pieces[b]]) for a, b in rng.permutation(2 * devices).reshape(devices, 2)]


PARTITIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator, float], Parts]] = {
    f.__name__: f for f in (iid, dirichlet, shards, quantity)
}


def share_out(name: str, labels: np.ndarray, devices: int, rng: np.random.Generator, alpha: float = 0.5) -> Parts:
    """Shares examples out over devices.

    Args:
      name: a key of `PARTITIONS`.
      labels: `[M]`.
      devices: `N`.
      rng: all randomness.
      alpha: concentration of `dirichlet` and `quantity`; small is uneven, large is even.

    Returns:
      `N` arrays of row numbers, disjoint, together all of `0 … M − 1`.

    Raises:
      InputError: unknown name, fewer examples than devices, or `alpha` not positive.
    """
    if name not in PARTITIONS:
        raise suggest("partition", name, PARTITIONS)
    if len(labels) < devices:
        raise InputError(
            f"{len(labels)} private examples are fewer than {devices} devices; take fewer devices or a smaller reference set"
        )
    if not 0 < alpha < float("inf"):
        raise InputError(f"dirichlet_alpha must be a positive number, got {alpha}")
    return PARTITIONS[name](labels, devices, rng, alpha)
