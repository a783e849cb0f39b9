"""Runs of a simulation, with evaluations along the way."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ddjax.errors import InputError
from ddjax.learning import infer_task
from ddjax.simulation import accounting
from ddjax.simulation.accounting import Bytes
from ddjax.simulation.simulation import Simulation, Snapshot
from ddjax.types import Algorithm, Info, Problem, Traffic

# Seconds after which a live display should be updated; stopping the loop over rounds for an update costs next to
# nothing and changes no number.
_PACE = 0.5


class Evaluation(NamedTuple):
    """Measures of a run at one round.

    Attributes:
      round: number of rounds done.
      metric: name of the metric: `accuracy`, or `mse`, the mean of `‖f(x) − y‖²`.
      score: `[N]` metric of each device on the test set.
      ensemble_score: metric of the mean soft decision.
      disagreement: mean over devices and reference examples of `‖s_n(x) − s̄(x)‖²`.
      loss: private loss, averaged over the optimizer steps since the last evaluation; NaN without such steps.
      distillation_loss: divergence from the targets, averaged in the same way.
      steps: number of optimizer steps of all devices since round 0.
      bytes: exact traffic since round 0.
      seconds_train: seconds spent on training rounds since the run began, without compilation and evaluation.
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
    """Progress that a live display shows; see `iterate`.

    Attributes:
      round: number of rounds done.
      seconds_train: seconds spent on training rounds, as in `Evaluation`.
      seconds_compile: seconds spent on compiling the loop over rounds.
      seconds_evaluate: seconds of the evaluation at the start, without compilation; 0 if the run was resumed.
    """

    round: int
    seconds_train: float
    seconds_compile: float
    seconds_evaluate: float = 0.0


def iterate(
    simulation: Simulation,
    *,
    key: jax.Array,
    rounds: int,
    eval_every: int,
    resume: tuple[Snapshot, Evaluation] | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Snapshot, Evaluation]]:
    """Yield a snapshot and an evaluation at the start, after every `eval_every` rounds, and after the last round.

    The arrays of a snapshot are consumed when the iteration continues; use or copy them before that.

    Args:
      simulation: simulation to run.
      key: key of the run; see `Simulation.advance`.
      rounds: number of rounds of the whole run.
      eval_every: number of rounds between two evaluations.
      resume: snapshot and last evaluation from which to continue instead of round 0; they are yielded first.
      progress: function that is called with the `Progress` about every half second of training.
      interrupted: function that is called as often as `progress`. If it returns true in any process, the iteration
        yields one more snapshot, with the latest evaluation, and ends.

    Raises:
      InputError: if `rounds` is negative or `eval_every` is below 1.
      DivergedError: if a loss or a soft decision is not finite, or a private loss is far above its value at the start;
        see `Watch`.

    Examples:
      >>> simulation = ddjax.Simulation(algorithm, problem)
      >>> for snapshot, evaluation in ddjax.iterate(simulation, key=jax.random.key(0), rounds=20, eval_every=10):
      ...     print(evaluation.round, evaluation.score.shape, evaluation.bytes.total)
      0 (4,) 0
      10 (4,) 5760
      20 (4,) 11520
    """
    if rounds < 0 or eval_every < 1:
        raise InputError(f"rounds must be at least 0 and eval_every at least 1, got {rounds} and {eval_every}")
    seconds_evaluate = 0.0
    if resume is None:
        state = simulation.init(key)
        totals = simulation.begin(state)
        messages = _on_host(totals.info.messages)
        simulation.lower("measure").compile()
        start = time.perf_counter()
        last = _evaluation(simulation, state, messages, None, 0, None, 0.0)
        seconds_evaluate = time.perf_counter() - start
        snapshot = Snapshot(state, messages, totals, 0.0)
    else:
        snapshot, last = resume
    yield snapshot, last
    state, messages, totals, seconds = snapshot
    done = int(state.round)
    if done >= rounds:
        return
    start = time.perf_counter()
    state, totals = simulation.advance(key, state, totals, done)  # runs no round, only compiles
    seconds_compile = time.perf_counter() - start
    progress(Progress(done, seconds, seconds_compile, seconds_evaluate))
    pace = 1
    while done < rounds:
        stop = min((last.round // eval_every + 1) * eval_every, rounds)
        while done < stop:
            until, ended = _agreed(min(done + pace, stop), interrupted())
            if ended:
                yield Snapshot(state, messages, totals, seconds), last
                return
            start = time.perf_counter()
            state, totals = simulation.advance(key, state, totals, until)
            elapsed = time.perf_counter() - start
            seconds += elapsed
            pace = 2 * (until - done) if elapsed < _PACE else max(1, (until - done) // 2)
            done = until
            progress(Progress(done, seconds, seconds_compile, seconds_evaluate))
        messages = jax.tree.map(np.add, messages, _on_host(totals.info.messages))
        last = _evaluation(simulation, state, messages, totals.info, done, last, seconds)
        totals = simulation.zeros()._replace(watch=totals.watch)
        yield Snapshot(state, messages, totals, seconds), last


def _agreed(until: int, ended: bool) -> tuple[int, bool]:
    """Let all processes, which have clocks and signals of their own, agree on the next stop and on whether to end."""
    if jax.process_count() == 1:
        return until, ended
    every = multihost_utils.process_allgather(np.array([until, ended], np.int32))
    return int(every[0, 0]), bool(every[:, 1].any())


def _per(steps: int, total: Any) -> float:
    return float(total.sum()) / steps if steps else float("nan")


def _on_host(messages: Traffic) -> Traffic:
    return jax.tree.map(lambda counts: np.asarray(counts, np.int64), messages)


def _evaluation(
    simulation: Simulation,
    state: Any,
    messages: Traffic,
    info: Info | None,
    round: int,
    last: Evaluation | None,
    seconds: float,
) -> Evaluation:
    """Evaluate a state; `info` is the sum over the rounds since the last evaluation."""
    measures = simulation.measure(state)
    taken = int(np.asarray(info.steps, np.int64).sum()) if info else 0
    return Evaluation(
        round,
        infer_task(simulation.problem.y).metric,
        np.asarray(measures.score, np.float64),
        float(measures.ensemble_score),
        float(measures.disagreement),
        _per(taken, info and info.loss),
        _per(taken, info and info.distillation_loss),
        taken + (last.steps if last else 0),
        accounting.count(messages, simulation.message_bytes, simulation.problem.network),
        seconds,
    )


def run(
    algorithm: Algorithm, problem: Problem, *, key: jax.Array, rounds: int, eval_every: int
) -> tuple[Any, list[Evaluation]]:
    """Run an algorithm on a problem to the end.

    Args:
      algorithm: algorithm to run.
      problem: problem on which to run the algorithm.
      key: key of the run.
      rounds: number of rounds.
      eval_every: number of rounds between two evaluations.

    Returns:
      The last state, and the evaluations: the first before round 1, the last after the last round.

    Raises:
      InputError: if a number is out of bounds, as in `iterate`, or if the algorithm refuses the problem.
      DivergedError: if the run diverges, as in `iterate`.

    Examples:
      >>> state, history = ddjax.run(algorithm, problem, key=jax.random.key(0), rounds=20, eval_every=10)
      >>> [(evaluation.round, evaluation.bytes.total) for evaluation in history]  # 18 floats over 8 links per round
      [(0, 0), (10, 5760), (20, 11520)]
    """
    history = []
    for snapshot, evaluation in iterate(Simulation(algorithm, problem), key=key, rounds=rounds, eval_every=eval_every):
        state = snapshot.state
        history.append(evaluation)
    return state, history
