"""Runs a simulation and evaluates it on the way."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ddjax.errors import InputError
from ddjax.learning import infer_task
from ddjax.simulation import accounting
from ddjax.simulation.accounting import Bytes
from ddjax.simulation.simulation import Simulation, Snapshot
from ddjax.types import Algorithm, Problem, Traffic

# Seconds of one scan that a live display can wait for; cutting a scan costs next to nothing and changes no number.
_PACE = 0.5


class Evaluation(NamedTuple):
    """What a reader sees of a run at one round.

    Attributes:
      round: rounds done.
      metric: what the scores are: `accuracy`, or `mse`, the mean of `‖f(x) − y‖²`.
      score: `[N]` of each device on the test set.
      ensemble_score: of the mean soft decision.
      disagreement: mean over devices of `‖s_n − s̄‖²` on the reference set.
      loss: private loss, mean over the optimizer steps since the last evaluation (NaN if there were none).
      distillation_loss: the same of the divergence from the targets.
      steps: optimizer steps of all devices since round 0.
      bytes: exact, since round 0.
      seconds_train: spent in training rounds since the run began, without compilation and evaluation.
    """

    round: int
    metric: str
    score: np.ndarray
    ensemble_score: float
    disagreement: float
    loss: float
    distillation_loss: float
    steps: int
    bytes: Bytes
    seconds_train: float


class Progress(NamedTuple):
    """What a live display shows; see `iterate`."""

    round: int
    seconds_train: float
    seconds_compile: float


def iterate(
    simulation: Simulation,
    *,
    key: jax.Array,
    rounds: int,
    eval_every: int,
    resume: tuple[Snapshot, Evaluation] | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[tuple[Snapshot, Evaluation]]:
    """Yields snapshot and evaluation at the start, then every `eval_every` rounds and after the last.

    The snapshot's state is consumed when the iteration goes on: use it, or copy it, before.

    Args:
      simulation: what to run.
      key: of the run; see `Simulation.advance`.
      rounds: length of the run.
      eval_every: rounds between two evaluations.
      resume: a snapshot and its evaluation to go on from, instead of round 0.
      progress: called about every half second of training.

    Raises:
      InputError: `rounds` negative or `eval_every` below 1.
      NonFiniteError: a loss or a soft decision is not finite.
    """
    if rounds < 0 or eval_every < 1:
        raise InputError(f"rounds must be at least 0 and eval_every at least 1, got {rounds} and {eval_every}")
    if resume is None:
        state = simulation.init(key)
        messages = _on_host(simulation.zeros().info.messages)
        last = _evaluation(simulation, state, messages, 0, 0, np.nan, np.nan, 0.0)
    else:
        (state, messages), last = resume
    yield Snapshot(state, messages), last
    if last.round >= rounds:
        return
    done, steps, seconds = last.round, last.steps, last.seconds_train
    start = time.perf_counter()
    state, totals = simulation.advance(key, state, simulation.zeros(), done)  # no round: compiles
    seconds_compile = time.perf_counter() - start
    progress(Progress(done, seconds, seconds_compile))
    pace = 1
    while done < rounds:
        stop, totals = min((done // eval_every + 1) * eval_every, rounds), simulation.zeros()
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
        messages = jax.tree.map(np.add, messages, _on_host(info.messages))
        taken = int(np.asarray(info.steps, np.int64).sum())
        steps += taken
        yield (
            Snapshot(state, messages),
            _evaluation(
                simulation,
                state,
                messages,
                done,
                steps,
                _per(taken, info.loss),
                _per(taken, info.distillation_loss),
                seconds,
            ),
        )


def _per(steps: int, total: jax.Array) -> float:
    return float(total.sum()) / steps if steps else float("nan")


def _on_host(messages: Traffic) -> Traffic:
    return jax.tree.map(lambda counts: np.asarray(counts, np.int64), messages)


def _evaluation(simulation: Simulation, state, messages, round, steps, loss, distillation_loss, seconds) -> Evaluation:
    measures = simulation.measure(state)
    score = np.asarray(measures.score, np.float64)
    return Evaluation(
        round,
        infer_task(simulation.problem.y).metric,
        score,
        float(measures.ensemble_score),
        float(measures.disagreement),
        loss,
        distillation_loss,
        steps,
        accounting.count(messages, simulation.message_bytes, simulation.problem.network),
        seconds,
    )


def run(
    algorithm: Algorithm, problem: Problem, *, key: jax.Array, rounds: int, eval_every: int
) -> tuple[Any, list[Evaluation]]:
    """Runs an algorithm on a problem to the end; see `iterate` for errors.

    Args:
      algorithm: what to run.
      problem: on what.
      key: of the run.
      rounds: how many.
      eval_every: rounds between two evaluations.

    Returns:
      The last state, and the evaluations: the first before round 1, the last after the last round.
    """
    history = []
    for snapshot, evaluation in iterate(Simulation(algorithm, problem), key=key, rounds=rounds, eval_every=eval_every):
        state = snapshot.state
        history.append(evaluation)
    return state, history
