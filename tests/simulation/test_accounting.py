"""Bytes against a plain count over a list of messages."""

import collections
import random

import numpy as np

from ddjax.networks import as_network
from ddjax.simulation.accounting import by_link, count
from ddjax.types import Traffic

DEVICES = 4
NETWORK = as_network(np.ones((DEVICES, DEVICES)) / DEVICES)
SIZES = Traffic(peer={"model": 10**12 + 1, "age": 4}, up={"model": 10**12 + 1}, down={"poll": 1, "model": 10**12 + 2})


def drawn_messages(number=500):
    """Messages as `(sender, receiver, kind)`, and their counts."""
    rng = random.Random(0)
    counts = Traffic(
        peer={kind: np.zeros((DEVICES, DEVICES), np.int64) for kind in SIZES.peer},
        up={kind: np.zeros(DEVICES, np.int64) for kind in SIZES.up},
        down={kind: np.zeros(DEVICES, np.int64) for kind in SIZES.down},
    )
    log = []
    for _ in range(number):
        way = rng.choice(["peer", "up", "down"])
        kind = rng.choice(sorted(getattr(SIZES, way)))
        sender, receiver = rng.sample(range(DEVICES), 2)
        if way == "peer":
            counts.peer[kind][receiver, sender] += 1
        elif way == "up":
            counts.up[kind][sender] += 1
            receiver = "server"
        else:
            counts.down[kind][receiver] += 1
            sender = "server"
        log.append((str(sender), str(receiver), kind, getattr(SIZES, way)[kind]))
    return log, counts


def test_bytes_are_those_of_the_messages_one_by_one():
    log, counts = drawn_messages()
    sent, received, links = collections.Counter(), collections.Counter(), collections.Counter()
    for sender, receiver, _, size in log:
        sent[sender] += size
        received[receiver] += size
        links[sender, receiver] += size
    found = count(counts, SIZES, NETWORK)
    assert found.sent == tuple(sent[str(n)] for n in range(DEVICES))
    assert found.received == tuple(received[str(n)] for n in range(DEVICES))
    assert found.server == sent["server"]
    assert found.total == sum(size for *_, size in log)
    assert found.busiest_link == max(links.values())
    rows = {
        (row["sender"], row["receiver"], row["kind"]): (row["messages"], row["bytes"])
        for row in by_link(counts, SIZES, NETWORK)
    }
    expected = collections.Counter(message[:3] for message in log)
    sizes = {message[:3]: message[3] for message in log}
    assert rows == {link: (number, number * sizes[link]) for link, number in expected.items()}


def test_no_messages_are_no_bytes():
    found = count(Traffic(), Traffic(), as_network(np.ones((3, 3)) / 3))
    assert found == ((0, 0, 0), (0, 0, 0), 0, 0)
    assert list(by_link(Traffic(), Traffic(), NETWORK)) == []
