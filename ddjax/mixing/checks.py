"""What a mixer asks of a network."""

from ddjax.networks import Network, check_network
from ddjax.types import Mixer


def check_mixing(mixer: Mixer, network: Network, weights: str = "", lossless: str = "") -> None:
    """Refuses a network that a mixer cannot do with.

    Args:
      mixer: with its truths.
      network: what `Problem.network` holds.
      weights: which sums of `W` must be 1, where that is not what the mixer asks for.
      lossless: the name of what mixes, if it needs every message to arrive whatever the mixer.

    Raises:
      InputError: what is wrong with it.
    """
    if mixer.uses_graph:
        check_network(
            network,
            weights or mixer.weights,
            fixed=mixer.name if mixer.fixed_graph else "",
            lossless=lossless or (mixer.name if mixer.lossless else ""),
        )
