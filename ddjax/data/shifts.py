"""Feature shift: devices that see the same classes differently."""

from collections.abc import Callable

import numpy as np

from ddjax.data.dataset import Dataset
from ddjax.errors import InputError
from ddjax.registry import Argument, Entry, Registry, number

Shift = Callable[[np.ndarray, int, int, np.random.Generator], np.ndarray]
SHIFTS: Registry[Entry] = Registry("feature shift")


def rotation(degrees: float) -> Shift:
    """Device `n` sees images turned by `−degrees … degrees`, in equal steps over devices."""
    from scipy import ndimage

    def shift(x: np.ndarray, n: int, devices: int, rng: np.random.Generator) -> np.ndarray:
        if x.ndim not in (3, 4):
            raise InputError(f"a feature shift by rotation needs images, and an example has shape {list(x.shape[1:])}")
        return ndimage.rotate(x, _spread(n, devices) * degrees, (2, 1), reshape=False, order=1, mode="nearest")

    return shift


def contrast(factor: float) -> Shift:
    """Device `n` sees inputs multiplied by `1/factor … factor`, in equal ratios over devices."""
    return lambda x, n, devices, rng: x * factor ** _spread(n, devices)


def noise(deviation: float) -> Shift:
    """Device `n` sees inputs with normal noise of deviation `0 … deviation`, in equal steps over devices."""
    return lambda x, n, devices, rng: x + deviation * (1 + _spread(n, devices)) / 2 * rng.normal(size=x.shape)


def _spread(n: int, devices: int) -> float:
    """From −1 to 1 over devices."""
    return 2 * n / (devices - 1) - 1 if devices > 1 else 0.0


def shifted(
    spec: str, dataset: Dataset, parts: list[tuple[np.ndarray, np.ndarray]], devices: int, rng: np.random.Generator
) -> None:
    """Shifts scaled inputs in place, each as the device sees it that stands beside it.

    Args:
      spec: of `SHIFTS`.
      dataset: what the inputs are of.
      parts: inputs `[B, …]`, each with the devices `[B]` that see them.
      devices: `N`.
      rng: of noise.

    Raises:
      InputError: an unknown shift, or inputs that it cannot change.
    """
    shift: Shift = SHIFTS.parse(spec).build()
    if dataset.tokens:
        raise InputError("a feature shift changes numbers, and inputs are token ids here")
    for x, seen in parts:
        for n in np.unique(seen):
            rows = np.flatnonzero(seen == n)
            x[rows] = shift(x[rows], int(n), devices, rng)


SHIFTS.add(Entry("rotation", rotation, (Argument("DEGREES", number(0, 180, positive=True)),)))
SHIFTS.add(Entry("contrast", contrast, (Argument("FACTOR", number(1, 100)),)))
SHIFTS.add(Entry("noise", noise, (Argument("DEVIATION", number(0, 100, positive=True)),)))
