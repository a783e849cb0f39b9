"""The newer baselines that mix parameters over a graph: loops over devices in NumPy, limit cases, refusals."""

import jax
import networkx as nx
import numpy as np
import optax
import pytest
from loops import Drawn, numpy_step
from pooled import distance, regression
from small import CLASSES, DEVICES, DIMENSIONS, RATE, close, compressor, make_learners, rounds, small_problem

import ddjax
from ddjax.algorithms import ALGORITHMS
from ddjax.errors import InputError
from ddjax.experiments import Settings, build
from ddjax.experiments.usage import resolve, used
from ddjax.mixing.gossip import gossip
from ddjax.networks import build_graph, build_topology

KEY = jax.random.key(7)  # of `rounds`
PARAMETERS = CLASSES * (DIMENSIONS + 1)
ROUNDS = 12


@pytest.mark.parametrize("name", ["def_kt", "relaysgd", "fedct_neighbors"])
def test_weights_of_the_graph_change_nothing_where_links_are_all(name):
    problem, algorithm, found = small_problem("path"), ALGORITHMS[name].build(make_learners()), []
    for weights in ("metropolis_hastings", "lazy_metropolis_hastings"):
        network = build_topology("path", DEVICES, weights).network
        found.append(rounds(algorithm, problem._replace(network=network), 4)[0].devices)
    jax.tree.map(np.testing.assert_array_equal, *found)


def vectors(stacked):
    """The parameters of each device as one vector, in double precision: bias, then kernel."""
    dense = stacked.params["dense"]
    kernel = np.asarray(dense["kernel"], float).reshape(len(dense["bias"]), -1)
    return np.hstack([np.asarray(dense["bias"], float), kernel])


def gradient(problem, vector, rows):
    """The gradient of one device on its minibatch, by hand."""
    x, y = np.asarray(problem.x, float)[rows], np.asarray(problem.y)[rows]
    kernel, bias = vector[CLASSES:].reshape(CLASSES, DIMENSIONS), vector[:CLASSES]
    stepped = numpy_step(kernel, bias, x, y, x[:1], None)
    return (vector - np.concatenate([stepped[1], stepped[0].ravel()])) / RATE


def run(algorithm, problem, loop, local_steps=1):
    """Both sides after some rounds; `loop(start, gradients of a round, W)` is a generator of parameters `[N, P]`."""
    state, states = rounds(algorithm, problem, ROUNDS)
    drawn = (Drawn(jax.random.fold_in(KEY, t), problem, local_steps).private for t in range(ROUNDS))

    def gradients(x, private, step=0):
        return np.array([gradient(problem, x[n], private[n][step]) for n in range(DEVICES)])

    w = np.asarray(problem.network.dense(), float)
    close(vectors(state.devices[0]), loop(vectors(states[0].devices[0]), gradients, drawn, w), 1e-4)
    return states


def test_gradient_tracking_is_the_algorithm_box_in_numpy():
    def loop(x, gradients, drawn, w):
        y = g_old = np.zeros_like(x)
        for private in drawn:
            g = gradients(x, private)
            y = y + g - g_old
            g_old = g
            half = x - RATE * y
            x = np.array([sum(w[n, m] * half[m] for m in range(DEVICES)) for n in range(DEVICES)])
            y = np.array([sum(w[n, m] * y[m] for m in range(DEVICES)) for n in range(DEVICES)])
        return x

    run(ddjax.gradient_tracking(make_learners(), ddjax.weighted_average()), small_problem("star"), loop)


def test_exact_diffusion_is_the_algorithm_box_of_d2_in_numpy():
    def loop(x, gradients, drawn, w):
        lazy, x_last, g_last = (np.eye(DEVICES) + w) / 2, None, None
        for private in drawn:
            g = gradients(x, private)
            half = x - RATE * g if x_last is None else 2 * x - x_last - RATE * (g - g_last)
            x_last, g_last = x, g
            x = np.array([sum(lazy[n, m] * half[m] for m in range(DEVICES)) for n in range(DEVICES)])
        return x

    run(ddjax.exact_diffusion(make_learners(), ddjax.weighted_average()), small_problem("star"), loop)


def test_quasi_global_momentum_is_the_algorithm_box_in_numpy():
    """With two local steps; the learning rate falls."""
    beta, steps = 0.8, 2

    def loop(x, gradients, drawn, w):
        m = np.zeros_like(x)
        for t, private in enumerate(drawn):
            eta, before = RATE / (1 + t), x
            for step in range(steps):
                x = x - eta * (gradients(x, private, step) + beta * m)
            x = np.array([sum(w[n, k] * x[k] for k in range(DEVICES)) for n in range(DEVICES)])
            m = beta * m + (1 - beta) * (before - x) / (eta * steps)
        return x

    population = make_learners(optimizer=optax.sgd(lambda count: RATE / (1 + count // steps)), local_steps=steps)
    algorithm = ddjax.quasi_global_momentum(
        population, ddjax.weighted_average(), learning_rate=lambda t: RATE / (1 + t), momentum=beta
    )
    problem = small_problem()
    algorithm.check(problem)
    run(algorithm, problem, loop, steps)


def test_relaysgd_is_the_algorithm_box_in_numpy():
    problem = small_problem("binary_tree")

    def loop(x, gradients, drawn, w):
        near = [[m for m in range(DEVICES) if m != n and w[n, m]] for n in range(DEVICES)]
        start = x[0]
        sums = {(m, n): 0.0 for n in range(DEVICES) for m in near[n]}  # from m to n
        counts = dict.fromkeys(sums, 0)
        for private in drawn:
            half = x - RATE * gradients(x, private)
            old_sums, old_counts = dict(sums), dict(counts)
            for n in range(DEVICES):
                for m in near[n]:
                    sums[n, m] = half[n] + sum(old_sums[k, n] for k in near[n] if k != m)
                    counts[n, m] = 1 + sum(old_counts[k, n] for k in near[n] if k != m)
            x = np.empty_like(x)
            for n in range(DEVICES):
                heard = 1 + sum(counts[m, n] for m in near[n])
                x[n] = half[n] + sum(sums[m, n] for m in near[n]) + (DEVICES - heard) * start
                x[n] /= DEVICES
        return x

    run(ddjax.relaysgd(make_learners()), problem, loop)


def test_relaysgd_averages_parameters_as_old_as_they_are_far():
    """Without messages: `x_n = 1/N Σ_m x_m`, where a device `d` links away counts with its parameters after the local
    steps of `d − 1` rounds ago, or with its start."""
    problem = small_problem("path", product="gather")
    states = rounds(ddjax.relaysgd(make_learners()), problem, 2 * DEVICES)[1]
    far = dict(nx.all_pairs_shortest_path_length(build_graph("path", DEVICES)))
    x, halves = [vectors(state.devices[0]) for state in states], []
    for t, now in enumerate(x[:-1]):
        private = Drawn(jax.random.fold_in(KEY, t), problem).private
        halves.append(now - RATE * np.array([gradient(problem, now[n], private[n][0]) for n in range(DEVICES)]))
        for n in range(DEVICES):
            old = [t - max(far[n][m] - 1, 0) for m in range(DEVICES)]
            close(x[t + 1][n], np.mean([halves[o][m] if o >= 0 else x[0][m] for m, o in enumerate(old)], axis=0), 1e-5)


def test_quasi_global_momentum_without_momentum_is_dsgd(problem):
    population = make_learners()
    plain = rounds(ddjax.dsgd(population, ddjax.weighted_average()), problem, ROUNDS)[0]
    algorithm = ddjax.quasi_global_momentum(population, ddjax.weighted_average(), learning_rate=RATE, momentum=0.0)
    close(rounds(algorithm, problem, ROUNDS)[0].devices, plain.devices)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "mixer", "local_steps"),
    [
        ("gradient_tracking", ddjax.weighted_average(), 3),
        ("gradient_tracking", ddjax.choco(compressor("top_k:0.5"), 0.3), 1),
        ("exact_diffusion", ddjax.weighted_average(), 1),
    ],
)
def test_a_correction_reaches_the_pooled_solution(name, mixer, local_steps):
    """The step size is constant; D-SGD then stays more than 1e-3 away (see the test of DIGing)."""
    assert distance(name, regression(), mixer, local_steps) < 1e-9


def test_messages_are_counted_with_all_they_hold():
    tree, population = small_problem("binary_tree"), make_learners()
    average = ddjax.weighted_average()
    assert ddjax.gradient_tracking(population, average).message_bytes(tree).peer == {"value": 2 * 4 * PARAMETERS}
    assert ddjax.exact_diffusion(population, average).message_bytes(tree).peer == {"value": 4 * PARAMETERS}
    algorithm = ddjax.relaysgd(population)
    assert algorithm.message_bytes(tree).peer == {"sum and count": 4 * PARAMETERS + 4}
    _, info = jax.eval_shape(algorithm.round, KEY, jax.eval_shape(algorithm.init, KEY, tree), tree)
    assert info.messages.peer["sum and count"].shape == (DEVICES, DEVICES)


# Refusals.


def refusal(make, problem=None):
    with pytest.raises(InputError) as error:
        make(make_learners()).check(problem or small_problem())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (ddjax.gradient_tracking, "drifts if the mixer 'average' compresses messages"),
        (ddjax.exact_diffusion, "average with a compressor is not"),
    ],
)
def test_messages_that_lose_something_are_refused(algorithm, message):
    lossy = ddjax.encoded(ddjax.weighted_average(), compressor("top_k:0.5"))
    assert message in refusal(lambda population: algorithm(population, lossy))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("directed_ring", "a symmetric mixing matrix"),
        ("random_matching", "needs a fixed graph, but this graph changes"),
    ],
)
def test_exact_diffusion_refuses_what_it_may_diverge_on(spec, message):
    problem = small_problem(spec)
    assert message in refusal(lambda population: ddjax.exact_diffusion(population, ddjax.weighted_average()), problem)


@pytest.mark.parametrize(("spec", "grows"), [("ring", False), ("hypercube", False), ("directed_ring", True)])
def test_without_a_symmetric_matrix_exact_diffusion_grows_even_without_gradients(spec, grows):
    """The eigenvalues of `x ← W̄ (2 x − x_last)`, written as one matrix, show whether it grows."""
    w, one = build_topology(spec, 8).matrices[0].toarray(), np.eye(8)
    lazy = (one + w) / 2
    both = np.block([[2 * lazy, -lazy], [one, 0 * one]])
    assert (np.abs(np.linalg.eigvals(both)).max() > 1.01) == grows


@pytest.mark.parametrize("mixer", [gossip(), ddjax.push_sum(), ddjax.choco(compressor("sign"), 0.1)])
def test_exact_diffusion_refuses_mixings_that_are_not_one_matrix(mixer):
    assert "applies one matrix and keeps the mean" in refusal(
        lambda population: ddjax.exact_diffusion(population, mixer)
    )


def test_gradient_tracking_refuses_a_mixing_that_loses_the_mean():
    assert "keeps the mean" in refusal(lambda population: ddjax.gradient_tracking(population, gossip()))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ring", "needs a tree (5 links between 6 devices), but this graph has 6 links"),
        ("directed_ring", "but this graph has 6 directed links"),
        ("one_peer_exponential", "needs a fixed tree"),
    ],
)
def test_relaysgd_refuses_what_is_no_tree(spec, message):
    assert message in refusal(ddjax.relaysgd, small_problem(spec))


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [(optax.adam(RATE), RATE), (optax.sgd(RATE, momentum=0.9), RATE), (optax.sgd(RATE), 2 * RATE)],
)
def test_quasi_global_momentum_refuses_other_steps_than_it_counts_with(optimizer, rate):
    algorithm = ddjax.quasi_global_momentum(
        make_learners(optimizer=optimizer), ddjax.weighted_average(), learning_rate=rate
    )
    with pytest.raises(InputError, match="do not take plain SGD steps"):
        algorithm.check(small_problem())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "local_dsgd", "local_epochs": 2}, "local_epochs is not used by local_dsgd"),
        ({"algorithm": "local_dsgd", "local_steps": 2}, "local_steps or --local_epochs, not both"),
        ({"algorithm": "dsgd", "momentum": 0.5}, "it belongs to quasi_global_momentum"),
        ({"algorithm": "relaysgd", "mixing": "choco"}, "mixing is not used by relaysgd"),
        ({"topology": "base_k_plus_one:1", "mixing_weights": "uniform"}, "has its own mixing weights"),
        ({"topology": "base_k_plus_one:0"}, "K must be a whole number of at least 1"),
    ],
)
def test_settings_that_do_not_go_with_them_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build(Settings(devices=4, models="linear", **settings))


def test_local_dsgd_is_dsgd_with_one_epoch_a_round():
    named = Settings(algorithm="local_dsgd")
    assert resolve(named) == Settings(algorithm="local_dsgd", local_epochs=1)
    assert ALGORITHMS["local_dsgd"].build is ddjax.dsgd
    assert not {"local_steps", "local_epochs"} & used(named)
