"""What a network is: it has a round, in which messages are sent and received, and it can say what its graph is."""

import abc
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
import scipy.sparse

if TYPE_CHECKING:
    from ddjax.networks.matrices import MixingMatrix


class NetworkRound(NamedTuple):
    """The network of one round.

    Attributes:
      sent: the matrix along whose links messages are sent, and counted.
      received: the matrix of the messages that arrive; the same object where none is lost.
    """

    sent: "MixingMatrix"
    received: "MixingMatrix"

    def delivered(self, pushed: jax.Array) -> jax.Array:
        """The messages among `pushed`, by link, that arrive."""
        return pushed if self.sent is self.received else pushed * self.received.links()

    def arriving(self, targets: jax.Array) -> jax.Array:
        """The targets `[N]` of pushes, with `N` for those that are lost."""
        if self.sent is self.received:
            return targets
        return jax.numpy.where(self.received.reaches(targets), targets, self.received.devices)


class Network(abc.ABC):
    """What `Problem.network` holds: a pytree.

    Attributes:
      changes: whether not all rounds have the same graph.
      draws: whether the graph of a round is drawn at random.
      loses_messages: whether a message that was sent may not arrive.
    """

    changes: bool = False
    draws: bool = False
    loses_messages: bool = False

    @property
    @abc.abstractmethod
    def devices(self) -> int:
        """`N`."""

    @abc.abstractmethod
    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        """The network in round `round` (`[]`, from 0); `key` is the round's own."""

    @abc.abstractmethod
    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        """On the host: the mixing matrix, those of a cycle, or some that are drawn, `[N, N]` float64.

        Where messages may be lost, they are the matrices of what is sent.
        """

    def sent_by_device(self, counts: np.ndarray) -> np.ndarray:
        """On the host: the messages that each device sent, `[N]`, of counts by link."""
        return counts.sum(0)

    def received_by_device(self, counts: np.ndarray) -> np.ndarray:
        """On the host: the messages that were sent to each device, `[N]`, of counts by link."""
        return counts.sum(1)

    def ends(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """On the host: receivers and senders of the links with a count, in the order of `counts[counts != 0]`."""
        receivers, senders = np.nonzero(counts)
        return receivers, senders
