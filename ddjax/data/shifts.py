"""Feature shifts, which make devices see the same classes differently."""

from collections.abc import Callable

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.errors import InputError
from ddjax.registry import Argument, Entry, Registry, number

Shift = Callable[[np.ndarray, int, int, np.random.Generator], np.ndarray]
SHIFTS: Registry[Entry] = Registry("feature shift")


def rotation(degrees: float) -> Shift:
    """Make a shift that rotates images.

    The angle grows linearly from `−degrees` on the first device to `degrees` on the last device.
    """
    from scipy import ndimage

    def shift(x: np.ndarray, n: int, devices: int, rng: np.random.Generator) -> np.ndarray:
        if x.ndim not in (3, 4):
            raise InputError(f"feature shift 'rotation' needs images, but an example has shape {list(x.shape[1:])}")
        return ndimage.rotate(x, _spread(n, devices) * degrees, (2, 1), reshape=False, order=1, mode="nearest")

    return shift


def contrast(factor: float) -> Shift:
    """Make a shift that multiplies inputs by a factor.

    The factor grows geometrically from `1/factor` on the first device to `factor` on the last device.
    """
    return lambda x, n, devices, rng: x * factor ** _spread(n, devices)


def noise(deviation: float) -> Shift:
    """Make a shift that adds normal noise to inputs.

    The standard deviation grows linearly from 0 on the first device to `deviation` on the last device.
    """
    return lambda x, n, devices, rng: x + deviation * (1 + _spread(n, devices)) / 2 * rng.normal(size=x.shape)


def _spread(n: int, devices: int) -> float:
    """Return the position of device `n` on a scale from −1 for the first device to 1 for the last device."""
    return 2 * n / (devices - 1) - 1 if devices > 1 else 0.0


def shifted(
    spec: str, dataset: Dataset, parts: list[tuple[np.ndarray, np.ndarray]], devices: int, rng: np.random.Generator
) -> None:
    """Shift scaled inputs in place, each by the shift of the device that sees it.

    Args:
      spec: specification in `SHIFTS`.
      dataset: data set from which the inputs come.
      parts: pairs of inputs `[B, …]` and the devices `[B]` that see them.
      devices: number of devices `N`.
      rng: source of noise.

    Raises:
      InputError: the shift is unknown, or it cannot change these inputs.
    """
    shift: Shift = SHIFTS.parse(spec).build()
    if dataset.tokens:
        raise InputError("a feature shift changes numbers, but these inputs are token ids; leave out --feature_shift")
    for x, seen in parts:
        for n in np.unique(seen):
            rows = np.flatnonzero(seen == n)
            x[rows] = shift(x[rows], int(n), devices, rng)


SHIFTS.add(Entry("rotation", rotation, (Argument("DEGREES", number(0, 180, positive=True)),)))
SHIFTS.add(Entry("contrast", contrast, (Argument("FACTOR", number(1, 100)),)))
SHIFTS.add(Entry("noise", noise, (Argument("DEVIATION", number(0, 100, positive=True)),)))
