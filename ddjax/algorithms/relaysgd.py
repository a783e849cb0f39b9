"""RelaySGD: on a tree, devices relay sums of parameters, so that each average counts every device exactly once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms.registry import ALGORITHMS, TRAINING, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.learning import Population, round_keys, single_group
from ddjax.mixing.registry import OVER_LINKS
from ddjax.networks import Network, check_network
from ddjax.stacked import expand, stacked_bytes
from ddjax.theory.convergence import measure_averaging
from ddjax.types import Algorithm, Device, Info, Problem, PyTree, Traffic

_COUNT = 4  # bytes


class State(NamedTuple):
    """State of RelaySGD between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      start: `θ⁰`, the common initial parameters, unstacked.
      sums: `[E, …]`, last sum sent over each of the `E = 2 (N − 1)` directed links; the links are sorted by receiver,
        then by sender.
      counts: `[E]` int32, number of devices in each sum.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    start: PyTree
    sums: PyTree
    counts: jax.Array


def relaysgd(population: Population) -> Algorithm:
    """RelaySGD (Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi, NeurIPS 2021, algorithm 1; RelaySum/Model).

    After its local steps, device `n` sends each neighbour `m` the sum of its own parameters and the last sums that it
    received from all neighbours except `m`. It also sends the number of devices in this sum. Then `θ_n` becomes the sum
    of the device's own parameters and the sums just received, divided by `N`. For a device whose parameters have not
    arrived yet, the common initial parameters are added instead. Hence `θ_n ← 1/N Σ_m θ_m`, where the parameters of a
    device `d` links away are `d − 1` rounds old. The graph is a tree, so no parameters return to their sender. Mixing
    weights have no effect. A device keeps the last message of each neighbour.

    Optimizer state is not sent. A message contains a sum of parameters and a count (4 bytes).

    Args:
      population: devices of one architecture.

    Raises:
      InputError: the devices have several architectures. `check` raises this error if the network is not a tree,
        changes, or loses messages.

    Examples:
      >>> algorithm = ddjax.relaysgd(population)
      >>> algorithm.message_bytes(problem).peer  # 650 parameters of 4 bytes, and the count
      {'sum and count': 2604}
      >>> algorithm.check(problem)
      Traceback (most recent call last):
      ddjax.errors.InputError: relaysgd needs a tree (7 links between 8 devices), but this graph has 8 links; ...
    """
    single_group(population, "relaysgd")
    devices_count = population.size
    links = 2 * (devices_count - 1)

    def init(key: jax.Array, problem: Problem) -> State:
        devices = population.init(key, common=True)
        params = devices[0].params
        return State(
            round=jnp.zeros((), jnp.int32),
            devices=devices,
            start=jax.tree.map(lambda leaf: leaf[0], params),
            sums=jax.tree.map(lambda leaf: jnp.zeros((links, *leaf.shape[1:]), leaf.dtype), params),
            counts=jnp.zeros(links, jnp.int32),
        )

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        (devices,), phase = population.train(keys.train, state.round, state.devices, problem)
        network = problem.network.at_round(keys.graph, state.round)
        receivers, senders = network.sent.endpoints(links)
        back = jnp.lexsort((receivers, senders))  # the link in the opposite direction

        def heard(messages: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(messages, receivers, devices_count, indices_are_sorted=True)

        def relayed(own: jax.Array, last: jax.Array) -> jax.Array:
            return (own + heard(last))[senders] - last[back]

        ones = jnp.ones(devices_count, jnp.int32)
        counts = relayed(ones, state.counts)
        sums = jax.tree.map(relayed, devices.params, state.sums)
        missing = devices_count - ones - heard(counts)

        def average(own: jax.Array, sums: jax.Array, start: jax.Array) -> jax.Array:
            return (own + heard(sums) + expand(missing, own) * start) / devices_count

        params = jax.tree.map(average, devices.params, sums, state.start)
        sent = Traffic({"sum and count": network.sent.links()})
        state = State(state.round + 1, (devices._replace(params=params),), state.start, sums, counts)
        return state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def message_bytes(problem: Problem) -> Traffic:
        return Traffic({"sum and count": stacked_bytes(population.parameters) + _COUNT})

    def check(problem: Problem) -> None:
        population.check(problem)
        if problem.network.changes:
            raise InputError("relaysgd needs a fixed tree, but this graph changes; use binary_tree, path or star")
        check_network(problem.network, "links", lossless="relaysgd")
        _check_tree(problem.network)

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def _check_tree(network: Network) -> None:
    """Raise `InputError` if a connected graph is not an undirected tree."""
    (matrix,) = network.sample_matrices()
    links = (matrix != 0).astype(int)
    links.setdiag(0)
    directed, expected = int(links.sum()), 2 * (network.devices - 1)
    if (links != links.T).nnz or directed != expected:
        what = f"{directed} directed links" if (links != links.T).nnz else f"{directed // 2} links"
        raise InputError(
            f"relaysgd needs a tree ({expected // 2} links between {network.devices} devices), but this graph has "
            f"{what}; use binary_tree, path or star, or an edge file whose links form a tree"
        )


ALGORITHMS.add(
    AlgorithmEntry(
        "relaysgd",
        relaysgd,
        uses=(*TRAINING, *OVER_LINKS),
        contents={"sum and count": "sum of the parameters of several devices, and their count"},
        measure=measure_averaging,
    )
)
