"""Interface of a network: the messages that are sent and received in a round, and a description of the graph."""

import abc
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
import scipy.sparse

if TYPE_CHECKING:
    from ddjax.networks.matrices import MixingMatrix


class NetworkRound(NamedTuple):
    """Network in one round.

    Attributes:
      sent: matrix along whose links messages are sent and counted.
      received: matrix of the messages that arrive; the same object as `sent` if no message is lost.
    """

    sent: "MixingMatrix"
    received: "MixingMatrix"

    def delivered(self, pushed: jax.Array) -> jax.Array:
        """Select the messages of `pushed` (by link) that arrive."""
        return pushed if self.sent is self.received else pushed * self.received.links()

    def arriving(self, targets: jax.Array) -> jax.Array:
        """Replace the targets `[N]` of lost pushes by `N`."""
        if self.sent is self.received:
            return targets
        return jax.numpy.where(self.received.reaches(targets), targets, self.received.devices)


class Network(abc.ABC):
    """Network of devices: the pytree in `Problem.network`.

    Attributes:
      changes: whether rounds may have different graphs.
      draws: whether the graph of a round is drawn at random.
      loses_messages: whether a message that was sent may be lost.
    """

    changes: bool = False
    draws: bool = False
    loses_messages: bool = False

    @property
    @abc.abstractmethod
    def devices(self) -> int:
        """Number of devices `N`."""

    @abc.abstractmethod
    def at_round(self, key: jax.Array, round: jax.Array) -> NetworkRound:
        """Return the network in round `round` (`[]`, counted from 0); `key` belongs to this round."""

    @abc.abstractmethod
    def sample_matrices(self) -> list[scipy.sparse.csr_array]:
        """Return float64 matrices `[N, N]` on the host: the mixing matrix, the matrices of a cycle, or a few draws.

        If messages may be lost, these are the matrices of the messages that are sent.
        """

    def sent_by_device(self, counts: np.ndarray) -> np.ndarray:
        """Sum the counts of the links from each device, `[N]`, on the host."""
        return counts.sum(0)

    def received_by_device(self, counts: np.ndarray) -> np.ndarray:
        """Sum the counts of the links to each device, `[N]`, on the host."""
        return counts.sum(1)

    def ends(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the receivers and senders of the links in `counts[counts != 0]`, in the same order, on the host."""
        receivers, senders = np.nonzero(counts)
        return receivers, senders
