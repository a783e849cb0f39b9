"""IDKD: D-SGD whose devices at some time take up public examples that their neighbourhood is sure of."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.algorithms import dsgd
from ddjax.algorithms.registry import ALGORITHMS, DETECTORS, MIXING, TRAINING, AlgorithmEntry
from ddjax.errors import check_number
from ddjax.learning import Population, round_keys, single_group
from ddjax.learning.lessons import check_lessons, each_device, train_joined
from ddjax.mixing import check_mixing
from ddjax.mixing.registry import ON_GRAPH
from ddjax.networks import Links, MixingMatrix, NetworkRound, check_network
from ddjax.registry import ConfiguredEntry
from ddjax.types import Algorithm, Device, Info, Learner, Mixer, MixerState, Problem, Traffic, working_dtype

# Of a difference of two shares.
_ROUNDING = 1e-6


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


class Detector(NamedTuple):
    """How a device tells the reference examples that look like its own.

    Attributes:
      score: `(learner, device, x [B, …]) → [B]`, higher for what is more like them.
      calibrated: whether the threshold is `roc_threshold`, and not a given one.
    """

    score: Callable[[Learner, Device, jax.Array], jax.Array]
    calibrated: bool


def probability(learner: Learner, device: Device, x: jax.Array) -> jax.Array:
    """The maximum softmax probability."""
    return learner.predict(device, x).max(-1)


def energy(learner: Learner, device: Device, x: jax.Array) -> jax.Array:
    """The negative energy `log Σ_k exp f_k` of the logits (Liu et al., NeurIPS 2020, at temperature 1)."""
    return jax.nn.logsumexp(learner.outputs(device.params, x), axis=-1)


DETECTORS.add(
    ConfiguredEntry(
        "msp", lambda: Detector(probability, False), settings={"confidence_threshold": "confidence_threshold"}
    )
)
DETECTORS.add(ConfiguredEntry("msp_roc", lambda: Detector(probability, True)))
DETECTORS.add(ConfiguredEntry("energy_roc", lambda: Detector(energy, True)))


def idkd(
    population: Population,
    mixer: Mixer,
    *,
    homogenize_after: int,
    detector: str = "msp",
    confidence_threshold: float = 0.98,
) -> Algorithm:
    """In-distribution knowledge distillation (Ravikumar, Saha, Roy, TMLR 2023): D-SGD on data that become more alike.

    After a number of rounds of `dsgd` every device sends its soft decisions on those reference examples of which it is
    sure: what lies outside the distribution of its data it is not to be sure of. A device takes for the soft label of
    an example the mean of those that it and its neighbours are sure of, and from then on its minibatches are drawn from
    its own examples and these alike. One label is `K` numbers and the number of the example, 4 bytes.

    The `detector` says which these are:

    - `msp`: `max_k s_n(x)_k > threshold`, the maximum softmax probability.
    - `msp_roc`: the same at a threshold of the device's own, the one that tells its private examples best from the
      reference examples (`roc_threshold`).
    - `energy_roc`: likewise `log Σ_k exp f_n(x)_k` of the logits.

    Args:
      population: devices of one architecture.
      mixer: of the parameters.
      homogenize_after: rounds of D-SGD before labels are sent, once.
      detector: a name in `DETECTORS`.
      confidence_threshold: of `msp`, in [0, 1].

    Raises:
      InputError: several architectures, a number of rounds below 1, an unknown detector or a threshold out of bounds.
    """
    single_group(population, "idkd")
    check_number("homogenize_after", homogenize_after, 1)
    check_number("confidence_threshold", confidence_threshold, maximum=1)
    score, calibrated = DETECTORS.parse(detector).build()
    start = dsgd.dsgd(population, mixer)

    def init(key: jax.Array, problem: Problem) -> State:
        shape = population.size, problem.reference.shape[0]
        labels = jnp.zeros((*shape, population.outputs_count(problem)))
        begun = start.init(key, problem)
        return State(begun.round, begun.devices, begun.mixer, labels, jnp.zeros(shape, bool))

    def told_apart(devices: tuple[Device, ...], problem: Problem) -> jax.Array:
        """`[N, R]` bool, the reference examples that score as high as a device's own."""

        def one(learner: Learner, shared: tuple, device: Device, n, held, count):
            x, reference = shared
            private, public = score(learner, device, x[held]), score(learner, device, reference[:])
            return device, public >= roc_threshold(private, count, public)

        shared, private = (problem.x, problem.reference), (problem.private_indices, problem.private_counts)
        return each_device(population, one, shared, devices, *private)[1]

    def homogenize(devices: tuple[Device, ...], problem: Problem, network: NetworkRound, state: State):
        s = population.predict(devices, problem.reference[:])
        sure = told_apart(devices, problem) if calibrated else s.max(-1) > confidence_threshold
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


def roc_threshold(private: jax.Array, count: jax.Array, public: jax.Array) -> jax.Array:
    """The threshold `t` at which the share of private scores `≥ t` exceeds that of public ones most (Youden's index).

    Args:
      private: `[n_max]` scores, padded on the right.
      count: `[]` how many of them count.
      public: `[R]` scores.

    Returns:
      `[]` the largest such `t`; infinity where private scores are nowhere the higher ones.
    """
    private = jnp.where(jnp.arange(len(private)) < count, private, -jnp.inf)
    thresholds = jnp.sort(jnp.concatenate([private, public]), descending=True)

    def share(scores: jax.Array, count: jax.Array | int) -> jax.Array:
        return (len(scores) - jnp.searchsorted(jnp.sort(scores), thresholds)) / count

    gain = share(private, count) - share(public, len(public))
    gain = jnp.where(jnp.isfinite(thresholds), gain, 0)  # not where the padding counts
    best = (gain >= gain.max() - _ROUNDING).argmax()  # the first of those that are equal but for rounding
    return jnp.where(gain.max() > _ROUNDING, thresholds[best], jnp.inf)


def _by_link(matrix: MixingMatrix, counts: jax.Array) -> jax.Array:
    """What each sender sends, `[N]`, by link."""
    return matrix.links() * (counts[matrix.senders] if isinstance(matrix, Links) else counts)


ALGORITHMS.add(
    AlgorithmEntry(
        "idkd",
        idkd,
        settings={"homogenize_after": "homogenize_after", "detector": "detector"},
        uses=(*TRAINING, *MIXING, *ON_GRAPH),
        mixes="parameters",
    )
)
