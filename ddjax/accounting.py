"""Who sent how much to whom: exact counts of messages, and bytes as Python integers."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ddjax.types import Traffic


class Bytes(NamedTuple):
    """Bytes on the network.

    Attributes:
      sent: by each device, to others or to the server; `N` integers.
      received: by each device.
      server: sent by the server.
      busiest_link: over the directed link (or the way to or from the server) with the most traffic.
    """

    sent: tuple[int, ...]
    received: tuple[int, ...]
    server: int
    busiest_link: int

    @property
    def total(self) -> int:
        """Of all devices and the server."""
        return sum(self.sent) + self.server


def count(messages: Traffic, message_bytes: Traffic, devices: int) -> Bytes:
    """Bytes of counted messages.

    Args:
      messages: counts as integer arrays of NumPy.
      message_bytes: bytes of one message of each kind.
      devices: `N`.
    """

    zeros = np.zeros(devices, object)

    def total(way: str, axis: tuple[int, ...]) -> np.ndarray:
        counts, sizes = getattr(messages, way), getattr(message_bytes, way)
        # Python integers, which neither overflow nor round.
        return sum((counts[kind].sum(axis).astype(object) * sizes[kind] for kind in counts), zeros)

    def busiest(way: str) -> int:
        counts, sizes = getattr(messages, way), getattr(message_bytes, way)
        if not counts:
            return 0
        used = sum(counts.values()) > 0
        return max(sum(counts[kind][used].astype(object) * sizes[kind] for kind in counts), default=0)

    up, down = total("up", ()), total("down", ())
    return Bytes(
        sent=tuple(map(int, up + total("peer", (0,)))),
        received=tuple(map(int, down + total("peer", (1,)))),
        server=int(down.sum()),
        busiest_link=max(map(busiest, ("peer", "up", "down"))),
    )


def by_link(messages: Traffic, message_bytes: Traffic) -> Iterator[dict[str, str | int]]:
    """A row for each directed link and kind of message with traffic; the server is called `server`."""
    for way, kinds in messages._asdict().items():
        for kind, counts in kinds.items():
            for place in map(tuple, np.argwhere(counts)):
                receiver, sender = {"peer": place, "up": ("server", *place), "down": (*place, "server")}[way]
                number = int(counts[place])
                size = getattr(message_bytes, way)[kind]
                yield {
                    "sender": str(sender),
                    "receiver": str(receiver),
                    "kind": kind,
                    "messages": number,
                    "bytes": number * size,
                }
