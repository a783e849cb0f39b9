"""Distributed distillation (Bistritz, Mann, Bambos, NeurIPS 2020): devices mix soft decisions, never parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax.learners import Learners, round_keys
from ddjax.types import Algorithm, Device, Info, InputError, Mixer, Problem, suggest

CONSENSUS = ("gradient", "tracking", "neighbors")


class State(NamedTuple):
    """What distillation carries between rounds.

    Attributes:
      round: `[]` rounds done.
      devices: a stacked `Device` a group.
      estimate: `[N, R, K]` `z`, each device's estimate of the network's average soft decision, the uniform
        distribution at first; `None` for `neighbors`, which keeps none.
      previous: `[N, R, K]` `s^prev`, the soft decision at the last time the example was drawn; for `tracking` only.
      mixer: the mixer's state.
    """

    round: jax.Array
    devices: tuple[Device, ...]
    estimate: jax.Array | None
    previous: jax.Array | None
    mixer: Any


def distillation(
    learners: Learners,
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
    Targets are clipped to [0, 1], which `z` may leave for a while. One message is `b · K` numbers.

    Args:
      learners: the devices; they may be of different architectures.
      mixer: what replaces `Σ_m W[n, m] ·`.
      reference_batch_size: `b`, examples drawn without replacement each round.
      consensus: one of the three forms.
      consensus_step_size: `ζ`, a number or a schedule over rounds; of `gradient` only.

    Raises:
      InputError: an unknown form, or (at `init`) `b` outside 1 … R.
    """
    if consensus not in CONSENSUS:
        raise suggest("consensus", consensus, CONSENSUS)

    def message(problem: Problem) -> jax.ShapeDtypeStruct:
        devices = jax.eval_shape(learners.init, jax.random.key(0))
        rows = jax.ShapeDtypeStruct((reference_batch_size, *problem.reference.shape[1:]), problem.reference.dtype)
        return jax.eval_shape(learners.predict, devices, rows)

    def init(key: jax.Array, problem: Problem) -> State:
        size = problem.reference.shape[0]
        if not 1 <= reference_batch_size <= size:
            raise InputError(
                f"reference_batch_size must lie in 1 … {size}, the reference set, got {reference_batch_size}"
            )
        spec = message(problem)
        classes = spec.shape[-1]
        keeps = consensus != "neighbors"
        uniform = jnp.full((learners.size, size, classes), 1 / classes, spec.dtype)
        return State(
            round=jnp.zeros((), jnp.int32),
            devices=learners.init(key),
            estimate=uniform if keeps else None,
            previous=jnp.copy(uniform) if consensus == "tracking" else None,  # two buffers, since both are donated
            mixer=mixer.init(uniform if keeps else spec),
        )

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        keys = round_keys(key)
        rows = jax.random.choice(keys.reference, problem.reference.shape[0], (reference_batch_size,), replace=False)
        reference = problem.reference[rows]

        def mix(x: jax.Array):
            return mixer.mix(keys.mix, x, state.mixer, problem.mixing_matrix)

        def train(targets: jax.Array):
            return learners.train(keys.train, state.devices, problem, reference, jnp.clip(targets, 0, 1))

        estimate, previous = state.estimate, state.previous
        if estimate is None:
            targets, mixer_state, sent = mix(learners.predict(state.devices, reference))
            devices, info = train(targets)
        else:
            z = estimate[:, rows]
            devices, info = train(z)
            s = info.soft_decisions
            if previous is None:
                mixed, mixer_state, sent = mix(z)
                step_size = consensus_step_size(state.round) if callable(consensus_step_size) else consensus_step_size
                z = mixed + step_size * (s - z)
            else:
                z, mixer_state, sent = mix(z + s - previous[:, rows])
                previous = previous.at[:, rows].set(s, unique_indices=True)
            estimate = estimate.at[:, rows].set(z, unique_indices=True)
        new_state = State(state.round + 1, devices, estimate, previous, mixer_state)
        return new_state, Info(info.loss, info.distillation_loss, sent)

    return Algorithm(
        init=init,
        round=round,
        predict=lambda state, x: learners.predict(state.devices, x),
        message_bytes=lambda problem: mixer.message_bytes(message(problem)),
    )
