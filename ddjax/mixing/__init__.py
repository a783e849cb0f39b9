"""Mixing: operations that combine the devices' values over the network, and compression of messages.

Each mixer has its own module, which contains a function of the same name, such as `ddjax.mixing.choco.choco`. Only the
function in `average` has another name, `weighted_average`.
"""

from ddjax.mixing import adaptive, average, choco, encoded, gossip, push_sum, server
from ddjax.mixing.checks import check_mixing
from ddjax.mixing.compression import COMPRESSORS, Compressor
from ddjax.mixing.registry import MIXERS, MixerEntry

__all__ = [
    "COMPRESSORS",
    "MIXERS",
    "Compressor",
    "MixerEntry",
    "adaptive",
    "average",
    "check_mixing",
    "choco",
    "encoded",
    "gossip",
    "push_sum",
    "server",
]
