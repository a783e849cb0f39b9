"""The engine: nothing a run reports depends on where it is cut, and a loss that is not finite stops it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import CLASSES, DIMENSIONS, make_distillation, make_learners, small_problem

import ddjax
from ddjax import sharding
from ddjax.errors import InputError
from ddjax.simulation import memory
from ddjax.simulation.checkpoint import Checkpoints
from ddjax.simulation.metrics import evaluate

KEY = jax.random.key(11)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def results(evaluation):
    """What must not depend on the clock."""
    return evaluation._replace(seconds_train=0.0)


@pytest.mark.parametrize("consensus", ["gradient", "tracking", "neighbors"])
def test_a_run_cut_in_two_is_the_same_to_the_bit(problem, consensus):
    algorithm = make_distillation(make_learners(), consensus)
    simulation = ddjax.Simulation(algorithm, problem)
    whole, totals = simulation.advance(KEY, simulation.init(KEY), simulation.zeros(), 20)
    first, so_far = simulation.advance(KEY, simulation.init(KEY), simulation.zeros(), 7)
    second, both = simulation.advance(KEY, first, so_far, 20)
    equal(whole, second)
    equal(totals, both)


def test_a_resumed_run_is_the_same_to_the_bit(problem, tmp_path):
    algorithm = make_distillation(make_learners(optimizer=optax.adam(0.01)), "tracking")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    kwargs = {"key": KEY, "rounds": 30, "eval_every": 10}
    history = []
    for snapshot, evaluation in ddjax.iterate(ddjax.Simulation(algorithm, problem), **kwargs):
        history.append(results(evaluation))
        if evaluation.round == 10:
            checkpoints.save(snapshot, evaluation)
            checkpoints.save(snapshot, evaluation)  # once more does no harm
    resume = Checkpoints(tmp_path / "checkpoints").restore(ddjax.Simulation(algorithm, problem))
    resumed = list(ddjax.iterate(ddjax.Simulation(algorithm, problem), resume=resume, **kwargs))
    for (_, evaluation), before in zip(resumed, history[1:], strict=True):
        equal(results(evaluation), before)
    equal(resumed[-1][0]._replace(seconds_train=0.0), snapshot._replace(seconds_train=0.0))


def test_an_interrupted_run_goes_on_between_two_evaluations_to_the_bit(problem, tmp_path):
    """Whenever it is interrupted, and again and again."""
    algorithm = make_distillation(make_learners(optimizer=optax.adam(0.01)), "tracking")
    simulation, kwargs = ddjax.Simulation(algorithm, problem), {"key": KEY, "rounds": 30, "eval_every": 10}
    *_, (whole, _) = undisturbed = [(_copied(s), e) for s, e in ddjax.iterate(simulation, **kwargs)]
    resume, found, rounds = None, [], []
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    while not rounds or rounds[-1] < 30:
        asked = itertools.count()
        run = ddjax.iterate(simulation, resume=resume, interrupted=lambda asked=asked: next(asked) == 2, **kwargs)
        for each in run:
            snapshot, evaluation = each
            if not found or evaluation.round > found[-1].round:
                found.append(evaluation)
        rounds.append(int(snapshot.state.round))
        checkpoints.save(snapshot, evaluation)
        resume = checkpoints.restore(simulation)
    assert any(round % 10 for round in rounds)
    equal(snapshot._replace(seconds_train=0.0), whole._replace(seconds_train=0.0))
    for evaluation, (_, before) in zip(found, undisturbed, strict=True):
        equal(results(evaluation), results(before))


def _copied(snapshot):
    return jax.tree.map(np.array, snapshot)


def test_the_rounds_do_not_depend_on_the_evaluations(problem):
    algorithm = make_distillation(make_learners())
    (a, every), (b, rare) = (ddjax.run(algorithm, problem, key=KEY, rounds=12, eval_every=n) for n in (5, 12))
    equal(a, b)
    assert [e.round for e in every] == [0, 5, 10, 12]
    assert [e.round for e in rare] == [0, 12]
    assert np.average([e.loss for e in every[1:]], weights=[5, 5, 2]) == pytest.approx(rare[1].loss, rel=1e-6)
    assert rare[1].steps == 12 * 6


def test_one_compilation_for_any_number_of_rounds(problem):
    algorithm = make_distillation(make_learners())
    traces = []

    def counted(key, state, problem):
        traces.append(1)
        return algorithm.round(key, state, problem)

    ddjax.run(algorithm._replace(round=counted), problem, key=KEY, rounds=23, eval_every=5)
    assert len(traces) == 2  # of the loop, and for the shapes of what it counts


def test_bytes_are_exact_integers():
    """Directed edges × rounds × payload, past what 32 bits hold."""
    problem = small_problem("star")
    algorithm = make_distillation(make_learners())
    algorithm = algorithm._replace(message_bytes=lambda problem: ddjax.Traffic({"value": 10**12 + 1}))
    _, history = ddjax.run(algorithm, problem, key=KEY, rounds=3, eval_every=2)
    center = 5 * 3 * (10**12 + 1)
    assert history[-1].bytes.sent == history[-1].bytes.received == (center, *[center // 5] * 5)
    assert history[-1].bytes.busiest_link == center // 5
    payload = make_distillation(make_learners()).message_bytes(problem)
    assert payload.peer == {"value": 5 * CLASSES * 4}
    shared = ddjax.dsgd(make_learners(), ddjax.weighted_average()).message_bytes(problem)
    assert shared.peer == {"value": (DIMENSIONS * CLASSES + CLASSES) * 4}


def test_a_loss_that_is_not_finite_stops_the_run_in_its_round(problem):
    algorithm = make_distillation(make_learners())
    poisoned = problem._replace(x=problem.x.at[problem.private_indices[4, : problem.private_counts[4]]].set(jnp.nan))

    def breaks_in_round_6(key, state, problem):
        good, bad = algorithm.round(key, state, problem), algorithm.round(key, state, poisoned)
        return jax.tree.map(lambda g, b: jnp.where(state.round == 5, b, g), good, bad)

    simulation = ddjax.Simulation(algorithm._replace(round=breaks_in_round_6), problem)
    run = ddjax.iterate(simulation, key=KEY, rounds=50, eval_every=4)
    assert [next(run)[1].round, next(run)[1].round] == [0, 4]
    with pytest.raises(ddjax.DivergedError) as error:
        next(run)
    assert (error.value.round, error.value.device) == (6, 4)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_loss_far_above_where_it_began_is_divergence_in_its_round(problem, steps):
    """One bad round is none, a run that has blown up is; the smoothing in NumPy, a step at a time."""
    algorithm = make_distillation(make_learners(local_steps=steps))
    simulation = ddjax.Simulation(algorithm, problem)
    start = simulation.begin(simulation.init(KEY)).watch.start[4]
    losses = np.array([1, 500 / steps, 2, *[60] * 40])  # per step, times the start

    def blows_up(key, state, problem):
        state, info = algorithm.round(key, state, problem)
        loss = jnp.asarray(losses)[state.round - 1] * start * steps
        return state, info._replace(loss=info.loss.at[4].set(loss))

    levels = [1.0]
    for loss in np.repeat(losses, steps):
        levels.append(0.95 * levels[-1] + 0.05 * loss)
    expected = 1 + int(np.argmax(np.array(levels[steps::steps]) > 30))
    assert 3 < expected < 30
    simulation = ddjax.Simulation(algorithm._replace(round=blows_up), problem)
    for rounds in (30, 43):
        run = ddjax.iterate(simulation, key=KEY, rounds=rounds, eval_every=50)
        next(run)
        with pytest.raises(ddjax.DivergedError, match="but was") as error:
            next(run)
        assert (error.value.round, error.value.device) == (expected, 4)


def test_a_recording_stops_where_a_run_diverges(problem):
    algorithm = make_distillation(make_learners())

    def blows_up(key, state, problem):
        state, info = algorithm.round(key, state, problem)
        return state, info._replace(loss=jnp.where(state.round > 5, 1e6, info.loss))

    simulation = ddjax.Simulation(algorithm._replace(round=blows_up), problem)
    state, found = simulation.record(
        KEY, simulation.init(KEY), [4, 5, 8, 12], lambda state, problem: jnp.float32(state.round)
    )
    assert state.round == 6
    np.testing.assert_array_equal(found, [4, 5, np.nan, np.nan])


@pytest.mark.parametrize("program", ["record", "measure"])
def test_a_program_that_was_compiled_is_not_compiled_again(problem, program, caplog):
    """So that the time that it takes does not include compilation."""
    simulation = ddjax.Simulation(make_distillation(make_learners(("linear",))), problem)
    state = simulation.init(KEY)

    def measure(state, problem):
        return state.round

    with jax.log_compiles():
        if program == "record":
            simulation.compile_record(KEY, state, [1, 2], measure)
        else:
            simulation.lower("measure").compile()
        compiled = f"XLA compilation of jit({program})"
        assert compiled in caplog.text
        caplog.clear()
        simulation.record(KEY, state, [1, 2], measure) if program == "record" else simulation.measure(state)
        assert compiled not in caplog.text


def test_measures_against_numpy():
    problem = small_problem()
    population = make_learners(("linear", "mlp"))
    devices = population.init(KEY)
    measures = evaluate(lambda x: population.predict(devices, x), problem)
    s = np.asarray(population.predict(devices, problem.x_test))
    hits = s.argmax(-1) == np.asarray(problem.y_test)
    np.testing.assert_allclose(measures.score, hits.mean(1))
    assert measures.ensemble_score == pytest.approx((s.mean(0).argmax(-1) == problem.y_test).mean())
    r = np.asarray(population.predict(devices, problem.reference))
    assert measures.disagreement == pytest.approx(((r - r.mean(0)) ** 2).sum(-1).mean(), rel=1e-5)


def test_measures_do_not_depend_on_the_blocks(monkeypatch):
    problem, population = small_problem(), make_learners()
    devices = population.init(KEY)
    whole = evaluate(lambda x: population.predict(devices, x), problem)
    monkeypatch.setattr("ddjax.simulation.metrics._BLOCK", 1)  # blocks of 16, which do not divide 60
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        whole,
        evaluate(lambda x: population.predict(devices, x), problem),
    )


def test_no_rounds_leave_the_first_state(problem):
    state, history = ddjax.run(make_distillation(make_learners()), problem, key=KEY, rounds=0, eval_every=1)
    assert [e.round for e in history] == [0]
    assert np.isfinite(state.estimate).all()


def test_a_state_made_outside_jit_can_be_advanced(problem):
    algorithm = make_distillation(make_learners(), "tracking")
    simulation = ddjax.Simulation(algorithm, problem)
    state, _ = simulation.advance(KEY, algorithm.init(KEY, problem), simulation.zeros(), 1)
    assert int(state.round) == 1


def test_bad_lengths_are_refused(problem):
    with pytest.raises(InputError, match="eval_every"):
        ddjax.run(make_distillation(make_learners()), problem, key=KEY, rounds=3, eval_every=0)


def test_other_numbers_do_not_compile_anew(problem):
    """A sweep over step sizes and weights is one program, with the numbers of separate runs."""
    traces = []

    def after_five_rounds(rate, weight, step_size):
        population = make_learners(optimizer=optax.sgd(rate), distillation_weight=weight)
        algorithm = make_distillation(population, step=step_size)
        traces.append(1)
        state = algorithm.init(KEY, problem)
        return jax.lax.fori_loop(0, 5, lambda t, s: algorithm.round(jax.random.fold_in(KEY, t), s, problem)[0], state)

    swept = jax.jit(after_five_rounds)
    for values in ((0.1, 1.0, 0.3), (0.05, 3.0, 0.2)):
        expected = after_five_rounds(*values)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), swept(*values), expected)
    assert len(traces) == 3  # one of the program, two of the runs it is compared with


def test_a_compiled_simulation_takes_other_problems_and_hyperparameters(problem):
    """Nothing is traced anew, and the numbers are those of a simulation made for them."""
    traces = []

    def make(numbers):
        if isinstance(numbers["rate"], jax.core.Tracer):
            traces.append(numbers)
        population = make_learners(optimizer=optax.sgd(numbers["rate"]), distillation_weight=numbers["weight"])
        return make_distillation(population)

    def loss(simulation):
        _, totals = simulation.advance(KEY, simulation.init(KEY), simulation.zeros(), 5)
        return np.append(totals.info.loss, simulation.measure(simulation.init(KEY)).score)

    alone = sharding.mesh(jax.devices()[:1])
    first, other = {"rate": 0.1, "weight": 1.0}, {"rate": 0.3, "weight": 5.0}
    simulation = ddjax.Simulation(make, problem, alone, first)
    before, count = loss(simulation), len(traces)
    moved = problem._replace(x=problem.x + 1)
    twin = simulation.with_problem(moved, other)
    found = loss(twin)
    assert len(traces) == count
    np.testing.assert_array_equal(found, loss(ddjax.Simulation(make, moved, alone, other)))
    np.testing.assert_array_equal(before, loss(simulation))
    assert not np.allclose(before[:6], found[:6])
    larger = problem._replace(x=jnp.concatenate([problem.x, problem.x]))
    assert simulation.fits(moved)
    assert not simulation.fits(larger)
    assert not simulation.fits(small_problem(product="gather"))
    with pytest.raises(ValueError, match="the shapes for which it was compiled"):
        simulation.with_problem(larger, first)


def test_memory_is_counted_from_shapes(problem):
    population = make_learners()
    simulation = ddjax.Simulation(make_distillation(population), problem)
    least, peak = memory.estimate(simulation)
    state = simulation.init(KEY)
    held = (simulation.problem, state, simulation.zeros())
    assert least == sum(leaf.nbytes for leaf in jax.tree.leaves(held))
    # At its peak a round holds at least the soft decisions it mixes and their mixture.
    assert peak > least + 2 * 6 * 5 * CLASSES * 4
    assert memory.available() > peak
