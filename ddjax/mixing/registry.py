"""The mixers by name, as `--mixing` takes them."""

from collections.abc import Callable

from ddjax.mixing.mixers import adaptive, choco, gossip, push_sum, server, weighted_average
from ddjax.types import Mixer

# Parameters called `compressor` and `step_size` are filled in from the flags; others need a default.
MIXERS: dict[str, Callable[..., Mixer]] = {
    "average": weighted_average,
    "choco": choco,
    "push_sum": push_sum,
    "gossip": gossip,
    "server": server,
    "adaptive": adaptive,
}
