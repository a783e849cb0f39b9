"""Networks: graphs, mixing matrices, and how they change from round to round."""

from ddjax.networks.changing import Cycle, ErdosRenyi, Relabeled, as_network
from ddjax.networks.checks import check_network
from ddjax.networks.links import Links, from_matrices
from ddjax.networks.matrices import Dense, MixingMatrix
from ddjax.networks.network import Network, NetworkRound
from ddjax.networks.topology import (
    TOPOLOGIES,
    Request,
    Topology,
    TopologyEntry,
    build_graph,
    build_topology,
    largest_consensus_step_size,
)
from ddjax.networks.weights import MIXING_WEIGHTS, mixing_matrix

__all__ = [
    "MIXING_WEIGHTS",
    "TOPOLOGIES",
    "Cycle",
    "Dense",
    "ErdosRenyi",
    "Links",
    "MixingMatrix",
    "Network",
    "NetworkRound",
    "Relabeled",
    "Request",
    "Topology",
    "TopologyEntry",
    "as_network",
    "build_graph",
    "build_topology",
    "check_network",
    "from_matrices",
    "largest_consensus_step_size",
    "mixing_matrix",
]
