"""FedProx, SCAFFOLD and co-regularized least squares with a server: loops over devices in NumPy, and limit cases."""

import jax
import numpy as np
import pytest
from loops import Drawn, local_pair, numpy_step, with_bias
from small import CLASSES, DEVICES, DIMENSIONS, RATE, close, make_learners, rounds, small_problem

import ddjax
from ddjax.errors import InputError
from ddjax.learning import draw, round_keys
from ddjax.theory import least_squares
from ddjax.types import Traffic

KEY = jax.random.key(7)  # of `rounds`
STEPS, PROXIMAL, SERVER = 3, 0.7, 0.6
PARAMETERS = (DIMENSIONS + 1) * CLASSES


def gradient(pair, rows, x, y):
    """Gradient of softmax regression as a vector: kernel first, then bias."""
    stepped = numpy_step(*pair, x[rows], y[rows], x[:1], None)[:2]
    return np.concatenate([((old - new) / RATE).ravel() for old, new in zip(pair, stepped, strict=True)])


def pair(flat):
    return flat[: CLASSES * DIMENSIONS].reshape(CLASSES, DIMENSIONS), flat[CLASSES * DIMENSIONS :]


def vector(params):
    """Unstacked parameters as a vector, in the order of `gradient`."""
    return np.concatenate([part.ravel() for part in local_pair(params)])


def drawn_rounds(problem, count):
    """For each round, the half of the devices that the server draws, and their minibatches."""
    for t in range(count):
        key = jax.random.fold_in(KEY, t)
        drawn = Drawn(key, problem, STEPS)
        yield [(n, drawn.private[n]) for n in np.asarray(draw(round_keys(key).mix, DEVICES, DEVICES // 2))]


def test_fedprox_is_the_algorithm_box_in_numpy(problem):
    algorithm = ddjax.fedprox(make_learners(local_steps=STEPS), fraction=0.5, proximal_weight=PROXIMAL)
    state, states = rounds(algorithm, problem, 10)
    x, y, sizes = np.asarray(problem.x, float), np.asarray(problem.y), np.asarray(problem.private_counts)
    server = vector(states[0].params)
    for clients in drawn_rounds(problem, 10):
        results = []
        for _, batches in clients:
            theta = server
            for rows in batches:
                theta = theta - RATE * (gradient(pair(theta), rows, x, y) + PROXIMAL * (theta - server))
            results.append(theta)
        share = np.array([sizes[n] for n, _ in clients])
        server = (share / share.sum()) @ results
    close(vector(state.params), server, 1e-4)


def test_fedprox_without_a_proximal_term_is_fedavg_to_the_bit(problem):
    population = make_learners(local_steps=STEPS)
    plain, none = (
        rounds(algorithm, problem, 10)[0].params
        for algorithm in (
            ddjax.fedavg(population, fraction=0.5),
            ddjax.fedprox(population, fraction=0.5, proximal_weight=0.0),
        )
    )
    jax.tree.map(np.testing.assert_array_equal, plain, none)


def test_scaffold_is_the_algorithm_box_in_numpy(problem):
    algorithm = ddjax.scaffold(make_learners(local_steps=STEPS), fraction=0.5, server_step_size=SERVER)
    state, states = rounds(algorithm, problem, 10)
    x, y = np.asarray(problem.x, float), np.asarray(problem.y)
    server = vector(states[0].params)
    control, own = np.zeros_like(server), np.zeros((DEVICES, len(server)))
    for clients in drawn_rounds(problem, 10):
        moves, changes = [], []
        for n, batches in clients:
            theta = server
            for rows in batches:
                theta = theta - RATE * (gradient(pair(theta), rows, x, y) - own[n] + control)
            new = own[n] - control + (server - theta) / (STEPS * RATE)  # option II
            moves.append(theta - server)
            changes.append(new - own[n])
            own[n] = new
        server = server + SERVER * np.mean(moves, 0)
        control = control + len(clients) / DEVICES * np.mean(changes, 0)
    close(vector(state.params), server, 1e-4)
    close(vector(state.control), control, 1e-4)
    close(
        np.array([vector(jax.tree.map(lambda leaf, n=n: leaf[n], state.controls)) for n in range(DEVICES)]), own, 1e-4
    )
    close(control, own.mean(0), 1e-6)


def test_scaffold_with_one_step_on_all_examples_is_gradient_descent_on_the_mean_loss(problem):
    state, states = rounds(ddjax.scaffold(make_learners(batch_size=0)), problem, 10)
    x, y = np.asarray(problem.x, float), np.asarray(problem.y)
    theta = vector(states[0].params)
    for _ in range(10):
        own = [
            gradient(pair(theta), np.asarray(rows)[:size], x, y)
            for rows, size in zip(problem.private_indices, problem.private_counts, strict=True)
        ]
        theta = theta - RATE * np.mean(own, 0)
    close(vector(state.params), theta, 1e-5)


def test_scaffold_sends_parameters_and_a_control_variate_both_ways(problem):
    algorithm = ddjax.scaffold(make_learners(), fraction=0.5)
    messages = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)[1].messages
    sizes, message = algorithm.message_bytes(problem), "parameters and control variate"
    assert sizes.up == sizes.down == {message: 2 * 4 * PARAMETERS}
    assert messages.up[message].sum() == messages.down[message].sum() == DEVICES // 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ddjax.fedprox(make_learners(), proximal_weight=-1.0), "proximal_weight must be at least 0"),
        (lambda: ddjax.fedprox(make_learners(), fraction=2.0, proximal_weight=1.0), "must lie in"),
        (lambda: ddjax.fedprox(make_learners(("linear", "mlp")), proximal_weight=1.0), "fedprox shares parameters"),
        (lambda: ddjax.scaffold(make_learners(("linear", "mlp"))), "scaffold shares parameters"),
        (lambda: ddjax.scaffold(make_learners(), server_step_size=-1.0), "server_step_size must be at least 0"),
        (lambda: ddjax.corlsr(make_learners(("mlp",)), distillation_weight=1.0), "use --models=linear"),
        (lambda: ddjax.corlsr(make_learners(size=1), distillation_weight=1.0), "at least two devices"),
        (lambda: ddjax.corlsr(make_learners(), distillation_weight=1.0, ridge=-1.0), "ridge must be at least 0"),
    ],
)
def test_what_these_refuse(make, message):
    with pytest.raises(InputError, match=message):
        make()


# Co-regularized least squares


def parts(problem):
    """Inputs of each device, their one-hot targets, and the reference inputs; inputs have a column of ones."""
    x, targets = with_bias(np.asarray(problem.x, float)), np.eye(CLASSES)[np.asarray(problem.y)]
    held = [np.asarray(r)[:n] for r, n in zip(problem.private_indices, problem.private_counts, strict=True)]
    return [x[rows] for rows in held], [targets[rows] for rows in held], with_bias(np.asarray(problem.reference, float))


def test_co_regularization_with_a_ridge_solves_the_sums_of_the_paper():
    """Brefeld et al. (2006): sums over examples and pairs of equally large devices, as one dense system."""
    problem, weight, ridge = small_problem(partition="iid", examples_per_device=16), 2.0, 0.3
    inputs, targets, reference = parts(problem)
    held = len(inputs[0])
    assert {len(rows) for rows in inputs} == {held}
    theirs, pairs = held * ridge, weight * held / (2 * DEVICES * len(reference))
    features = DIMENSIONS + 1
    matrix, side = np.zeros((DEVICES * features, DEVICES * features)), np.zeros((DEVICES * features, CLASSES))
    blocks = [slice(n * features, (n + 1) * features) for n in range(DEVICES)]
    for n, block in enumerate(blocks):
        matrix[block, block] += inputs[n].T @ inputs[n] + theirs * np.eye(features)
        side[block] = inputs[n].T @ targets[n]
        for other in blocks:  # every ordered pair, those of a device with itself are zero
            for a, b, sign in ((block, block, 1), (other, other, 1), (block, other, -1), (other, block, -1)):
                matrix[a, b] += sign * pairs * reference.T @ reference
    expected = np.linalg.solve(matrix, side).reshape(DEVICES, features, CLASSES)
    algorithm = ddjax.co_regularization(make_learners(), distillation_weight=weight, ridge=ridge)
    state = algorithm.start(algorithm.init(KEY, problem), problem)
    close(state.coefficients, expected, 1e-5)
    plain = ddjax.co_regularization(make_learners(), distillation_weight=weight)
    assert np.abs(plain.start(plain.init(KEY, problem), problem).coefficients - expected).max() > 1e-2


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_corlsr_converges_to_co_regularization_at_the_rate_of_its_iteration(ridge):
    with jax.enable_x64(True):
        problem, weight = small_problem(), 1.0
        assert len(set(np.asarray(problem.private_counts))) > 1
        algorithm = ddjax.corlsr(make_learners(), distillation_weight=weight, ridge=ridge)
        state = algorithm.start(algorithm.init(KEY, problem), problem)
        final, states = rounds(algorithm, problem, 400, state=state)
    equations = least_squares.ridged(least_squares.normal_equations(problem, CLASSES), ridge)
    solution = least_squares.co_regularized(equations, weight)
    np.testing.assert_allclose(final.coefficients, solution, atol=1e-6)
    inputs, _, reference = parts(problem)
    gram, features = reference.T @ reference / len(reference), DIMENSIONS + 1
    iteration = np.zeros((DEVICES * features, DEVICES * features))
    for n in range(DEVICES):
        own = inputs[n].T @ inputs[n] / len(inputs[n]) + ridge * np.eye(features) + weight * (1 - 1 / DEVICES) * gram
        for m in set(range(DEVICES)) - {n}:
            block = np.ix_(range(n * features, (n + 1) * features), range(m * features, (m + 1) * features))
            iteration[block] = np.linalg.solve(own, weight / DEVICES * gram)
    rate = np.abs(np.linalg.eigvals(iteration)).max()
    assert 0 < rate < 1
    error = np.array([np.linalg.norm(np.asarray(s.coefficients) - solution) for s in states])
    late = np.flatnonzero((error < 1e-3 * error[0]) & (error > 1e-8 * error[0]))
    measured = (error[late[-1]] / error[late[0]]) ** (1 / (late[-1] - late[0]))
    assert measured == pytest.approx(rate, abs=2e-3)


def test_a_round_of_corlsr_is_a_loop_in_which_each_device_hears_the_others(problem):
    weight, ridge = 1.5, 0.1
    algorithm = ddjax.corlsr(make_learners(), distillation_weight=weight, ridge=ridge)
    state, states = rounds(algorithm, problem, 3, state=algorithm.start(algorithm.init(KEY, problem), problem))
    inputs, targets, reference = parts(problem)
    pulled = weight * (1 - 1 / DEVICES) / len(reference)

    def solve(n, others):
        own = inputs[n].T @ inputs[n] / len(inputs[n]) + ridge * np.eye(DIMENSIONS + 1)
        side = inputs[n].T @ targets[n] / len(inputs[n]) + pulled * reference.T @ others
        return np.linalg.solve(own + pulled * reference.T @ reference, side)

    theta = [solve(n, np.zeros((len(reference), CLASSES))) for n in range(DEVICES)]
    close(states[0].coefficients, np.array(theta), 1e-4)
    for _ in range(3):
        sent = [reference @ coefficients for coefficients in theta]
        theta = [solve(n, np.mean([sent[m] for m in range(DEVICES) if m != n], 0)) for n in range(DEVICES)]
    close(state.coefficients, np.array(theta), 1e-4)
    messages = algorithm.round(KEY, state, problem)[1].messages
    assert messages.up["predictions"].tolist() == messages.down["mean"].tolist() == [1] * DEVICES
    size = 4 * len(reference) * CLASSES
    assert algorithm.message_bytes(problem) == Traffic(up={"predictions": size}, down={"mean": size})
