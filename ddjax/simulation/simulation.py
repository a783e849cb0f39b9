"""Algorithm that is compiled for a problem: one jitted loop over the rounds between two evaluations."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import forms, sharding
from ddjax.errors import DivergedError
from ddjax.examples import place_problem
from ddjax.simulation.metrics import Measures, evaluate
from ddjax.simulation.watch import Watch, begin
from ddjax.stacked import shapes
from ddjax.types import Algorithm, Info, Problem, Traffic


class Totals(NamedTuple):
    """Sums over rounds.

    Attributes:
      info: sum of `Info`.
      watch: watch on the private losses in all rounds of a run.
      failed: `[N]` whether each device had diverged after the last round.
    """

    info: Info
    watch: Watch
    failed: jax.Array

    def after(self, info: Info) -> "Totals":
        """Return the totals with one more round."""
        watch = self.watch.follow(info)
        failed = ~jnp.isfinite(info.loss + info.distillation_loss) | watch.diverged
        return Totals(jax.tree.map(jnp.add, self.info, info), watch, failed)


class Snapshot(NamedTuple):
    """State from which a run continues.

    Attributes:
      state: state of the algorithm.
      messages: `Traffic` of int64 counts from round 0 to the last evaluation, on the host.
      totals: totals over the rounds since that evaluation.
      seconds_train: seconds of training rounds, as in `Evaluation`.
    """

    state: Any
    messages: Traffic
    totals: Totals
    seconds_train: float


class Simulation:
    """Algorithm that is compiled for a problem, once for any number of rounds and runs.

    The device axis is spread over a mesh, which may span several hosts. Every process must make the same calls with the
    same arguments.

    Args:
      algorithm: algorithm to run, or a function that makes the algorithm from `hyperparameters`.
      problem: problem on which to run the algorithm; its arrays are copied to the accelerators that need them. A
        problem that holds shapes (`jax.ShapeDtypeStruct`) instead of data is enough to `lower` programs.
      mesh: mesh with the axis `devices`; `None` for all accelerators.
      hyperparameters: pytree of numbers. On one shard, they are inputs of the compiled program, like the problem, so
        that `with_problem` can replace them. On a mesh of several shards, they are constants of the program.

    Raises:
      InputError: if the algorithm refuses the problem.

    Examples:
      >>> simulation, key = ddjax.Simulation(algorithm, problem), jax.random.key(0)
      >>> state = simulation.init(key)
      >>> state, totals = simulation.advance(key, state, simulation.begin(state), until=20)
      >>> int(state.round), simulation.measure(state).score.shape
      (20, (4,))
    """

    def __init__(
        self,
        algorithm: Algorithm | Callable[[Any], Algorithm],
        problem: Problem,
        mesh: jax.sharding.Mesh | None = None,
        hyperparameters: Any = None,
    ):
        self.mesh = mesh or sharding.mesh()
        self._algorithm, self.hyperparameters = algorithm, hyperparameters
        made = self._make(hyperparameters)
        made.check(problem)
        self.message_bytes = made.message_bytes(problem)
        key = jax.eval_shape(jax.random.key, 0)
        with jax.set_mesh(self.mesh):
            state = jax.eval_shape(made.init, key, shapes(problem))
        self._groups = _group_sizes(state, problem)
        self.problem = place_problem(problem, self.mesh, self._groups)
        with jax.set_mesh(self.mesh):
            self.traced = jax.jit(self._make(hyperparameters).round).trace(key, state, shapes(self.problem))
        info = self.traced.out_info[1]
        failed: Any = jax.ShapeDtypeStruct(info.loss.shape, bool)
        totals = Totals(info, Watch(info.loss, info.loss), failed)
        self.shapes = Snapshot(state, info.messages, totals, 0.0)
        self.layout = sharding.stacked(self.mesh, state)
        self._compile()

    def _make(self, traced: Any) -> Algorithm:
        """Make the algorithm with these hyperparameters, inside or outside a compiled program."""
        if isinstance(self._algorithm, Algorithm):
            return self._algorithm
        # A function that is mapped over several shards must not close over a traced value.
        return self._algorithm(self.hyperparameters if self.mesh.size > 1 else traced)

    def _compile(self) -> None:
        make, layout, whole = self._make, self.layout, sharding.replicated(self.mesh)

        def init(key, problem, hyperparameters):
            return make(hyperparameters).init(key, problem)

        def measure(state, problem, hyperparameters):
            return evaluate(partial(make(hyperparameters).predict, state), problem)

        def watch(state, problem, hyperparameters):
            return begin(partial(make(hyperparameters).predict, state), problem)

        def advance(key, state, totals, problem, hyperparameters, until):
            algorithm = make(hyperparameters)

            def one(carry):
                state, totals = carry
                state, info = algorithm.round(jax.random.fold_in(key, state.round), state, problem)
                return state, totals.after(info)

            return jax.lax.while_loop(
                lambda carry: (carry[0].round < until) & ~carry[1].failed.any(), one, (state, totals)
            )

        def record(key, state, problem, hyperparameters, rounds, measure):
            algorithm = make(hyperparameters)

            def one(carry):
                state, watch, _ = carry
                state, info = algorithm.round(jax.random.fold_in(key, state.round), state, problem)
                watch = watch.follow(info)
                sound = jnp.isfinite(info.loss + info.distillation_loss).all() & ~watch.diverged.any()
                return state, watch, sound

            def until(carry, round):
                carry = jax.lax.while_loop(lambda carry: (carry[0].round < round) & carry[2], one, carry)
                state, _, sound = carry
                found = jax.tree.map(
                    lambda leaf: jnp.where(sound, leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf,
                    measure(state, problem),
                )
                return carry, found

            carry = state, begin(partial(algorithm.predict, state), problem), jnp.bool_(True)
            (state, _, _), found = jax.lax.scan(until, carry, rounds)
            return state, found

        self._init = jax.jit(init, out_shardings=layout)
        self._measure = jax.jit(measure, out_shardings=whole)
        self._watch = jax.jit(watch, out_shardings=whole)
        # The number of rounds is an input, so a run of another length needs no new compilation. The state is donated,
        # so it is updated in place.
        self._advance = jax.jit(
            advance,
            donate_argnums=(1, 2),
            out_shardings=(layout, whole),
            compiler_options=forms.loop_options(sharding.platform(self.mesh)),
        )
        self._record = jax.jit(record, static_argnums=5)

    def fits(self, problem: Problem) -> bool:
        """Decide whether a problem, once placed on the mesh, has the shapes for which this simulation was compiled."""
        held = {"private_indices": problem.private_indices, "private_counts": problem.private_counts}
        described = shapes(problem)._replace(**held if self.mesh.size > 1 else {})
        return shapes(place_problem(described, self.mesh, self._groups)) == shapes(self.problem)

    def with_problem(self, problem: Problem, hyperparameters: Any = None) -> "Simulation":
        """Apply the same compiled programs to another problem, with other hyperparameters.

        Args:
          problem: problem that `fits`.
          hyperparameters: pytree with the structure of the present hyperparameters. On one shard, its values may
            differ from the present values; on several shards, they must be the same.

        Raises:
          ValueError: if the problem does not fit, or if hyperparameters that are constants differ.
          InputError: if the algorithm refuses the problem.
        """
        placed = place_problem(problem, self.mesh, self._groups)
        if shapes(placed) != shapes(self.problem) or (self.mesh.size > 1 and hyperparameters != self.hyperparameters):
            raise ValueError(
                "a compiled simulation takes only problems with the shapes for which it was compiled, and it takes "
                "other hyperparameters only on a single shard"
            )
        self._make(hyperparameters).check(problem)
        twin = copy.copy(self)
        twin.problem, twin.hyperparameters = placed, hyperparameters
        return twin

    def _place(self, tree: Any, layout: Any = None) -> Any:
        """Place arrays, which are the same in every process, on the mesh."""
        return sharding.place(tree, layout or sharding.replicated(self.mesh))

    def _stream(self, key: jax.Array, number: int) -> jax.Array:
        """Derive a random stream from the key of the run, on the mesh."""
        bits = self._place(np.asarray(jax.random.key_data(jax.random.fold_in(key, number))))
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(key))

    def lower(self, what: str = "advance") -> jax.stages.Lowered:
        """Lower a compiled program from shapes alone.

        Nothing is computed, so the accelerators need not be present.

        Args:
          what: `advance`, the loop over rounds, or `measure`, an evaluation.
        """
        state = self._place(self.shapes.state, self.layout)
        with jax.set_mesh(self.mesh):
            if what == "measure":
                return self._measure.lower(state, self.problem, self.hyperparameters)
            key, totals = self._place((jax.eval_shape(jax.random.key, 0), self.shapes.totals))
            until = self._place(jax.ShapeDtypeStruct((), np.int32))
            return self._advance.lower(key, state, totals, self.problem, self.hyperparameters, until)

    def init(self, key: jax.Array) -> Any:
        """Compute the state before the first round."""
        with jax.set_mesh(self.mesh):
            state = self._init(self._stream(key, 0), self.problem, self.hyperparameters)
        return self._place(self._make(self.hyperparameters).start(state, self.problem), self.layout)

    def measure(self, state: Any) -> Measures:
        """Measure a state on the test set and the reference set.

        Raises:
          DivergedError: if soft decisions are NaN or infinite although the last loss was finite.
        """
        with jax.set_mesh(self.mesh):
            measures = self._measure(self._place(state, self.layout), self.problem, self.hyperparameters)
        if not measures.finite.all():
            raise DivergedError(int(state.round), int(measures.finite.argmin()))
        return measures

    def zeros(self) -> Totals:
        """Return the totals before any round, with a watch that accepts any finite loss."""
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.shapes.totals)
        return self._place(zeros._replace(watch=zeros.watch._replace(start=zeros.watch.start + np.inf)))

    def begin(self, state: Any) -> Totals:
        """Return the totals before any round, with a watch on the private losses; see `Watch`.

        Args:
          state: state before the first round.
        """
        with jax.set_mesh(self.mesh):
            watch = self._watch(self._place(state, self.layout), self.problem, self.hyperparameters)
        return self.zeros()._replace(watch=watch)

    def advance(self, key: jax.Array, state: Any, totals: Totals, until: int) -> tuple[Any, Totals]:
        """Run rounds up to `until`, counted from the start of the run; state and totals are consumed.

        Round `t` (from 0) uses `fold_in(fold_in(key, 1), t)`, so no result depends on where a run is interrupted.

        Returns:
          The state, and the totals with these rounds added.

        Raises:
          DivergedError: if a loss is NaN or infinite, or a private loss is far above its value at the start; the error
            is raised after the round in which the run diverges.
        """
        state = self._place(state, self.layout)
        with jax.set_mesh(self.mesh):
            key = self._stream(key, 1)
            state, totals = self._advance(key, state, totals, self.problem, self.hyperparameters, np.int32(until))
        if totals.failed.any():
            device = int(totals.failed.argmax())
            level, start = float(totals.watch.level[device]), float(totals.watch.start[device])
            raise DivergedError(int(state.round), device, *((level, start) if np.isfinite(level) else ()))
        return state, totals

    def record(
        self, key: jax.Array, state: Any, rounds: Any, measure: Callable[[Any, Problem], Any]
    ) -> tuple[Any, Any]:
        """Run rounds and measure along the way, all in one compiled loop, with the hyperparameters of `advance`.

        If a device diverges, the run stops, and all later measures are NaN.

        Args:
          key: key of the run.
          state: state from `init` or `advance`.
          rounds: `[T]` increasing numbers of rounds after which to measure.
          measure: function `(state, problem)` that returns a pytree; each function is compiled once.

        Returns:
          The state in the last round, and the measures of all rounds, stacked `[T, …]`.
        """
        with jax.set_mesh(self.mesh):
            return self._record(*self._to_record(key, state, rounds), measure)

    def compile_record(self, key: jax.Array, state: Any, rounds: Any, measure: Callable[[Any, Problem], Any]) -> None:
        """Compile the loop of `record` for these arguments, so that `record` itself only runs the loop."""
        with jax.set_mesh(self.mesh):
            self._record.lower(*self._to_record(key, state, rounds), measure).compile()

    def _to_record(self, key: jax.Array, state: Any, rounds: Any) -> tuple:
        """Place the arguments of the loop of `record`."""
        placed = self._place(state, self.layout)
        rounds = self._place(np.asarray(rounds, np.int32))
        return self._stream(key, 1), placed, self.problem, self.hyperparameters, rounds


def _group_sizes(state: Any, problem: Problem) -> list[int]:
    """Return the number of devices of each architecture, in the order of the groups, from the shapes of a state.

    If the state does not distinguish architectures, there is one number for all devices.
    """
    sizes = [jax.tree.leaves(stacked)[0].shape[0] for stacked in getattr(state, "devices", ())]
    devices = len(problem.private_indices)
    return sizes if sum(sizes) == devices else [devices]
