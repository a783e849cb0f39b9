"""Distributed distillation (Bistritz, Mann, Bambos, NeurIPS 2020): devices mix soft decisions, never parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax.algorithms.registry import ALGORITHMS, CONSENSUS, MIXING, TRAINING, AlgorithmEntry
from ddjax.errors import InputError, check_number
from ddjax.learning import Population, draw, infer_task, round_keys
from ddjax.mixing import check_mixing
from ddjax.networks import Network, largest_consensus_step_size
from ddjax.networks.spectrum import gershgorin_step_size
from ddjax.registry import ConfiguredEntry
from ddjax.theory.convergence import measure_distillation
from ddjax.types import Algorithm, Device, Info, Mixer, MixerState, Problem, Traffic


class State(NamedTuple):
    """State of distillation between rounds.

    Attributes:
      round: `[]` number of rounds done.
      devices: a stacked `Device` for each group.
      estimate: `z` `[N, R, K]`, each device's estimate of the network's mean soft decision on each reference example.
        Initially, `z` is uniform over classes, or zero for regression. `None` with `neighbors`, which keeps no
        estimate.
      previous: `s^prev` `[N, R, K]`, each device's soft decision on each reference example, from the round in which the
        example was last drawn; `None` except with `tracking`.
      mixer: the mixer's state.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    estimate: jax.Array | None
    previous: jax.Array | None
    mixer: MixerState


def distillation(
    population: Population,
    mixer: Mixer,
    *,
    reference_batch_size: int,
    consensus: str = "gradient",
    consensus_step_size: optax.ScalarOrSchedule = 0.3,
) -> Algorithm:
    """Distributed distillation with synchronous rounds (Bistritz, Mann, Bambos, NeurIPS 2020).

    In a round, the devices draw a reference minibatch `B` with a key that they share, take their local steps with the
    targets `z_n(B)`, and mix rows of `z` over the network. Let `s_n` be the soft decisions from the forward pass of the
    last local step. The rows of `z` that belong to `B` are updated by one of two rules:

    - `gradient`: `z_n ← Σ_m W[n, m] z_m + ζ_t (s_n − z_n)`, the rule in the paper's convergence proof.
    - `tracking`: `z_n ← Σ_m W[n, m] (z_m + s_m − s_m^prev)`, which preserves `mean_n z_n = mean_n s_n^prev` for all
      step sizes. This rule is dynamic average consensus (Zhu and Martínez 2010) in the adapt-then-combine form of
      Nedić, Olshevsky, Shi 2017.

    The third form, `neighbors`, has no `z`. Its targets are `Σ_m W[n, m] s_m(B)`; the devices exchange the soft
    decisions before the local steps. In classification, targets are clipped to [0, 1], because `z` may temporarily
    leave this interval. A message contains `b · K` numbers.

    Devices may know different parts of the reference set (`Problem.known`). In this case, `z` for an example is an
    estimate of the mean soft decision of the `k` devices that know the example. The other devices pass the estimate on,
    but they do not learn from it, and they replace `s_n − z_n` (or `s_n − s_n^prev`) by zero. In `tracking`, each of
    the `k` devices multiplies its change `s_n − s_n^prev` by `N / k`, so that the mean of all `z` is the mean soft
    decision of these `k` devices.

    Args:
      population: the devices; their architectures may differ.
      mixer: operation that replaces `Σ_m W[n, m] ·`. If the mixer's state has rows for reference examples, only the
        rows in `B` are read and written, as in `z`.
      reference_batch_size: `b`, number of reference examples drawn without replacement in each round.
      consensus: `gradient`, `tracking` or `neighbors`.
      consensus_step_size: `ζ`, a number or a schedule over rounds; only for `gradient`.

    Raises:
      InputError: `consensus` is unknown or does not work with the mixer. `init` raises this error if `b` is not between
        1 and `R`, and `check` raises it for an unsuitable network or step size.

    Examples:
      >>> algorithm = ddjax.distillation(population, ddjax.weighted_average(), reference_batch_size=32)
      >>> algorithm.message_bytes(problem).peer  # 32 soft decisions over 10 classes
      {'value': 1280}
    """
    _check_form(consensus, mixer)

    def message(problem: Problem) -> jax.ShapeDtypeStruct:
        devices = jax.eval_shape(population.init, jax.random.key(0))
        rows = jax.ShapeDtypeStruct((reference_batch_size, *problem.reference.shape[1:]), problem.reference.dtype)
        return jax.eval_shape(population.predict, devices, rows)

    def init(key: jax.Array, problem: Problem) -> State:
        size = problem.reference.shape[0]
        if not 1 <= reference_batch_size <= size:
            raise InputError(
                f"reference_batch_size must be between 1 and {size} (the size of the reference set), got "
                f"{reference_batch_size}"
            )
        spec = message(problem)
        outputs = spec.shape[-1]
        start = jnp.full((population.size, size, outputs), infer_task(problem.y).start(outputs), spec.dtype)
        return State(
            round=jnp.zeros((), jnp.int32),
            devices=population.init(key),
            estimate=None if consensus == "neighbors" else start,
            previous=jnp.copy(start) if consensus == "tracking" else None,  # two buffers, because both are donated
            mixer=mixer.init(start, 2),
        )

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        size = problem.reference.shape[0]
        whole = reference_batch_size == size  # nothing to draw
        rows = slice(None) if whole else draw(keys.reference, size, reference_batch_size)
        reference = problem.reference[rows]
        network = problem.network.at_round(keys.graph, state.round)
        known = None if problem.known is None else problem.known[:, rows]

        def own(change: jax.Array, share: bool = False) -> jax.Array:
            if known is None:
                return change
            weight = known * (known.shape[0] / jnp.maximum(known.sum(0), 1)) if share else known
            return change * weight[..., None]

        def gather(x: jax.Array) -> jax.Array:
            return x[:, rows]

        def scatter(x: jax.Array, fresh: jax.Array) -> jax.Array:
            return fresh if whole else x.at[:, rows].set(fresh, unique_indices=True)

        def mix(x: jax.Array) -> tuple[jax.Array, MixerState, Traffic]:
            drawn = state.mixer._replace(rows=jax.tree.map(gather, state.mixer.rows))
            mixed, drawn, sent = mixer.mix(keys.mix, x, drawn, network)
            return mixed, drawn._replace(rows=jax.tree.map(scatter, state.mixer.rows, drawn.rows)), sent

        def train(targets: jax.Array):
            targets = jnp.clip(targets, *infer_task(problem.y).bounds)
            return population.train(keys.train, state.round, state.devices, problem, reference, targets, known=known)

        estimate, previous = state.estimate, state.previous
        if estimate is None:
            targets, mixer_state, sent = mix(population.predict(state.devices, reference))
            devices, phase = train(targets)
        else:
            z = gather(estimate)
            devices, phase = train(z)
            s = phase.soft_decisions
            if previous is None:
                mixed, mixer_state, sent = mix(z)
                step_size = consensus_step_size(state.round) if callable(consensus_step_size) else consensus_step_size
                z = mixed + step_size * own(s - z)
            else:
                z, mixer_state, sent = mix(z + own(s - gather(previous), share=True))
                previous = scatter(previous, s)
            estimate = scatter(estimate, z)
        new_state = State(state.round + 1, devices, estimate, previous, mixer_state)
        return new_state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    def check(problem: Problem) -> None:
        population.check(problem)
        if problem.known is not None and consensus == "neighbors":
            raise InputError(
                "consensus neighbors works only if every device knows all reference examples, because devices keep no "
                "estimates; use tracking or gradient, or set --reference_known=1"
            )
        lossless = "tracking" if consensus == "tracking" else ""
        check_mixing(mixer, problem.network, _weights(mixer, consensus), lossless)
        if consensus == "gradient":
            _check_step_size(consensus_step_size, mixer, problem.network)

    return Algorithm(
        init=init,
        round=round,
        predict=lambda state, x: population.predict(state.devices, x),
        message_bytes=lambda problem: mixer.message_bytes(message(problem), 2),
        check=check,
    )


def _check_form(consensus: str, mixer: Mixer) -> None:
    """Refuse a form of consensus that is unknown or does not work with the mixer."""
    CONSENSUS[consensus]  # raises `InputError` if the form is unknown
    if consensus == "tracking" and not mixer.keeps_mean:
        raise InputError(
            f"tracking needs a mixer that keeps the mean over devices, but {mixer.name} does not; "
            "use consensus gradient or neighbors, or another mixer"
        )
    if consensus == "neighbors" and mixer.running:
        raise InputError(
            f"the mixer {mixer.name} needs a running estimate, but consensus neighbors keeps no estimate; use "
            "tracking or gradient"
        )


def _weights(mixer: Mixer, consensus: str) -> str:
    """Name the sums of `W` that must be 1; row sums are enough for an average that is computed anew in each round."""
    return "row" if consensus == "neighbors" and not mixer.running and mixer.uses_graph else mixer.weights


def _check_step_size(step_size: optax.ScalarOrSchedule, mixer: Mixer, network: Network) -> None:
    """Refuse a step size `ζ` that makes the start of the run unstable."""
    first = float(step_size(0) if callable(step_size) else step_size)
    check_number("consensus_step_size", first)
    limit = 1.0
    if mixer.linear:
        matrices = network.sample_matrices()
        if mixer.weights != "column" and first < gershgorin_step_size(matrices):
            return
        limit = largest_consensus_step_size(network, matrices)
    if first >= limit:
        remedy = ", or lazy mixing weights" if mixer.linear and mixer.weights == "doubly" else ""
        raise InputError(
            f"consensus_step_size {first:g} is unstable here: it must be below {limit:.3g}; use a smaller value{remedy}"
        )


CONSENSUS.add(
    ConfiguredEntry(
        "gradient",
        lambda: "gradient",
        settings={"consensus_step_size": "consensus_step_size"},
        uses=("consensus_step_size_schedule",),
    )
)
CONSENSUS.add(ConfiguredEntry("tracking", lambda: "tracking"))
CONSENSUS.add(ConfiguredEntry("neighbors", lambda: "neighbors"))
CONSENSUS.close()  # because `distillation` implements only these forms

_ENTRY = AlgorithmEntry(
    "distillation",
    distillation,
    settings={"reference_batch_size": "reference_batch_size", "consensus": "consensus"},
    uses=(*TRAINING, *MIXING, "distillation_weight", "divergence", "reference_known"),
    mixes="soft_decisions",
    contents={"value": "{batch} {decisions}"},
    weights=lambda mixer, settings: _weights(mixer, settings.consensus) if mixer else "links",
    measure=measure_distillation,
)
ALGORITHMS.add(_ENTRY)
# In `server_distillation`, all devices send their soft decisions on the round's reference examples, and a server sends
# back the mean. Local steps minimize the sum of the private loss and the divergence from this mean. In `fedmd`, devices
# send logits instead, and they minimize the two losses one after the other.
ALGORITHMS.add(_ENTRY.named("server_distillation", mixing="server", consensus="neighbors"))
