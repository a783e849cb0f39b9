"""Traffic between devices: exact counts of messages, and bytes as Python integers."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ddjax.networks import Network
from ddjax.types import Traffic


class Bytes(NamedTuple):
    """Bytes on the network.

    Attributes:
      sent: bytes that each device sent, to others or to the server; `N` integers.
      received: bytes that each device received; `N` integers.
      server: bytes that the server sent.
      busiest_link: bytes on the directed link (or on the way to or from the server) with the most traffic.
    """

    sent: tuple[int, ...]
    received: tuple[int, ...]
    server: int
    busiest_link: int

    @property
    def total(self) -> int:
        """Bytes sent by all devices and the server."""
        return sum(self.sent) + self.server


def count(messages: Traffic, message_bytes: Traffic, network: Network) -> Bytes:
    """Compute the bytes of counted messages.

    Args:
      messages: counts as integer NumPy arrays.
      message_bytes: bytes of one message of each kind, in the same structure.
      network: network over whose links the messages between devices are counted.
    """
    zeros = np.zeros(network.devices, object)

    def total(way: str, by_device: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
        counts, sizes = getattr(messages, way), getattr(message_bytes, way)
        # Python integers neither overflow nor round.
        return sum((by_device(counts[kind]).astype(object) * sizes[kind] for kind in counts), zeros)

    def busiest(way: str) -> int:
        counts, sizes = getattr(messages, way), getattr(message_bytes, way)
        if not counts:
            return 0
        used = sum(counts.values()) > 0
        return max(sum(counts[kind][used].astype(object) * sizes[kind] for kind in counts), default=0)

    up, down = total("up"), total("down")
    return Bytes(
        sent=tuple(map(int, up + total("peer", network.sent_by_device))),
        received=tuple(map(int, down + total("peer", network.received_by_device))),
        server=int(down.sum()),
        busiest_link=max(map(busiest, ("peer", "up", "down"))),
    )


def by_link(messages: Traffic, message_bytes: Traffic, network: Network) -> Iterator[dict[str, str | int]]:
    """Yield a row for each directed link and kind of message with traffic; see `count`.

    The server is called `server`.
    """
    for way, kinds in messages._asdict().items():
        for kind, counts in kinds.items():
            places = np.nonzero(counts)
            if way == "peer":
                ends: Any = network.ends(counts)
            else:
                server = itertools.repeat("server")
                ends = {"up": (server, *places), "down": (*places, server)}[way]
            size = getattr(message_bytes, way)[kind]
            for receiver, sender, number in zip(*ends, counts[places].tolist(), strict=False):
                yield {
                    "sender": str(sender),
                    "receiver": str(receiver),
                    "kind": kind,
                    "messages": number,
                    "bytes": number * size,
                }
