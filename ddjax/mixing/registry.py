"""The mixers by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ddjax.registry import ConfiguredEntry, Registry

# Settings of what sends over the links of a graph, and of what also weighs what arrives.
OVER_LINKS = ("topology", "mixing_product")
ON_GRAPH = (*OVER_LINKS, "mixing_weights")


@dataclasses.dataclass(frozen=True)
class MixerEntry(ConfiguredEntry):
    """A mixer that can be named.

    `build` is `(*arguments, **settings) → Mixer`.

    Attributes:
      usual: what is mixed, `parameters` or `soft_decisions` → setting → its value where it is not given.
    """

    uses: tuple[str, ...] = ON_GRAPH
    usual: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


MIXERS: Registry[MixerEntry] = Registry("mixing")
