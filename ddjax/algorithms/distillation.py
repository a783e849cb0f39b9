"""Distributed distillation (Bistritz, Mann, Bambos, NeurIPS 2020): devices mix soft decisions, never parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax.errors import InputError, suggest
from ddjax.learning import tasks
from ddjax.learning.population import Population, draw, round_keys
from ddjax.mixing.mixers import server
from ddjax.networks import matrices
from ddjax.types import Algorithm, Device, Info, Mixer, MixerState, Problem, Traffic

CONSENSUS = ("gradient", "tracking", "neighbors")


class State(NamedTuple):
    """What distillation carries between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` a group.
      estimate: `[N, R, K]` `z`, each device's estimate of the network's average soft decision, at first uniform
        over classes, or zero for numbers; `None` for `neighbors`, which keeps none.
      previous: `[N, R, K]` `s^prev`, the soft decision at the last time the example was drawn; for `tracking` only.
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
    """Synchronous distributed distillation.

    A round draws a reference minibatch `B` with a key all devices share, takes the local steps with targets `z_n(B)`,
    and mixes over the network. With `s_n` the soft decisions of the last local step's own forward pass, the rows in
    `B` become

    - `gradient`: `z_n ← Σ_m W[n, m] z_m + ζ_t (s_n − z_n)`, the form the paper's convergence proof is about;
    - `tracking`: `z_n ← Σ_m W[n, m] (z_m + s_m − s_m^prev)`, which keeps `mean_n z_n = mean_n s_n^prev` whatever the
      steps (dynamic average consensus, Zhu and Martínez 2010, adapt-then-combine as in Nedić, Olshevsky, Shi 2017);

    and with `neighbors` there is no `z`: the targets are `Σ_m W[n, m] s_m(B)`, exchanged before the local steps.
    Targets over classes are clipped to [0, 1], which `z` may leave for a while. One message is `b · K` numbers.

    Args:
      population: the devices; they may be of different architectures.
      mixer: what replaces `Σ_m W[n, m] ·`. What it remembers of a reference example is gathered and scattered with `z`.
      reference_batch_size: `b`, examples drawn without replacement each round.
      consensus: one of the three forms.
      consensus_step_size: `ζ`, a number or a schedule over rounds; of `gradient` only.

    Raises:
      InputError: an unknown form, a mixer that it cannot do with, or (at `init`) `b` outside 1 … R.
    """
    if consensus not in CONSENSUS:
        raise suggest("consensus", consensus, CONSENSUS)
    if consensus == "tracking" and not mixer.keeps_mean:
        raise InputError(
            "tracking needs a mixing that keeps the mean over devices, which this one does not; "
            "use consensus gradient or neighbors, or another mixing"
        )
    if consensus == "neighbors" and mixer.running:
        raise InputError(
            "this mixing (choco, push_sum) is of a running estimate, and consensus neighbors keeps none; "
            "use tracking or gradient"
        )

    def message(problem: Problem) -> jax.ShapeDtypeStruct:
        devices = jax.eval_shape(population.init, jax.random.key(0))
        rows = jax.ShapeDtypeStruct((reference_batch_size, *problem.reference.shape[1:]), problem.reference.dtype)
        return jax.eval_shape(population.predict, devices, rows)

    def init(key: jax.Array, problem: Problem) -> State:
        size = problem.reference.shape[0]
        if not 1 <= reference_batch_size <= size:
            raise InputError(
                f"reference_batch_size must lie in 1 … {size}, the reference set, got {reference_batch_size}"
            )
        spec = message(problem)
        outputs = spec.shape[-1]
        start = jnp.full((population.size, size, outputs), tasks.of(problem.y).start(outputs), spec.dtype)
        return State(
            round=jnp.zeros((), jnp.int32),
            devices=population.init(key),
            estimate=None if consensus == "neighbors" else start,
            previous=jnp.copy(start) if consensus == "tracking" else None,  # two buffers, since both are donated
            mixer=mixer.init(start, 2),
        )

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        size = problem.reference.shape[0]
        whole = reference_batch_size == size  # nothing to draw
        rows = slice(None) if whole else draw(keys.reference, size, reference_batch_size)
        reference = problem.reference[rows]
        matrix = matrices.at(problem.network, keys.graph, state.round)

        def gather(x: jax.Array) -> jax.Array:
            return x[:, rows]

        def scatter(x: jax.Array, fresh: jax.Array) -> jax.Array:
            return fresh if whole else x.at[:, rows].set(fresh, unique_indices=True)

        def mix(x: jax.Array) -> tuple[jax.Array, MixerState, Traffic]:
            drawn = state.mixer._replace(rows=jax.tree.map(gather, state.mixer.rows))
            mixed, drawn, sent = mixer.mix(keys.mix, x, drawn, matrix)
            return mixed, drawn._replace(rows=jax.tree.map(scatter, state.mixer.rows, drawn.rows)), sent

        def train(targets: jax.Array):
            targets = jnp.clip(targets, *tasks.of(problem.y).bounds)
            return population.train(keys.train, state.round, state.devices, problem, reference, targets)

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
                z = mixed + step_size * (s - z)
            else:
                z, mixer_state, sent = mix(z + s - gather(previous))
                previous = scatter(previous, s)
            estimate = scatter(estimate, z)
        new_state = State(state.round + 1, devices, estimate, previous, mixer_state)
        return new_state, Info(phase.loss, phase.distillation_loss, phase.steps, sent)

    return Algorithm(
        init=init,
        round=round,
        predict=lambda state, x: population.predict(state.devices, x),
        message_bytes=lambda problem: mixer.message_bytes(message(problem), 2),
    )


def fedmd(population: Population, *, reference_batch_size: int, mixer: Mixer | None = None) -> Algorithm:
    """Server distillation: FedMD (Li and Wang, 2019, algorithm 1).

    All devices send their scores on this round's public examples, the server averages them and sends the mean back.
    Of the paper's choices: scores are soft decisions; digest (approach the consensus) and revisit (own data) are one
    step on the sum of both losses, as everywhere in ddjax; there is no pretraining on labelled public data, since the
    reference set has no labels. It is `distillation` with consensus `neighbors` on a complete graph of uniform weights.

    Args:
      population: the devices; they may be of different architectures.
      reference_batch_size: `d_j`, public examples of a round.
      mixer: `mixing.server()`, unless what is sent is `encoded`.
    """
    return distillation(population, mixer or server(), reference_batch_size=reference_batch_size, consensus="neighbors")
