"""IDKD: during D-SGD, devices add public examples to their own data, with soft labels from confident neighbours."""

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

# A difference between two shares that is below this number is a rounding error.
_ROUNDING = 1e-6


class State(NamedTuple):
    """State of IDKD between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      mixer: the mixer's state.
      labels: `[N, R, K]` soft labels of the reference examples; 0 for examples without a label.
      taken: `[N, R]` bool, whether the device has a label for the reference example.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    mixer: MixerState
    labels: jax.Array
    taken: jax.Array


class Detector(NamedTuple):
    """Rule by which a device detects the reference examples that resemble its own examples.

    Attributes:
      score: `(learner, device, x [B, …]) → [B]`, a score that is higher for a stronger resemblance.
      calibrated: whether the threshold comes from `roc_threshold` and not from a setting.
    """

    score: Callable[[Learner, Device, jax.Array], jax.Array]
    calibrated: bool


def probability(learner: Learner, device: Device, x: jax.Array) -> jax.Array:
    """Compute the maximum softmax probability of each example."""
    return learner.predict(device, x).max(-1)


def energy(learner: Learner, device: Device, x: jax.Array) -> jax.Array:
    """Compute the negative energy `log Σ_k exp f_k` of the logits (Liu et al., NeurIPS 2020, at temperature 1)."""
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
    """In-distribution knowledge distillation (Ravikumar, Saha, Roy, TMLR 2023): D-SGD on data that become more similar.

    After `homogenize_after` rounds of `dsgd`, and only then, every device sends its soft decisions on the reference
    examples about which it is confident. Ideally, these examples come from the distribution of its own data. A device
    labels an example with the mean soft decision of those devices, among its neighbours and itself, that are confident
    about the example. From then on, the device draws its minibatches from its own examples and the labelled examples
    together. A label is sent as `K` numbers and the index of its example (4 bytes).

    The `detector` selects the examples about which a device is confident:

    - `msp`: the examples whose maximum softmax probability `max_k s_n(x)_k` exceeds the threshold.
    - `msp_roc`: the same, but with a separate threshold for each device. This threshold separates the device's private
      examples from the reference examples as well as possible (`roc_threshold`).
    - `energy_roc`: like `msp_roc`, but with the score `log Σ_k exp f_n(x)_k`, where `f_n` are the logits.

    Args:
      population: devices of one architecture.
      mixer: operation that mixes the parameters.
      homogenize_after: number of rounds of D-SGD before the labels are sent.
      detector: a name in `DETECTORS`.
      confidence_threshold: threshold of `msp`, in [0, 1].

    Raises:
      InputError: the devices have several architectures, `homogenize_after` is below 1, the detector is unknown, or the
        threshold is outside [0, 1].

    Examples:
      >>> algorithm = ddjax.idkd(population, ddjax.weighted_average(), homogenize_after=40)
      >>> algorithm.message_bytes(problem).peer  # a label: 10 numbers and an index, 4 bytes each
      {'value': 2600, 'soft label': 44}
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
        """Return `[N, R]` bool, whether the score of each reference example reaches the device's `roc_threshold`."""

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
        # A device's weights are equal, so the product has two means over its neighbourhood: of `s * sure` and of
        # `sure`. Their ratio is the mean of `s` over the confident devices.
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
        # Labels are sent over the graph even if the mixer does not use the graph.
        check_network(problem.network, "links")

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), message_bytes, check)


def roc_threshold(private: jax.Array, count: jax.Array, public: jax.Array) -> jax.Array:
    """Find the `t` that maximizes Youden's index, the share of private scores `≥ t` minus that of public scores `≥ t`.

    Args:
      private: `[n_max]` scores of the private examples, padded on the right.
      count: `[]` number of private scores without the padding.
      public: `[R]` scores of the public examples.

    Returns:
      `[]` the largest `t` that maximizes the index; infinity if the index is not positive at any threshold.
    """
    private = jnp.where(jnp.arange(len(private)) < count, private, -jnp.inf)
    thresholds = jnp.sort(jnp.concatenate([private, public]), descending=True)

    def share(scores: jax.Array, count: jax.Array | int) -> jax.Array:
        return (len(scores) - jnp.searchsorted(jnp.sort(scores), thresholds)) / count

    gain = share(private, count) - share(public, len(public))
    gain = jnp.where(jnp.isfinite(thresholds), gain, 0)  # excludes the padding
    best = (gain >= gain.max() - _ROUNDING).argmax()  # the first of the gains that are maximal up to rounding
    return jnp.where(gain.max() > _ROUNDING, thresholds[best], jnp.inf)


def _by_link(matrix: MixingMatrix, counts: jax.Array) -> jax.Array:
    """Assign the number of messages of each sender, `counts` `[N]`, to each link of the sender."""
    return matrix.links() * (counts[matrix.senders] if isinstance(matrix, Links) else counts)


ALGORITHMS.add(
    AlgorithmEntry(
        "idkd",
        idkd,
        settings={"homogenize_after": "homogenize_after", "detector": "detector"},
        uses=(*TRAINING, *MIXING, *ON_GRAPH),
        mixes="parameters",
        contents={"value": "parameters", "soft label": "soft label of one reference example, {outputs} classes"},
    )
)
