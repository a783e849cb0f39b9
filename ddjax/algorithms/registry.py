"""Registries of the algorithms, the forms of consensus, and the detectors of `idkd`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ddjax.registry import ConfiguredEntry, Registry
from ddjax.types import Mixer

# Settings of local training, which every algorithm that trains uses.
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
    """Algorithm in the registry.

    `build` is `(population, **settings) → Algorithm`, or `(population, mixer, **settings) → Algorithm` if the algorithm
    has a mixer.

    Attributes:
      mixes: quantity that the mixer receives, `parameters` or `soft_decisions`; empty if there is no mixer.
      weights: `(mixer, settings) → str`, the sums of the mixing matrix that must be 1, as a key of
        `networks.checks.STOCHASTIC`.
      fixed: settings that are fixed under this name, with their values; for example, `choco` fixes `mixing`.
      pooled: whether the algorithm runs on the pooled data of all devices, as one device.
      contents: kind of message → its content in words, for the description of a run. The kind `value` is the
        quantity that the mixer receives. In a text, `{batch}` stands for the number of reference examples per round,
        `{reference}` for the size of the reference set, `{outputs}` for the number of classes, `{decisions}` for `soft
        decisions of 10 classes`, and `{logits}` for `logits of 10 classes`; in regression, the last two stand for
        `predictions`.
      measure: function in `theory.convergence` that computes the `Quantities` of a state; `None` if the algorithm has
        no such function.
    """

    mixes: str = ""
    weights: Callable[[Mixer | None, Any], str] = lambda mixer, settings: mixer.weights if mixer else "links"
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pooled: bool = False
    contents: Mapping[str, str] = dataclasses.field(default_factory=dict)
    measure: Callable | None = None

    def named(self, name: str, **fixed: Any) -> "AlgorithmEntry":
        """Combine this algorithm with fixed settings under another name."""
        return dataclasses.replace(self, name=name, fixed=fixed)


ALGORITHMS: Registry[AlgorithmEntry] = Registry("algorithm")
CONSENSUS: Registry[ConfiguredEntry] = Registry("consensus")
DETECTORS: Registry[ConfiguredEntry] = Registry("detector")
