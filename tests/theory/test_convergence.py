"""What is measured of convergence, against closed forms and loops."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.optimize
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from small import make_distillation, make_learners, matrix_of

import ddjax
from ddjax.data.synthetic import synthetic_regression
from ddjax.learning import losses, tasks
from ddjax.models import build_model
from ddjax.networks import build_topology
from ddjax.theory import convergence, endpoint, least_squares, least_squares_rates, rates
from ddjax.theory.examination import examine_devices

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(5)
DEVICES = 6


def regression(spec="ring", devices=DEVICES, **arguments):
    dataset = synthetic_regression(0, devices, 150, 60, 4, 0.1, 1.0)
    matrix = matrix_of(build_topology(spec, devices, product="dense").network)
    return ddjax.make_problem(dataset, matrix, partition="iid", reference_size=30, **arguments)


def linear_learners(problem, weight, rate, devices=DEVICES):
    model = build_model("linear", problem.x.shape[1:], 1)
    learner = ddjax.supervised_learner(model, optax.sgd(rate), task=tasks.REGRESSION, distillation_weight=weight)
    return ddjax.Population([ddjax.Group(learner, devices)], batch_size=0)


# Closed forms.


def test_the_stationary_point_is_that_of_a_generic_solver_and_of_the_paper(float64):
    """The joint objective `Σ_n [‖A_n θ_n − y_n‖²/m_n + ρ/R ‖X θ_n − X θ̄‖²]`, minimized by SciPy's BFGS from zero."""
    problem, weight = regression(), 0.7
    equations = least_squares.normal_equations(problem, 1)
    uniform = np.full((DEVICES, DEVICES), 1 / DEVICES)
    found = least_squares.resting_point(equations, weight, uniform)
    x, y, reference = (np.asarray(a, float) for a in (problem.x, problem.y, problem.reference))
    own = [np.asarray(rows)[:size] for rows, size in zip(problem.private_indices, problem.private_counts, strict=True)]

    def features(a):
        return np.hstack([a, np.ones((len(a), 1))])

    def objective(flat):
        theta = flat.reshape(DEVICES, -1)
        s = features(reference) @ theta.T
        private = sum(np.mean((features(x[rows]) @ t - y[rows, 0]) ** 2) for rows, t in zip(own, theta, strict=True))
        return private + weight * ((s - s.mean(1, keepdims=True)) ** 2).sum() / len(reference)

    solved = scipy.optimize.minimize(objective, np.zeros(found.size), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(found.ravel(), solved.x, atol=2e-5)
    np.testing.assert_allclose(found, least_squares.co_regularized(equations, weight), rtol=1e-8)


def test_without_weight_devices_are_alone_and_with_all_weight_they_agree(float64):
    problem = regression()
    equations = least_squares.normal_equations(problem, 1)
    uniform = np.full((DEVICES, DEVICES), 1 / DEVICES)
    alone = least_squares.resting_point(equations, 1e-12, uniform)
    for n in range(DEVICES):
        rows = np.asarray(problem.private_indices[n, : problem.private_counts[n]])
        a = np.hstack([np.asarray(problem.x)[rows], np.ones((len(rows), 1))])
        np.testing.assert_allclose(alone[n], np.linalg.lstsq(a, np.asarray(problem.y)[rows])[0], rtol=1e-8)
    agreed = least_squares.resting_point(equations, 1e9, uniform)
    x = np.hstack([np.asarray(problem.reference), np.ones((30, 1))])
    s = x @ agreed[..., 0].T
    np.testing.assert_allclose(s, np.broadcast_to(s.mean(1, keepdims=True), s.shape), atol=1e-7)
    agreed = least_squares.resting_point(equations, 1e7, uniform)  # beyond 1e8, rounding errors dominate
    np.testing.assert_allclose(agreed, least_squares.averaged(equations), rtol=2e-6)  # so parameters agree as well


@pytest.mark.parametrize("consensus", ["gradient", "neighbors", "tracking"])
def test_targets_follow_as_predicted(consensus):
    """The recursion of `z` with soft decisions that stand still, iterated."""
    matrix = matrix_of(build_topology("ring", 7, product="dense").network)
    s = np.random.default_rng(0).normal(size=(7, 3))
    z, previous = np.zeros((7, 3)), np.zeros((7, 3))
    for _ in range(3000):
        if consensus == "gradient":
            z = matrix @ z + 0.3 * (s - z)
        elif consensus == "tracking":
            z, previous = matrix @ (z + s - previous), s
        else:
            z = matrix @ s
    np.testing.assert_allclose(least_squares.follows(consensus, matrix, 0.3) @ s, z, atol=1e-10)


def test_gradients_are_those_of_the_normal_equations(float64):
    """`2 [(H_n + ρ G) θ_n − A_nᵀ y_n / m_n − ρ Xᵀ z_n / R]` on unequal devices, and `step` follows them."""
    problem, weight = regression(), 0.7
    dataset = synthetic_regression(0, DEVICES, 150, 60, 4, 0.1, 1.0)
    problem = ddjax.make_problem(dataset, problem.network, partition="quantity", reference_size=30)
    assert np.ptp(problem.private_counts) > 0
    population = linear_learners(problem, weight, 1.0)
    devices = population.init(KEY)
    targets = np.random.default_rng(1).normal(size=(DEVICES, 30, 1))
    values, (found,) = convergence.gradients(population, devices, problem, jnp.asarray(targets))
    equations = least_squares.normal_equations(problem, 1)
    theta = np.asarray(convergence.coefficients(devices))
    x = np.hstack([np.asarray(problem.reference), np.ones((30, 1))])
    expected = 2 * (
        (equations.own + weight * equations.shared) @ theta
        - equations.sides
        - weight * np.einsum("rp,nrk->npk", x, targets) / 30
    )
    np.testing.assert_allclose(found["dense"]["kernel"][:, 0], expected[:, :-1, 0], rtol=1e-8)
    np.testing.assert_allclose(found["dense"]["bias"][:, 0], expected[:, -1, 0], rtol=1e-8)
    moved, phase = population.train(KEY, jnp.int32(0), devices, problem, problem.reference, jnp.asarray(targets))
    jax.tree.map(
        lambda new, old, gradient: np.testing.assert_allclose(new, old - gradient, rtol=1e-8, atol=1e-12),
        moved[0].params,
        devices[0].params,
        found,
    )
    np.testing.assert_allclose(values, phase.loss + weight * phase.distillation_loss, rtol=1e-10)


def test_quantities_of_distillation_against_a_loop(problem):
    """Classes, squared distance: one device after another, with JAX's gradient of the formula itself."""
    population = make_learners(distillation_weight=2.0)
    simulation = ddjax.Simulation(make_distillation(population), problem)
    state, _ = simulation.advance(KEY, simulation.init(KEY), simulation.zeros(), 5)
    found = convergence.measure_distillation(population, state, problem)
    s = np.asarray(population.predict(state.devices, problem.reference))
    z = np.asarray(state.estimate)
    mean = s.mean(0)
    np.testing.assert_allclose(found.consensus_error, ((z - mean) ** 2).sum(-1).mean(-1), rtol=1e-5)
    objectives = []
    for n in range(population.size):
        rows = problem.private_indices[n, : problem.private_counts[n]]
        params = jax.tree.map(lambda leaf, n=n: leaf[n], state.devices[0].params)
        kernel, bias = params["dense"]["kernel"], params["dense"]["bias"]

        def objective(kernel, bias, target, rows=rows):
            def log_s(x):
                return jax.nn.log_softmax(x.reshape(len(x), -1) @ kernel.T + bias)

            own = -log_s(problem.x[rows])[jnp.arange(len(rows)), problem.y[rows]].mean()
            return own + 2.0 * losses.squared_euclidean(log_s(problem.reference), target).mean()

        for target, norms in ((mean, found.gradient_norm_sq), (z[n], found.own_gradient_norm_sq)):
            gradient = jax.jit(jax.grad(objective, (0, 1)))(kernel, bias, target)
            np.testing.assert_allclose(norms[n], sum((g**2).sum() for g in gradient), rtol=1e-4)
        objectives.append(objective(kernel, bias, mean))
    np.testing.assert_allclose(found.objective, np.mean(objectives), rtol=1e-5)


def few_examples():
    """Two examples a device of ten dimensions: not even all of them determine a model."""
    dataset = synthetic_regression(0, DEVICES, 40, 20, 30, 0.1, 1.0)
    matrix = matrix_of(build_topology("complete", DEVICES, product="dense").network)
    return ddjax.make_problem(dataset, matrix, partition="iid", examples_per_device=2, reference_size=10)


def test_distance_counts_what_the_data_determine_and_nothing_else():
    """Moving devices within the null space of the joint Hessian is no distance; along another direction it is."""
    equations = least_squares.normal_equations(few_examples(), 1)
    solution = least_squares.co_regularized(equations, 0.7)
    directions = least_squares.determined(equations, 0.7)
    size = solution.size
    centre = np.eye(DEVICES) - 1 / DEVICES
    hessian = np.kron(centre.T @ centre, 2 * 0.7 * equations.shared) + 2 * scipy.linalg.block_diag(*equations.own)
    assert directions.shape == (size, np.linalg.matrix_rank(hessian))
    assert directions.shape[1] < size
    null = scipy.linalg.null_space(hessian, rcond=1e-10)
    moved = solution + (null @ np.random.default_rng(0).normal(size=null.shape[1])).reshape(solution.shape)
    assert least_squares.distance(moved[None], solution, directions)[0] < 1e-9
    away = solution + 0.1 * directions[:, 0].reshape(solution.shape)
    projected = np.linalg.norm(directions.T @ solution.ravel())
    assert least_squares.distance(away[None], solution, directions)[0] == pytest.approx(0.1 / projected)


def test_distance_of_averaging_counts_what_all_data_together_determine():
    """A device off in a direction that its own data do not see, but others' do, is off."""
    equations = least_squares.normal_equations(few_examples(), 1)
    common = least_squares.averaged(equations)
    directions = least_squares.determined_together(equations)
    own_null = scipy.linalg.null_space(equations.own[0], rcond=1e-10)
    seen = own_null @ (own_null.T @ directions[:, -1])
    moved = common.copy()
    moved[0, :, 0] += seen
    assert np.linalg.norm(seen) > 0.1
    expected = np.linalg.norm(directions.T @ seen) / np.sqrt(DEVICES) / np.linalg.norm(directions.T @ common[0])
    assert least_squares.distance(moved[None], common, directions)[0] == pytest.approx(expected)


@pytest.mark.parametrize("consensus", ["tracking", "gradient", "neighbors"])
def test_the_slowest_direction_shrinks_by_the_factor_said(consensus):
    """The recursion of coefficients as a loop in NumPy, on a ring, until one direction is left."""
    problem, weight, zeta = regression(), 0.7, 0.05
    equations = least_squares.normal_equations(problem, 1)
    matrix = matrix_of(build_topology("ring", DEVICES, product="dense").network)
    eigenvalues = np.linalg.eigvalsh(matrix)
    curvatures, pull = least_squares_rates.curvatures(equations, weight)
    eta = rates.step_size(curvatures, pull, eigenvalues, consensus, zeta)
    factor = least_squares_rates.factor(equations, weight, eta, consensus, matrix, zeta)
    follows = least_squares.follows(consensus, matrix, zeta)
    rest = least_squares.resting_point(equations, weight, follows)[..., 0]
    theta = np.random.default_rng(0).normal(size=rest.shape)
    z = previous = np.zeros_like(theta)
    sizes = []
    for _ in range(6000):
        target = matrix @ theta if consensus == "neighbors" else z
        step = np.einsum("npq,nq->np", equations.own, theta) - equations.sides[..., 0]
        step += weight * (theta - target) @ equations.shared
        if consensus == "gradient":
            z = matrix @ z + zeta * (theta - z)
        else:
            z, previous = matrix @ (z + theta - previous), theta
        theta = theta - 2 * eta * step
        sizes.append(np.linalg.norm(theta - rest))
    late = next(t for t, size in enumerate(sizes) if size < 1e-11)
    measured = np.log(sizes[late] / sizes[late - 200]) / 200
    assert np.log(factor) == pytest.approx(measured, rel=0.01)


def test_quantities_of_averaging_are_those_of_the_mean_loss(float64):
    problem = regression()
    population = linear_learners(problem, 0.0, 0.05)
    algorithm = ddjax.dsgd(population, ddjax.weighted_average())
    simulation = ddjax.Simulation(algorithm, problem)
    state, _ = simulation.advance(KEY, simulation.init(KEY), simulation.zeros(), 7)
    found = convergence.measure_averaging(population, state, problem)
    equations = least_squares.normal_equations(problem, 1)
    theta = np.asarray(convergence.coefficients(state.devices))
    mean = theta.mean(0)
    gradient = 2 * (equations.own.mean(0) @ mean - equations.sides.mean(0))
    np.testing.assert_allclose(found.gradient_norm_sq, np.full(DEVICES, (gradient**2).sum()), rtol=1e-8)
    np.testing.assert_allclose(found.consensus_error, ((theta - mean) ** 2).sum((1, 2)), rtol=1e-8)


def test_targets_that_no_device_keeps_are_those_of_the_mixer(problem):
    """`neighbors` of `W s`, server distillation of the average itself; of any other mixer nothing is said."""
    population = make_learners(distillation_weight=2.0)
    algorithm = ddjax.distillation(population, ddjax.weighted_average(), reference_batch_size=5, consensus="neighbors")
    state = algorithm.init(KEY, problem)
    s = np.asarray(population.predict(state.devices, problem.reference))
    weights = np.asarray(problem.network.dense())
    found = convergence.measure_distillation(population, state, problem, ddjax.weighted_average())
    expected = ((np.einsum("nm,mrk->nrk", weights, s) - s.mean(0)) ** 2).sum(-1).mean(-1)
    np.testing.assert_allclose(found.consensus_error, expected, rtol=1e-4)
    served = convergence.measure_distillation(population, state, problem, ddjax.server())
    np.testing.assert_allclose(served.consensus_error, 0, atol=1e-12)
    np.testing.assert_allclose(served.own_gradient_norm_sq, served.gradient_norm_sq, rtol=1e-5)
    unknown = convergence.measure_distillation(population, state, problem)
    assert np.isnan(unknown.consensus_error).all()
    assert np.isnan(unknown.own_gradient_norm_sq).all()
    np.testing.assert_array_equal(unknown.gradient_norm_sq, found.gradient_norm_sq)


@pytest.mark.slow
def test_a_mixed_network_is_measured_device_by_device(problem):
    """Two architectures, unequal data: every device alone, with the learner's own loss on its own examples."""
    groups = []
    for name, count in (("linear", DEVICES // 2), ("mlp", DEVICES - DEVICES // 2)):
        model = build_model(name, problem.x.shape[1:], int(problem.y.max()) + 1)
        learner = ddjax.supervised_learner(model, optax.sgd(0.1), distillation_weight=2.0, temperature=2.0)
        groups.append(ddjax.Group(learner, count))
    population = ddjax.Population(groups, batch_size=4)
    algorithm = ddjax.distillation(population, ddjax.weighted_average(), reference_batch_size=5)
    state = algorithm.init(KEY, problem)
    found = convergence.measure_distillation(population, state, problem)
    mean = population.predict(state.devices, problem.reference).mean(0)
    n = 0
    for group, devices in zip(groups, state.devices, strict=True):
        for member in range(group.size):
            params = jax.tree.map(lambda leaf, member=member: leaf[member], devices.params)
            rows = problem.private_indices[n, : problem.private_counts[n]]
            batch = problem.x[rows], problem.y[rows], None
            gradient = jax.jit(jax.grad(group.learner.objective))(params, batch, problem.reference, mean)
            norm = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient))
            assert found.gradient_norm_sq[n] == pytest.approx(norm, rel=1e-4)
            n += 1


def test_recording_stops_where_a_loss_is_no_longer_finite(problem):
    population = make_learners(optimizer=optax.sgd(float("nan")))
    simulation = ddjax.Simulation(make_distillation(population), problem)
    rounds = [1, 10, 1000]
    state, found = simulation.record(KEY, simulation.init(KEY), rounds, lambda state, problem: jnp.float32(state.round))
    assert np.isnan(found).tolist() == [False, True, True]
    assert state.round < 10


def test_recording_changes_no_number(problem):
    simulation = ddjax.Simulation(make_distillation(make_learners()), problem)

    def measure(state, problem):
        return state.round, state.estimate.sum()

    state, (rounds, sums) = simulation.record(KEY, simulation.init(KEY), [1, 4, 9], measure)
    assert rounds.tolist() == [1, 4, 9]
    for round, total in zip((1, 4, 9), sums, strict=True):
        expected, _ = simulation.advance(KEY, simulation.init(KEY), simulation.zeros(), round)
        assert total == expected.estimate.sum()
    jax.tree.map(np.testing.assert_array_equal, state, expected)


# End points.


def test_minima_and_saddles_are_told_apart(float64):
    scales = jnp.array([5.0, 1.0, 0.5])
    bowl = endpoint.examine(lambda p: (scales * p["w"] ** 2).sum() / 2 + 1, {"w": jnp.zeros(3)})
    assert bowl.verdict == "minimum"
    assert bowl.smallest == pytest.approx(0.5, rel=1e-6)
    assert bowl.largest == pytest.approx(5.0, rel=1e-6)
    signs = jnp.array([5.0, 1.0, -0.5])
    pass_ = endpoint.examine(lambda p: (signs * p**2).sum() / 2 + (p**4).sum() + 1, jnp.full(3, 1e-4))
    assert pass_.verdict == "saddle"
    assert pass_.smallest == pytest.approx(-0.5, rel=1e-4)
    assert 0.8 / 64 < pass_.escape <= 1 / 64  # the minimum of −x²/4 + x⁴
    slope = endpoint.examine(lambda p: (scales * p**2).sum() / 2 + 1, jnp.full(3, 2.0))
    assert slope.verdict == "undecided"
    bent = endpoint.examine(lambda p: (signs * p**2).sum() / 2 + 1e4 * (p**4).sum() + 1, jnp.full(3, 1e-6))
    assert bent.smallest < -bent.uncertainty
    assert bent.verdict == "undecided"  # nothing to gain by leaving


def test_no_verdict_without_knowledge(float64):
    """Where Lanczos has not found the one negative eigenvalue, where nothing is finite, where all is flat."""
    curvatures = jnp.ones(400).at[17].set(-0.5)

    def loss(p):
        return (curvatures * p**2).sum() / 2 + 1

    start = jnp.zeros(400)
    assert endpoint.examine(loss, start).smallest == pytest.approx(-0.5, rel=1e-6)
    with pytest.MonkeyPatch.context() as patched:
        error = scipy.sparse.linalg.ArpackNoConvergence("", [], [])
        patched.setattr(scipy.sparse.linalg, "eigsh", lambda *_, **__: (_ for _ in ()).throw(error))
        lost = endpoint.examine(loss, start)
    assert (lost.verdict, lost.uncertainty) == ("undecided", np.inf)
    for broken in (lambda p: loss(p) * jnp.nan, lambda p: 0.0 * p.sum()):
        assert endpoint.examine(broken, start).verdict == "undecided"
    steep = jnp.array([1000.0, 1.0, -0.9])  # below a thousandth of the largest, but much to gain by it
    shelf = endpoint.examine(lambda p: (steep * p**2).sum() / 2 + (p**4).sum() + 1, jnp.zeros(3))
    assert shelf.verdict == "undecided"


def test_curvature_of_a_network_is_that_of_its_whole_hessian(float64):
    """Regularized loss of an MLP's device, all layers with their own VJPs, against JAX's dense Hessian."""
    problem = regression()
    model = build_model("mlp", problem.x.shape[1:], 1)
    learner = ddjax.supervised_learner(model, optax.sgd(0.1), task=tasks.REGRESSION, distillation_weight=2.0)
    population = ddjax.Population([ddjax.Group(learner, DEVICES)], batch_size=0)
    algorithm = ddjax.distillation(population, ddjax.weighted_average(), reference_batch_size=30)
    state = algorithm.init(KEY, problem)
    ends = examine_devices(population, state, problem, convergence.measure_distillation, 2)
    assert len(ends) == 2
    mean = population.predict(state.devices, problem.reference).mean(0)
    for n, end in enumerate(ends):
        params = jax.tree.map(lambda leaf, n=n: leaf[n], state.devices[0].params)
        flat, unravel = ravel_pytree(params)
        rows = problem.private_indices[n, : problem.private_counts[n]]

        def loss(flat, rows=rows, unravel=unravel):
            def f(x):
                return learner.predict(ddjax.Device(unravel(flat), ()), x)

            own = ((f(problem.x[rows]) - problem.y[rows]) ** 2).sum(-1).mean()
            return own + 2.0 * ((f(problem.reference) - mean) ** 2).sum(-1).mean()

        gradient = jax.grad(loss)
        curvatures = np.linalg.eigvalsh(np.array(jax.jit(jax.jacrev(gradient))(flat)))
        assert end.largest == pytest.approx(curvatures[-1], rel=1e-4)
        assert end.smallest == pytest.approx(curvatures[0], abs=1e-4 * curvatures[-1])
        assert end.uncertainty < 1e-3 * curvatures[-1]
        assert end.gradient_norm == pytest.approx(np.linalg.norm(gradient(flat)), rel=1e-8)
        assert end.loss == pytest.approx(float(loss(flat)), rel=1e-10)


def test_the_mean_model_is_examined_where_parameters_are_averaged(float64):
    problem = regression()
    population = linear_learners(problem, 0.0, 0.05)
    simulation = ddjax.Simulation(ddjax.dsgd(population, ddjax.weighted_average()), problem)
    state, _ = simulation.advance(KEY, simulation.init(KEY), simulation.zeros(), 3)
    (end,) = examine_devices(population, state, problem, convergence.measure_averaging, 4)
    curvatures = 2 * np.linalg.eigvalsh(least_squares.normal_equations(problem, 1).own.mean(0))
    assert (end.smallest, end.largest) == pytest.approx((curvatures[0], curvatures[-1]), rel=1e-4)
    found = convergence.measure_averaging(population, state, problem)
    assert end.gradient_norm**2 == pytest.approx(float(found.gradient_norm_sq[0]), rel=1e-8)
