"""A network that loses messages, as a user's own file: `--include=lossy.py --topology=lossy:0.1:ring`."""

import dataclasses
from typing import Any

import jax

from ddjax.networks import TOPOLOGIES, Network, NetworkRound, TopologyEntry, build_topology
from ddjax.registry import Argument, number


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lossy(Network):
    """Another network, in which each message is lost with a probability. A receiver gives the weight of a message that
    it misses to its own value."""

    inner: Network
    probability: Any

    loses_messages = True

    @property
    def changes(self):
        return self.inner.changes

    @property
    def draws(self):
        return self.inner.draws

    @property
    def devices(self):
        return self.inner.devices

    def at_round(self, key, round):
        losing, inner = jax.random.split(key)
        sent = self.inner.at_round(inner, round).sent
        kept = jax.random.bernoulli(losing, 1 - self.probability, sent.links().shape)
        return NetworkRound(sent, sent.thinned(kept))

    def sample_matrices(self):
        return self.inner.sample_matrices()

    def sent_by_device(self, counts):
        return self.inner.sent_by_device(counts)

    def received_by_device(self, counts):
        return self.inner.received_by_device(counts)

    def ends(self, counts):
        return self.inner.ends(counts)


def lossy(request, probability, spec):
    inner = build_topology(spec, *request)
    return inner._replace(network=Lossy(inner.network, probability))


TOPOLOGIES.add(TopologyEntry("lossy", lossy, (Argument("P", number(0, 1)), Argument("SPEC")), whole=True))
