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

    def total(counts: dict[str, np.ndarray], sizes: dict[str, int], shape: tuple[int, ...]) -> np.ndarray:
        # Python integers, which neither overflow nor round.
        return sum((counts[kind].astype(object) * sizes[kind] for kind in counts), np.zeros(shape, object))

    up, down = (total(getattr(messages, way), getattr(message_bytes, way), (devices,)) for way in ("up", "down"))
    links = [up, down]
    sent, received = up, down
    if messages.peer:
        peer = total(messages.peer, message_bytes.peer, (devices, devices))
        sent, received = sent + peer.sum(0), received + peer.sum(1)
        links.append(peer.ravel())
    return Bytes(
        tuple(map(int, sent)), tuple(map(int, received)), int(down.sum()), max(int(link.max()) for link in links)
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
