"""Splits of examples over devices.

Every function takes the labels `[M]` of the examples at hand (or numbers to predict, if it does not look at them) and
returns, for each of `N` devices, the rows it holds: `total` rows in all, none of them twice, at least one each.
"""

import numpy as np

from ddjax.data.registry import PARTITIONS, PartitionEntry
from ddjax.errors import InputError
from ddjax.registry import Argument

Parts = list[np.ndarray]


def _equal_sizes(examples: int, devices: int) -> np.ndarray:
    return np.full(devices, examples // devices) + (np.arange(devices) < examples % devices)


def iid(labels: np.ndarray, total: int, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Uniformly at random, in sizes that differ by at most one."""
    cuts = np.cumsum(_equal_sizes(total, devices))[:-1]
    return np.split(rng.permutation(len(labels))[:total], cuts)


def quantity(labels: np.ndarray, total: int, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Shares of unlike size with like labels, drawn from Dirichlet(alpha) over devices (Li et al., ICDE 2022)."""
    shares = rng.dirichlet(np.full(devices, alpha))
    cuts = np.cumsum(_sizes(shares, total))[:-1]
    return np.split(rng.permutation(len(labels))[:total], cuts)


def _sizes(shares: np.ndarray, examples: int) -> np.ndarray:
    """Whole numbers near `shares · examples`, each at least 1, summing to `examples`."""
    spare = shares * (examples - len(shares))
    sizes = np.floor(spare).astype(int)
    largest_remainders = np.argsort(sizes - spare, kind="stable")[: examples - len(shares) - sizes.sum()]
    sizes[largest_remainders] += 1
    return sizes + 1


def dirichlet(labels: np.ndarray, total: int, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Label skew: device `n` draws its labels from its own `q_n ~ Dirichlet(alpha · p)` (Hsu, Qi, Brown 2019).

    `p` is the share of each class times the number of classes. Sizes differ by at most one. Devices draw in turn, one
    example at a time; a class that has run out is drawn no more, so where `total` is near `M` the last ones are less
    skewed than `q_n`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    queues = [list(rng.permutation(np.flatnonzero(labels == c))) for c in classes]
    preferences = rng.dirichlet(alpha * counts / counts.mean(), size=devices)
    # A preference may underflow to zero; where only such classes are left, they are drawn by what is left.
    left = counts.astype(float)
    sizes = _equal_sizes(total, devices)
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


def shards(labels: np.ndarray, total: int, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Sorted by label, cut into `2 N` shards, two random ones to each device (McMahan et al., AISTATS 2017)."""
    if total < 2 * devices:
        raise InputError(f"partition 'shards' needs two examples a device, got {total} for {devices} devices")
    order = rng.permutation(len(labels))[:total]
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], 2 * devices)
    return [np.concatenate([pieces[a], pieces[b]]) for a, b in rng.permutation(2 * devices).reshape(devices, 2)]


def natural(
    owner: np.ndarray, devices: int, rng: np.random.Generator, most: int = 0, named: bool = False, key: str = ""
) -> Parts:
    """Every device holds what its owner has: a speaker, a writer, a place.

    Where there are more owners than devices, owners that follow each other are joined, so that devices hold about the
    same number of examples. Where there are fewer, an owner's examples are spread over devices at random, over more of
    them the more there are.

    Args:
      owner: `[M]` who holds each example, as numbers in the order in which owners are joined.
      devices: `N`.
      rng: all randomness.
      most: examples per device; 0 for all.
      named: whether owners are those of the data; if not, an owner is the device that an example was made for.
      key: what the owners were read from.

    Raises:
      InputError: a device without examples.
    """
    if not named:
        parts = [np.flatnonzero(owner == n) for n in range(devices)]
    else:
        groups = [rng.permutation(np.flatnonzero(owner == each)) for each in np.unique(owner)]
        parts = _joined(groups, devices, rng) if len(groups) >= devices else _spread(groups, devices)
    if empty := [n for n, part in enumerate(parts) if not len(part)]:
        raise InputError(f"partition 'natural' leaves device {empty[0]} without examples; take fewer devices")
    return [part[: most or None] for part in parts]


def _joined(groups: Parts, devices: int, rng: np.random.Generator) -> Parts:
    """Neighbouring groups together, at least one per device, in near equal numbers of examples, in random order."""
    parts, place = [], 0
    for n in range(devices):
        left, after = sum(map(len, groups[place:])), devices - n - 1
        end = place + 1
        while end < len(groups) - after and sum(map(len, groups[place:end])) + len(groups[end]) / 2 <= left / (
            after + 1
        ):
            end += 1
        end = end if after else len(groups)
        parts.append(rng.permutation(np.concatenate(groups[place:end])))
        place = end
    return parts


def _spread(groups: Parts, devices: int) -> Parts:
    """Each group over one device or several, by its size."""
    sizes = np.array(list(map(len, groups)))
    return [part for group, count in zip(groups, _sizes(sizes / sizes.sum(), devices), strict=True)
            for part in np.array_split(group, count)]  # fmt: skip


def owner_key(spec: str) -> str:
    """What the owners of examples are read from, by the specification of a partition; empty where it names nothing."""
    if not spec:
        return ""
    choice = PARTITIONS.parse(spec)
    return str(choice.arguments[0]) if choice.entry.by_owner and choice.arguments else ""


_ALPHA = ("dirichlet_alpha",)
PARTITIONS.add(PartitionEntry("iid", iid))
PARTITIONS.add(PartitionEntry("dirichlet", dirichlet, uses=_ALPHA, by_label=True))
PARTITIONS.add(PartitionEntry("shards", shards, by_label=True))
PARTITIONS.add(PartitionEntry("quantity", quantity, uses=_ALPHA))
PARTITIONS.add(PartitionEntry("natural", natural, (Argument("KEY", optional=True),), by_owner=True))


def share_out(
    name: str,
    labels: np.ndarray,
    devices: int,
    rng: np.random.Generator,
    alpha: float = 0.5,
    examples_per_device: int = 0,
) -> Parts:
    """Shares examples out over devices.

    Args:
      name: a specification in `PARTITIONS` that does not go by owner.
      labels: `[M]` integers, or `[M, K]` floating-point numbers to predict.
      devices: `N`.
      rng: all randomness.
      alpha: concentration of `dirichlet` and `quantity`; small is uneven, large is even.
      examples_per_device: mean over devices; 0 to share out all `M`.

    Returns:
      `N` arrays of row numbers, disjoint, each with at least one.

    Raises:
      InputError: unknown name, a split by label where there are none, too few examples, or `alpha` not positive.
    """
    choice = PARTITIONS.parse(name)
    entry = choice.entry
    if entry.by_owner:
        raise InputError(f"partition {name!r} goes by the owner of an example, not by its label; see make_problem")
    if entry.by_label and labels.dtype.kind == "f":
        raise InputError(
            f"partition {name!r} is by label, and there are numbers to predict here; use iid, quantity or natural"
        )
    if len(labels) < devices:
        raise InputError(
            f"{len(labels)} private examples are fewer than {devices} devices; "
            "take fewer devices or a smaller reference set"
        )
    total = examples_per_device * devices or len(labels)
    if not 0 < total <= len(labels):
        raise InputError(
            f"{devices} devices × {examples_per_device} examples need {total} private examples, but {len(labels)} are "
            "left beside the reference set"
        )
    if not 0 < alpha <= 1e6:
        raise InputError(f"dirichlet_alpha must be a positive number up to 1e6, got {alpha}")
    return choice.build(labels, total, devices, rng, alpha)
