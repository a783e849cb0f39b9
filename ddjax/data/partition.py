"""Partitions of examples among devices.

A partition function takes the labels `[M]` of the examples (or numbers to predict, if the partition does not use
labels); a partition by owner, such as `natural`, takes the owners of the examples instead. The function returns one
array per device: the row numbers of the examples that the device holds. The `N` arrays have no row in common, and each
array contains at least one row. Except in a partition by owner, the arrays together contain `total` rows.
"""

import numpy as np

from ddjax.data.registry import PARTITIONS, PartitionEntry
from ddjax.errors import InputError
from ddjax.registry import Argument

Parts = list[np.ndarray]


def _equal_sizes(examples: int, devices: int) -> np.ndarray:
    return np.full(devices, examples // devices) + (np.arange(devices) < examples % devices)


def iid(labels: np.ndarray, total: int, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Divide the examples uniformly at random, into parts whose sizes differ by at most one."""
    cuts = np.cumsum(_equal_sizes(total, devices))[:-1]
    return np.split(rng.permutation(len(labels))[:total], cuts)


def quantity(labels: np.ndarray, total: int, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Draw the devices' shares of the examples from Dirichlet(alpha), regardless of labels (Li et al., ICDE 2022)."""
    shares = rng.dirichlet(np.full(devices, alpha))
    cuts = np.cumsum(_sizes(shares, total))[:-1]
    return np.split(rng.permutation(len(labels))[:total], cuts)


def _sizes(shares: np.ndarray, examples: int) -> np.ndarray:
    """Split the count `examples` into whole numbers, each at least 1, roughly in proportion to `shares`."""
    spare = shares * (examples - len(shares))
    sizes = np.floor(spare).astype(int)
    largest_remainders = np.argsort(sizes - spare, kind="stable")[: examples - len(shares) - sizes.sum()]
    sizes[largest_remainders] += 1
    return sizes + 1


def dirichlet(labels: np.ndarray, total: int, devices: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Skew labels: device `n` draws labels from its own distribution `q_n ~ Dirichlet(alpha · p)`.

    The method is that of Hsu, Qi and Brown (2019). For each class, `p` contains the share of the class in the examples,
    times the number of classes. The numbers of examples per device differ by at most one. Devices draw in turn, one
    example at a time. An exhausted class is not drawn again. Therefore, if `total` is close to `M`, the labels that are
    drawn last are less skewed than `q_n`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    queues = [list(rng.permutation(np.flatnonzero(labels == c))) for c in classes]
    preferences = rng.dirichlet(alpha * counts / counts.mean(), size=devices)
    # Preferences may underflow to 0. If only classes with preference 0 are left, they are drawn in proportion to their
    # remaining examples.
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
    """Cut examples, sorted by label, into `2 N` shards; give each device two of them at random.

    The method is that of McMahan et al. (AISTATS 2017).
    """
    if total < 2 * devices:
        raise InputError(
            f"partition 'shards' needs two examples per device, got {total} examples for {devices} devices"
        )
    order = rng.permutation(len(labels))[:total]
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], 2 * devices)
    return [np.concatenate([pieces[a], pieces[b]]) for a, b in rng.permutation(2 * devices).reshape(devices, 2)]


def natural(
    owner: np.ndarray, devices: int, rng: np.random.Generator, most: int = 0, named: bool = False, key: str = ""
) -> Parts:
    """Give each device the examples of its owner, such as a speaker, a writer or a place.

    If there are more owners than devices, consecutive owners are joined so that all devices hold about the same number
    of examples. If there are fewer owners than devices, the examples of an owner are spread at random over one or more
    devices; owners with more examples get more devices.

    Args:
      owner: index of the owner of each example `[M]`; owners with consecutive indices are joined.
      devices: number of devices `N`.
      rng: source of all randomness.
      most: largest number of examples per device; 0 for no limit.
      named: whether the data set names its owners; otherwise, the owner of an example is the device for which the
        example was generated.
      key: `KEY` in the specification `natural:KEY` (see `owner_key`); unused here, because `owner` already contains the
        owners.

    Raises:
      InputError: a device gets no example.
    """
    if not named:
        parts = [np.flatnonzero(owner == n) for n in range(devices)]
    else:
        groups = [rng.permutation(np.flatnonzero(owner == each)) for each in np.unique(owner)]
        parts = _joined(groups, devices, rng) if len(groups) >= devices else _spread(groups, devices)
    if empty := [n for n, part in enumerate(parts) if not len(part)]:
        raise InputError(f"partition 'natural' leaves device {empty[0]} without examples; use fewer devices")
    return [part[: most or None] for part in parts]


def _joined(groups: Parts, devices: int, rng: np.random.Generator) -> Parts:
    """Join the examples of consecutive owners into parts of nearly equal size, one per device; shuffle each part."""
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
    """Spread the examples of each owner over one or more devices; owners with more examples get more devices."""
    sizes = np.array(list(map(len, groups)))
    return [part for group, count in zip(groups, _sizes(sizes / sizes.sum(), devices), strict=True)
            for part in np.array_split(group, count)]  # fmt: skip


def owner_key(spec: str) -> str:
    """Return the key in the specification of a partition by owner; empty if there is no key.

    The key names a column of a table, a feature of a TensorFlow data set or an array in a NumPy archive.

    Args:
      spec: specification in `PARTITIONS`, such as `natural:speaker`; may be empty.

    Raises:
      InputError: the name is unknown, or an argument is malformed.

    Examples:
      >>> ddjax.data.owner_key("natural:speaker")
      'speaker'
      >>> ddjax.data.owner_key("dirichlet")
      ''
    """
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
    """Divide examples among devices.

    Args:
      name: specification in `PARTITIONS` of a partition that does not use owners.
      labels: targets of the examples: integer labels `[M]`, or floating-point numbers to predict `[M, K]`.
      devices: number of devices `N`.
      rng: source of all randomness.
      alpha: concentration of `dirichlet` and `quantity`; the smaller `alpha` is, the more devices differ in the labels
        (`dirichlet`) or in the number of examples (`quantity`).
      examples_per_device: mean number of examples per device; 0 to divide all `M` examples.

    Returns:
      One array per device: the row numbers of the examples that the device holds. The `N` arrays are disjoint, and each
        array contains at least one row.

    Raises:
      InputError: the name is unknown, the partition needs labels but there are only numbers to predict, there are too
        few examples, or `alpha` is not in (0, 1e6].

    Examples:
      >>> labels = np.arange(900) % 3
      >>> for alpha in (100, 0.1):  # examples per class on each of four devices
      ...     parts = ddjax.data.share_out("dirichlet", labels, 4, np.random.default_rng(1), alpha, 30)
      ...     print([np.bincount(labels[part], minlength=3).tolist() for part in parts])
      [[10, 8, 12], [10, 10, 10], [7, 7, 16], [8, 9, 13]]
      [[0, 29, 1], [30, 0, 0], [0, 30, 0], [0, 14, 16]]
    """
    choice = PARTITIONS.parse(name)
    entry = choice.entry
    if entry.by_owner:
        raise InputError(f"partition {name!r} needs the owners of examples, not their labels; use make_problem")
    if entry.by_label and labels.dtype.kind == "f":
        raise InputError(
            f"partition {name!r} needs labels, but this data set has numbers to predict; use iid, quantity or natural"
        )
    if len(labels) < devices:
        raise InputError(
            f"{len(labels)} private examples are too few for {devices} devices; "
            "use fewer devices or a smaller reference set"
        )
    total = examples_per_device * devices or len(labels)
    if not 0 < total <= len(labels):
        raise InputError(
            f"{devices} devices × {examples_per_device} examples need {total} private examples, but only "
            f"{len(labels)} are left besides the reference set"
        )
    if not 0 < alpha <= 1e6:
        raise InputError(f"dirichlet_alpha must be a positive number up to 1e6, got {alpha}")
    return choice.build(labels, total, devices, rng, alpha)
