"""Mixing: how what the devices hold is combined over the network, and how messages are compressed.

Each mixer has a module of its own, with a function of the same name, as in `ddjax.mixing.choco.choco`; that of
`average` is `weighted_average`.
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
