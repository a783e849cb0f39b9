"""The algorithms by name, the forms of the consensus step, and the detectors of `idkd`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ddjax.registry import ConfiguredEntry, Registry
from ddjax.types import Mixer

# Settings of the local training, which every algorithm that trains uses.
TRAINING = (
    "optimizer",
    "learning_rate",
    "learning_rate_schedule",
    "batch_size",
    "local_steps",
    "local_epochs",
    "activation",
    "micro_batch",
    "temperature",
    "prior_adjustment",
)
MIXING = ("mixing", "compressor")


@dataclasses.dataclass(frozen=True)
class AlgorithmEntry(ConfiguredEntry):
    """An algorithm that can be named.

    `build` is `(population, **settings) → Algorithm`, or `(population, mixer, **settings) → Algorithm` where it mixes.

    Attributes:
      mixes: `parameters` or `soft_decisions`, what its mixer is given; empty where it has none.
      weights: `(mixer, settings) → ` which sums of the mixing matrix must be 1, a key of `networks.checks.STOCHASTIC`.
      fixed: settings that belong to the name, such as the mixing of `choco`, with their values.
      pooled: whether it runs on the pooled data, as one device.
      measure: what `theory.convergence` measures of it; `None` where nothing is known.
    """

    mixes: str = ""
    weights: Callable[[Mixer | None, Any], str] = lambda mixer, settings: mixer.weights if mixer else "links"
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pooled: bool = False
    measure: Callable | None = None

    def named(self, name: str, **fixed: Any) -> "AlgorithmEntry":
        """The combination of this algorithm with fixed settings that is known under another name."""
        return dataclasses.replace(self, name=name, fixed=fixed)


ALGORITHMS: Registry[AlgorithmEntry] = Registry("algorithm")
CONSENSUS: Registry[ConfiguredEntry] = Registry("consensus")
DETECTORS: Registry[ConfiguredEntry] = Registry("detector")
