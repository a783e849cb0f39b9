"""A compiled algorithm on a problem: one jitted loop over the rounds between two evaluations."""

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
      info: `Info`, summed.
      watch: on the private losses, over all rounds of a run.
      failed: `[N]` devices that had diverged after the last round.
    """

    info: Info
    watch: Watch
    failed: jax.Array

    def after(self, info: Info) -> "Totals":
        """With one more round."""
        watch = self.watch.follow(info)
        failed = ~jnp.isfinite(info.loss + info.distillation_loss) | watch.diverged
        return Totals(jax.tree.map(jnp.add, self.info, info), watch, failed)


class Snapshot(NamedTuple):
    """What a run needs to go on from.

    Attributes:
      state: the algorithm's.
      messages: `Traffic` of int64 counts from round 0 to the last evaluation, on the host.
      totals: over the rounds since then.
      seconds_train: spent in training rounds, as in `Evaluation`.
    """

    state: Any
    messages: Traffic
    totals: Totals
    seconds_train: float


class Simulation:
    """A compiled algorithm on a problem: compiles once for any number of rounds and runs.

    The device axis is spread over a mesh, here and on other hosts. Every process must make the same calls with the same
    arguments.

    Args:
      algorithm: what to run; with `hyperparameters`, a function of them that makes it.
      problem: on what; its arrays are copied to where they are needed. Of data that are not there it has shapes
        (`jax.ShapeDtypeStruct`), which is enough to `lower` programs.
      mesh: with the axis `devices`; all accelerators there are if `None`.
      hyperparameters: a pytree of numbers that are data of the compiled program, as the problem is, so that
        `with_problem` can replace them. On a mesh of several shards they are constants.

    Raises:
      InputError: the algorithm refuses the problem.
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
        """The algorithm with these hyperparameters, inside or outside a compiled program."""
        if isinstance(self._algorithm, Algorithm):
            return self._algorithm
        # What is mapped over several shards closes over no traced value.
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
        # How many rounds is data, not shape: no length compiles anew. Donated, the state is updated in place.
        self._advance = jax.jit(
            advance,
            donate_argnums=(1, 2),
            out_shardings=(layout, whole),
            compiler_options=forms.loop_options(sharding.platform(self.mesh)),
        )
        self._record = jax.jit(record, static_argnums=5)

    def fits(self, problem: Problem) -> bool:
        """Whether a problem has the shapes this was compiled for, as it lies on the mesh."""
        held = {"private_indices": problem.private_indices, "private_counts": problem.private_counts}
        described = shapes(problem)._replace(**held if self.mesh.size > 1 else {})
        return shapes(place_problem(described, self.mesh, self._groups)) == shapes(self.problem)

    def with_problem(self, problem: Problem, hyperparameters: Any = None) -> "Simulation":
        """Applies the same compiled programs to another problem, with other hyperparameters.

        Args:
          problem: one that `fits`.
          hyperparameters: as given before, with other values; on several shards only the same values.

        Raises:
          ValueError: it does not fit, or its hyperparameters are other constants.
          InputError: the algorithm refuses the problem.
        """
        placed = place_problem(problem, self.mesh, self._groups)
        if shapes(placed) != shapes(self.problem) or (self.mesh.size > 1 and hyperparameters != self.hyperparameters):
            raise ValueError(
                "a compiled simulation takes problems of its own shapes, and other hyperparameters on one shard only"
            )
        self._make(hyperparameters).check(problem)
        twin = copy.copy(self)
        twin.problem, twin.hyperparameters = placed, hyperparameters
        return twin

    def _place(self, tree: Any, layout: Any = None) -> Any:
        """Arrays, the same in every process, as arrays on the mesh."""
        return sharding.place(tree, layout or sharding.replicated(self.mesh))

    def _stream(self, key: jax.Array, number: int) -> jax.Array:
        """A stream of the run's key, on the mesh."""
        bits = self._place(np.asarray(jax.random.key_data(jax.random.fold_in(key, number))))
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(key))

    def lower(self, what: str = "advance") -> jax.stages.Lowered:
        """Lowers a compiled program by shapes alone: nothing is made or run, so the accelerators need not be there.

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
        """The state before the first round."""
        with jax.set_mesh(self.mesh):
            state = self._init(self._stream(key, 0), self.problem, self.hyperparameters)
        return self._place(self._make(self.hyperparameters).start(state, self.problem), self.layout)

    def measure(self, state: Any) -> Measures:
        """Test and reference measures of a state.

        Raises:
          DivergedError: soft decisions that are NaN or infinite; the last step's loss was still fine.
        """
        with jax.set_mesh(self.mesh):
            measures = self._measure(self._place(state, self.layout), self.problem, self.hyperparameters)
        if not measures.finite.all():
            raise DivergedError(int(state.round), int(measures.finite.argmin()))
        return measures

    def zeros(self) -> Totals:
        """Totals of no round, where finite losses of any size are taken."""
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.shapes.totals)
        return self._place(zeros._replace(watch=zeros.watch._replace(start=zeros.watch.start + np.inf)))

    def begin(self, state: Any) -> Totals:
        """Totals of no round, which watch over the private losses; see `Watch`.

        Args:
          state: before the first round.
        """
        with jax.set_mesh(self.mesh):
            watch = self._watch(self._place(state, self.layout), self.problem, self.hyperparameters)
        return self.zeros()._replace(watch=watch)

    def advance(self, key: jax.Array, state: Any, totals: Totals, until: int) -> tuple[Any, Totals]:
        """Runs rounds up to `until` (counted from the start of the run); state and totals are consumed.

        Round `t` (from 0) uses `fold_in(fold_in(key, 1), t)`, so that no number depends on where a run is cut.

        Returns:
          The state, and the totals with these rounds added.

        Raises:
          DivergedError: a loss is NaN or infinite, or far above where it began; raised after that very round.
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
        """Runs on and measures, all in one compiled loop, with the hyperparameters of `advance`.

        Where a device diverges it stops, and what is measured from then on is NaN.

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
            return self._record(key, state, self.problem, self.hyperparameters, rounds, measure)


def _group_sizes(state: Any, problem: Problem) -> list[int]:
    """Numbers of devices of one architecture in order, by the shapes of a state; all where it does not say."""
    sizes = [jax.tree.leaves(stacked)[0].shape[0] for stacked in getattr(state, "devices", ())]
    devices = len(problem.private_indices)
    return sizes if sum(sizes) == devices else [devices]
