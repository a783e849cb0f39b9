"""Mixing: how what the devices hold is combined over the network, and how messages are compressed.

A mixer is one module each; its function has the module's name, as in `ddjax.mixing.choco.choco`.
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
