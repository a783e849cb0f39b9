"""IDKD: D-SGD whose devices at some time take up public examples that their neighbourhood is sure of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms import dsgd
from ddjax.algorithms.registry import ALGORITHMS, MIXING, TRAINING, AlgorithmEntry
from ddjax.errors import check_number
from ddjax.learning import Population, round_keys, single_group
from ddjax.learning.lessons import check_lessons, train_joined
from ddjax.mixing import check_mixing
from ddjax.mixing.registry import ON_GRAPH
from ddjax.networks import Links, MixingMatrix, NetworkRound, check_network
from ddjax.types import Algorithm, Device, Info, Mixer, MixerState, Problem, Traffic, working_dtype


class State(NamedTuple):
    """What IDKD carries between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` for each group.
      mixer: the mixer's state.
      labels: `[N, R, K]` soft labels of the reference examples, 0 where there is none.
      taken: `[N, R]` bool, which reference examples a device has a label of.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    mixer: MixerState
    labels: jax.Array
    taken: jax.Array


def idkd(
    population: Population, mixer: Mixer, *, homogenize_after: int, confidence_threshold: float = 0.98
) -> Algorithm:
    """In-distribution knowledge distillation (Ravikumar, Saha, Roy, TMLR 2023): D-SGD on data that become more alike.

    After a number of rounds of `dsgd` every device sends its soft decisions on those reference examples of which it is
    sure, `max_k s_n(x)_k > threshold` (the maximum softmax probability): what lies outside the distribution of its data
    it is not to be sure of. A device takes for the soft label of an example the mean of those that it and its
    neighbours are sure of, and from then on its minibatches are drawn from its own examples and these alike. One label
    is `K` numbers and the number of the example, 4 bytes.

    Args:
      population: devices of one architecture.
      mixer: of the parameters.
      homogenize_after: rounds of D-SGD before labels are sent, once.
      confidence_threshold: in [0, 1].

    Raises:
      InputError: several architectures, or a threshold out of bounds.
    """
    single_group(population, "idkd")
    check_number("confidence_threshold", confidence_threshold, maximum=1)
    start = dsgd.dsgd(population, mixer)

    def init(key: jax.Array, problem: Problem) -> State:
        shape = population.size, problem.reference.shape[0]
        labels = jnp.zeros((*shape, population.outputs_count(problem)))
        begun = start.init(key, problem)
        return State(begun.round, begun.devices, begun.mixer, labels, jnp.zeros(shape, bool))

    def homogenize(devices: tuple[Device, ...], problem: Problem, network: NetworkRound, state: State):
        s = population.predict(devices, problem.reference[:])
        sure = s.max(-1) > confidence_threshold
        received = network.received
        alike = received.weighted(jnp.ones(population.size), received.links().astype(s.dtype))
        # Weights are all the same, so the sums are means over the neighbourhood, and their ratio over who is sure.
        told = alike.product_with(jnp.concatenate([s * sure[..., None], sure[..., None].astype(s.dtype)], axis=-1))
        labels, share = told[..., :-1], told[..., -1:]
        taken = share[..., 0] > 0
        labels = jnp.where(taken[..., None], labels / jnp.where(share > 0, share, 1), 0)
        return labels, taken, _by_link(network.sent, sure.sum(1, dtype=jnp.int32))

    def rest(devices: tuple[Device, ...], problem: Problem, network: NetworkRound, state: State):
        return state.labels, state.taken, jnp.zeros_like(network.sent.links())

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        network = problem.network.at_round(keys.graph, state.round)
        (devices,), phase = train_joined(
            population, keys.train, state.round, state.devices, problem, state.labels, state.taken
        )
        params, memory, sent = mixer.mix(keys.mix, devices.params, state.mixer, network)
        mixed = (devices._replace(params=params),)
        due = state.round + 1 == homogenize_after
        labels, taken, told = jax.lax.cond(due, homogenize, rest, mixed, problem, network, state)
        sent = sent._replace(peer={**sent.peer, "soft label": told})
        return State(state.round + 1, mixed, memory, labels, taken), Info(
            phase.loss, phase.distillation_loss, phase.steps, sent
        )

    def message_bytes(problem: Problem) -> Traffic:
        sizes = mixer.message_bytes(population.parameters, 1)
        label = population.outputs_count(problem) * working_dtype().itemsize + 4
        return sizes._replace(peer={**sizes.peer, "soft label": label})

    def check(problem: Problem) -> None:
        population.check(problem)
        check_lessons(problem, "idkd", joins=population)
        check_mixing(mixer, problem.network)
        check_network(problem.network, "links")  # labels go over it whatever parameters do

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def _by_link(matrix: MixingMatrix, counts: jax.Array) -> jax.Array:
    """What each sender sends, `[N]`, by link."""
    return matrix.links() * (counts[matrix.senders] if isinstance(matrix, Links) else counts)


ALGORITHMS.add(
    AlgorithmEntry(
        "idkd",
        idkd,
        settings={"homogenize_after": "homogenize_after", "confidence_threshold": "confidence_threshold"},
        uses=(*TRAINING, *MIXING, *ON_GRAPH),
        mixes="parameters",
    )
)
