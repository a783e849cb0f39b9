"""Runs an algorithm: one jitted loop over the rounds between two evaluations."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.metrics import Measures, evaluate
from ddjax.types import Algorithm, Info, InputError, NonFiniteError, Problem

# Seconds of one scan that a live display can wait for; cutting a scan costs next to nothing and changes no number.
_PACE = 0.5


class Evaluation(NamedTuple):
    """What a reader sees of a run at one round.

    Attributes:
      round: rounds done.
      accuracy: `[N]` test accuracy of each device.
      ensemble_accuracy: of the mean soft decision.
      disagreement: mean over devices of `‖s_n − s̄‖²` on the reference set.
      loss: private loss, mean over devices and the rounds since the last evaluation (NaN at round 0).
      distillation_loss: the same of the divergence from the targets.
      bytes_sent: bytes each device has sent since round 0, exact.
      seconds_train: spent in training rounds since the run began, without compilation and evaluation.
    """

    round: int
    accuracy: np.ndarray
    ensemble_accuracy: float
    disagreement: float
    loss: float
    distillation_loss: float
    bytes_sent: tuple[int, ...]
    seconds_train: float


class Progress(NamedTuple):
    """What a live display shows; see `evaluations`."""

    round: int
    seconds_train: float
    seconds_compile: float


class Totals(NamedTuple):
    """Sums over rounds.

    Attributes:
      info: `Info`, summed.
      failed: `[N]` devices whose loss was not finite in the last round.
    """

    info: Info
    failed: jax.Array


class Simulation:
    """A compiled algorithm on a problem: compiles once for any number of rounds and runs."""

    def __init__(self, algorithm: Algorithm, problem: Problem):
        self.problem = problem
        self.message_bytes = algorithm.message_bytes(problem)
        self._init = jax.jit(algorithm.init)
        self._measure = jax.jit(lambda state, problem: evaluate(partial(algorithm.predict, state), problem))

        # How many rounds is data, not shape: no length compiles anew. Donated, the state is updated in place.
        @partial(jax.jit, donate_argnums=(1, 2))
        def advance(key, state, totals, problem, until):
            def one(carry):
                state, totals = carry
                state, info = algorithm.round(jax.random.fold_in(key, state.round), state, problem)
                failed = ~jnp.isfinite(info.loss + info.distillation_loss)
                return state, Totals(jax.tree.map(jnp.add, totals.info, info), failed)

            return jax.lax.while_loop(
                lambda carry: (carry[0].round < until) & ~carry[1].failed.any(), one, (state, totals)
            )

        self._advance = advance

    def init(self, key: jax.Array) -> Any:
        """The state before the first round."""
        return self._init(jax.random.fold_in(key, 0), self.problem)

    def measure(self, state: Any) -> Measures:
        """Test and reference measures of a state.

        Raises:
          NonFiniteError: soft decisions that are NaN or infinite; the last step's loss was still fine.
        """
        measures = self._measure(state, self.problem)
        _check_finite(state, measures.finite)
        return measures

    def zeros(self) -> Totals:
        """Totals of no round."""
        devices = self.problem.sizes.shape[0]
        info = Info(jnp.zeros(devices), jnp.zeros(devices), jnp.zeros(devices, jnp.int32))
        return Totals(info, jnp.zeros(devices, bool))

    def advance(self, key: jax.Array, state: Any, totals: Totals, until: int) -> tuple[Any, Totals]:
        """Runs rounds up to `until` (counted from the start of the run); state and totals are consumed.

        Round `t` (from 0) uses `fold_in(fold_in(key, 1), t)`, so that no number depends on where a run is cut.

        Returns:
          The state, and the totals with these rounds added.

        Raises:
          NonFiniteError: a loss is NaN or infinite; raised after that very round.
        """
        state, totals = self._advance(jax.random.fold_in(key, 1), state, totals, self.problem, jnp.int32(until))
        _check_finite(state, ~totals.failed)
        return state, totals


def _check_finite(state: Any, finite: jax.Array) -> None:
    if not finite.all():
        raise NonFiniteError(int(state.round), int(finite.argmin()))


def evaluations(
    algorithm: Algorithm,
    problem: Problem,
    *,
    key: jax.Array,
    rounds: int,
    eval_every: int,
    resume: tuple[Any, Evaluation] | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[tuple[Any, Evaluation]]:
    """Yields state and evaluation at the start, then every `eval_every` rounds and after the last.

    The state is consumed when the iteration goes on: use it, or copy it, before.

    Args:
      algorithm: what to run.
      problem: on what.
      key: of the run; see `Simulation.advance`.
      rounds: length of the run.
      eval_every: rounds between two evaluations.
      resume: a state and its evaluation to go on from, instead of round 0.
      progress: called about every half second of training.

    Raises:
      InputError: `rounds` negative or `eval_every` below 1.
      NonFiniteError: a loss or a soft decision is not finite.
    """
    if rounds < 0 or eval_every < 1:
        raise InputError(f"rounds must be at least 0 and eval_every at least 1, got {rounds} and {eval_every}")
    simulation = Simulation(algorithm, problem)
    if resume is None:
        state = simulation.init(key)
        nothing = np.zeros(problem.sizes.shape[0], dtype=object)
        last = _evaluation(simulation.measure(state), 0, float("nan"), float("nan"), nothing, 0.0)
    else:
        state, last = resume
    yield state, last
    if last.round >= rounds:
        return
    done, sent, seconds = last.round, np.array(last.bytes_sent, dtype=object), last.seconds_train
    start = time.perf_counter()
    state, totals = simulation.advance(key, state, simulation.zeros(), done)  # no round: compiles
    seconds_compile = time.perf_counter() - start
    progress(Progress(done, seconds, seconds_compile))
    pace = 1
    while done < rounds:
        begun, stop, totals = done, min((done // eval_every + 1) * eval_every, rounds), simulation.zeros()
        while done < stop:
            until = min(done + pace, stop)
            start = time.perf_counter()
            state, totals = simulation.advance(key, state, totals, until)
            elapsed = time.perf_counter() - start
            seconds += elapsed
            pace = 2 * (until - done) if elapsed < _PACE else max(1, (until - done) // 2)
            done = until
            progress(Progress(done, seconds, seconds_compile))
        info = totals.info
        sent = sent + np.asarray(info.messages).astype(object) * simulation.message_bytes
        loss, distillation_loss = (
            float(total.mean()) / (done - begun) for total in (info.loss, info.distillation_loss)
        )
        yield state, _evaluation(simulation.measure(state), done, loss, distillation_loss, sent, seconds)


def _evaluation(measures: Measures, round: int, loss: float, distillation_loss: float, sent, seconds) -> Evaluation:
    return Evaluation(
        round,
        np.asarray(measures.accuracy, np.float64),
        float(measures.ensemble_accuracy),
        float(measures.disagreement),
        loss,
        distillation_loss,
        tuple(int(count) for count in sent),
        seconds,
    )


def run(
    algorithm: Algorithm, problem: Problem, *, key: jax.Array, rounds: int, eval_every: int
) -> tuple[Any, list[Evaluation]]:
    """Runs to the end; the final state and the history. See `evaluations`."""
    history = []
    state = None
    for latest, evaluation in evaluations(algorithm, problem, key=key, rounds=rounds, eval_every=eval_every):
        state = latest
        history.append(evaluation)
    return state, history
