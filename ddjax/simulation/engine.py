"""Runs an algorithm: one jitted loop over the rounds between two evaluations."""

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import sharding
from ddjax.errors import InputError, NonFiniteError
from ddjax.learning import tasks
from ddjax.simulation import accounting
from ddjax.simulation.accounting import Bytes
from ddjax.simulation.metrics import Measures, evaluate
from ddjax.types import Algorithm, Info, Problem, Traffic

# Seconds of one scan that a live display can wait for; cutting a scan costs next to nothing and changes no number.
_PACE = 0.5


class Snapshot(NamedTuple):
    """What a run needs to go on from.

    Attributes:
      state: the algorithm's.
      messages: `Traffic` of int64 counts since round 0, on the host.
    """

    state: Any
    messages: Traffic


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
    """A compiled algorithm on a problem: compiles once for any number of rounds and runs.

    The device axis is spread over a mesh, here and on other hosts; every process calls the same with the same.

    Args:
      algorithm: what to run; with `numbers`, a function of them that makes it.
      problem: on what; its arrays are copied to where they are needed.
      mesh: of the axis `devices`; all accelerators there are if `None`.
      numbers: a pytree of hyperparameters that are data of the compiled program, as the problem is, so that `on` can
        replace them. On a mesh of several places they are constants.
    """

    def __init__(
        self,
        algorithm: Algorithm | Callable[[Any], Algorithm],
        problem: Problem,
        mesh: jax.sharding.Mesh | None = None,
        numbers: Any = None,
    ):
        self.mesh = mesh or sharding.mesh()
        whole = sharding.replicated(self.mesh)
        self.problem, self.numbers = self._place(problem), numbers
        # What is mapped over several places closes over no traced value.
        constant = self.mesh.size > 1

        def made(traced: Any) -> Algorithm:
            return algorithm if isinstance(algorithm, Algorithm) else algorithm(numbers if constant else traced)

        self.message_bytes = made(numbers).message_bytes(problem)
        with jax.set_mesh(self.mesh):
            state = jax.eval_shape(made(numbers).init, jax.random.key(0), problem)
            self.traced = jax.jit(made(numbers).round).trace(jax.random.key(0), state, problem)
        info = self.traced.out_info[1]
        self.shapes = Snapshot(state, info.messages)
        self.totals: Any = Totals(info, jax.ShapeDtypeStruct(info.loss.shape, bool))  # type: ignore[arg-type]
        self.layout = sharding.stacked(self.mesh, state)
        self._init = jax.jit(lambda key, problem, numbers: made(numbers).init(key, problem), out_shardings=self.layout)
        self._measure = jax.jit(
            lambda state, problem, numbers: evaluate(partial(made(numbers).predict, state), problem),
            out_shardings=whole,
        )

        # How many rounds is data, not shape: no length compiles anew. Donated, the state is updated in place.
        @partial(jax.jit, donate_argnums=(1, 2), out_shardings=(self.layout, whole))
        def advance(key, state, totals, problem, numbers, until):
            algorithm = made(numbers)

            def one(carry):
                state, totals = carry
                state, info = algorithm.round(jax.random.fold_in(key, state.round), state, problem)
                failed = ~jnp.isfinite(info.loss + info.distillation_loss)
                return state, Totals(jax.tree.map(jnp.add, totals.info, info), failed)

            return jax.lax.while_loop(
                lambda carry: (carry[0].round < until) & ~carry[1].failed.any(), one, (state, totals)
            )

        self._advance = advance

        @partial(jax.jit, static_argnums=5)
        def record(key, state, problem, numbers, rounds, measure):
            algorithm = made(numbers)

            def one(carry):
                state, info = algorithm.round(jax.random.fold_in(key, carry[0].round), carry[0], problem)
                return state, jnp.isfinite(info.loss + info.distillation_loss).all()

            def until(carry, round):
                state, sound = jax.lax.while_loop(lambda carry: (carry[0].round < round) & carry[1], one, carry)
                found = jax.tree.map(
                    lambda leaf: jnp.where(sound, leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf,
                    measure(state, problem),
                )
                return (state, sound), found

            (state, _), found = jax.lax.scan(until, (state, jnp.bool_(True)), rounds)
            return state, found

        self._record = record

    def fits(self, problem: Problem) -> bool:
        """Whether a problem has the shapes this was compiled for."""
        shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (problem, self.problem))
        return shapes[0] == shapes[1]

    def on(self, problem: Problem, numbers: Any = None) -> "Simulation":
        """The same compiled programs on another problem, with other numbers.

        Args:
          problem: one that `fits`.
          numbers: as given before, with other values; on several places only the same values.

        Raises:
          ValueError: it does not fit, or its numbers are other constants.
        """
        if not self.fits(problem) or (self.mesh.size > 1 and numbers != self.numbers):
            raise ValueError("a compiled simulation takes problems of its own shapes, and numbers on one place only")
        twin = copy.copy(self)
        twin.problem, twin.numbers = self._place(problem), numbers
        return twin

    def _place(self, tree: Any, layout: Any = None) -> Any:
        """Arrays, the same in every process, as arrays on the mesh."""
        return jax.device_put(tree, layout or sharding.replicated(self.mesh))

    def _stream(self, key: jax.Array, number: int) -> jax.Array:
        """A stream of the run's key, on the mesh."""
        bits = self._place(np.asarray(jax.random.key_data(jax.random.fold_in(key, number))))
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(key))

    def init(self, key: jax.Array) -> Any:
        """The state before the first round."""
        with jax.set_mesh(self.mesh):
            return self._init(self._stream(key, 0), self.problem, self.numbers)

    def measure(self, state: Any) -> Measures:
        """Test and reference measures of a state.

        Raises:
          NonFiniteError: soft decisions that are NaN or infinite; the last step's loss was still fine.
        """
        with jax.set_mesh(self.mesh):
            measures = self._measure(self._place(state, self.layout), self.problem, self.numbers)
        _check_finite(state, measures.finite)
        return measures

    def zeros(self) -> Totals:
        """Totals of no round."""
        return self._place(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.totals))

    def advance(self, key: jax.Array, state: Any, totals: Totals, until: int) -> tuple[Any, Totals]:
        """Runs rounds up to `until` (counted from the start of the run); state and totals are consumed.

        Round `t` (from 0) uses `fold_in(fold_in(key, 1), t)`, so that no number depends on where a run is cut.

        Returns:
          The state, and the totals with these rounds added.

        Raises:
          NonFiniteError: a loss is NaN or infinite; raised after that very round.
        """
        state = self._place(state, self.layout)
        with jax.set_mesh(self.mesh):
            key = self._stream(key, 1)
            state, totals = self._advance(key, state, totals, self.problem, self.numbers, np.int32(until))
        _check_finite(state, ~totals.failed)
        return state, totals

    def record(
        self, key: jax.Array, state: Any, rounds: Any, measure: Callable[[Any, Problem], Any]
    ) -> tuple[Any, Any]:
        """Runs on and measures, all in one compiled loop, with the numbers of `advance`.

        Where a loss is no longer finite it stops, and what is measured from then on is NaN.

        Args:
          key: of the run.
          state: as `init` or `advance` gave it.
          rounds: `[T]`, increasing.
          measure: `(state, problem)` to a pytree; the same function is compiled once.

        Returns:
          The state in the last round, and what was measured in each, stacked `[T, …]`.
        """
        state = self._place(state, self.layout)
        with jax.set_mesh(self.mesh):
            key, rounds = self._stream(key, 1), self._place(np.asarray(rounds, np.int32))
            return self._record(key, state, self.problem, self.numbers, rounds, measure)


def _check_finite(state: Any, finite: jax.Array) -> None:
    if not finite.all():
        raise NonFiniteError(int(state.round), int(finite.argmin()))


def evaluations(
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
        tasks.of(simulation.problem.y).metric,
        score,
        float(measures.ensemble_score),
        float(measures.disagreement),
        loss,
        distillation_loss,
        steps,
        accounting.count(messages, simulation.message_bytes, len(score), simulation.problem.network),
        seconds,
    )


def run(
    algorithm: Algorithm, problem: Problem, *, key: jax.Array, rounds: int, eval_every: int
) -> tuple[Any, list[Evaluation]]:
    """Runs to the end; the final state and the history. See `evaluations`."""
    history = []
    for snapshot, evaluation in evaluations(
        Simulation(algorithm, problem), key=key, rounds=rounds, eval_every=eval_every
    ):
        state = snapshot.state
        history.append(evaluation)
    return state, history
