"""Check of a network against the requirements of a mixer."""

from ddjax.networks import Network, check_network
from ddjax.types import Mixer


def check_mixing(mixer: Mixer, network: Network, weights: str = "", lossless: str = "") -> None:
    """Refuse a network that does not meet the requirements of a mixer.

    Args:
      mixer: the mixer, whose attributes state its requirements.
      network: `Problem.network`.
      weights: name of the sums of `W` that must be 1, as in `Mixer.weights`; if this name is empty, `mixer.weights`
        applies.
      lossless: name of the algorithm if the algorithm itself needs every message to arrive; otherwise empty.

    Raises:
      InputError: the network does not meet a requirement.

    Examples:
      >>> changing = ddjax.build_topology("random_matching", 4).network
      >>> ddjax.mixing.check_mixing(ddjax.weighted_average(), changing)
      >>> ddjax.mixing.check_mixing(ddjax.choco(compressor, step_size=0.04), changing)
      Traceback (most recent call last):
      ddjax.errors.InputError: choco needs a fixed graph...
    """
    if mixer.uses_graph:
        check_network(
            network,
            weights or mixer.weights,
            fixed=mixer.name if mixer.fixed_graph else "",
            lossless=lossless or (mixer.name if mixer.lossless else ""),
        )
