"""Registry of the mixers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ddjax.registry import ConfiguredEntry, Registry

# Settings of methods that send over the links of a graph. `ON_GRAPH` is for methods that also weight the messages.
OVER_LINKS = ("topology", "mixing_product")
ON_GRAPH = (*OVER_LINKS, "mixing_weights")


@dataclasses.dataclass(frozen=True)
class MixerEntry(ConfiguredEntry):
    """Mixer in the registry.

    `build` is `(*arguments, **settings) → Mixer`.

    Attributes:
      contents: kind of message → its content in words, where `{value}` stands for what a device mixes.
      usual: default values of settings for each mixed quantity: `parameters` or `soft_decisions` → setting → value.
    """

    uses: tuple[str, ...] = ON_GRAPH
    contents: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"value": "{value}"})
    usual: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


MIXERS: Registry[MixerEntry] = Registry("mixing")
