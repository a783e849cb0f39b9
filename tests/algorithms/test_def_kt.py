"""Def-KT: a plain loop over the pairs in NumPy, the draw of pairs, and a limit case."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import Drawn, softmax
from small import CLASSES, DEVICES, RATE, close, make_learners, one_round, small_problem

import ddjax
from ddjax.algorithms.def_kt import draw_pairs
from ddjax.errors import InputError
from ddjax.networks import build_topology

KEY = jax.random.key(7)


def step(model, x, error):
    kernel, bias = model
    return kernel - RATE * error.T @ x / len(x), bias - RATE * error.sum(0) / len(x)


def test_def_kt_is_the_paper_pseudocode_in_numpy():
    problem, population = small_problem("complete"), make_learners(local_steps=2)
    algorithm = ddjax.def_kt(population)
    run = jax.jit(algorithm.round)
    state = algorithm.init(jax.random.key(3), problem)
    dense = state.devices[0].params["dense"]
    models = [(np.asarray(dense["kernel"][n], float), np.asarray(dense["bias"][n], float)) for n in range(DEVICES)]
    x, y = np.asarray(problem.x, float), np.asarray(problem.y)
    pairs = 0
    for t in range(12):
        key = jax.random.fold_in(KEY, t)
        state, info = run(key, state, problem)
        private = Drawn(key, problem, local_steps=2).private
        for receiver, sender in zip(*np.nonzero(info.messages.peer["parameters"]), strict=True):
            pairs += 1
            for rows in private[sender]:  # local update
                kernel, bias = models[sender]
                models[sender] = step(
                    models[sender], x[rows], softmax(x[rows] @ kernel.T + bias) - np.eye(CLASSES)[y[rows]]
                )
            theirs, own = models[sender], models[receiver]
            for rows in private[receiver]:  # mutual knowledge transfer
                p, q = (softmax(x[rows] @ kernel.T + bias) for kernel, bias in (theirs, own))
                label = np.eye(CLASSES)[y[rows]]
                # The derivatives of −log p(y) and of KL(q ‖ p) by the logits of p are p − y and p − q.
                theirs, own = step(theirs, x[rows], 2 * p - label - q), step(own, x[rows], 2 * q - label - p)
            models[receiver] = theirs
        assert info.steps.sum() == 4 * info.messages.peer["parameters"].sum()
    assert pairs > 12
    found = state.devices[0].params["dense"]
    for n, (kernel, bias) in enumerate(models):
        close((found["kernel"][n], found["bias"][n]), (kernel, bias), 2e-4)


@pytest.mark.parametrize(("spec", "product"), [("ring", "dense"), ("barabasi_albert:2", "gather"), ("star", "dense")])
def test_pairs_lie_on_links_and_no_device_is_in_two(spec, product):
    network = one_round(build_topology(spec, 16, product=product).network)
    dense, draw, seen = np.asarray(network.sent.dense()), jax.jit(lambda key: draw_pairs(key, network)), set()
    for number in range(60):
        targets = np.asarray(draw(jax.random.fold_in(KEY, number)))
        senders = np.flatnonzero(targets < 16)
        assert all(dense[targets[n], n] > 0 for n in senders)
        both = [*senders, *targets[senders]]
        assert len(set(both)) == len(both)
        assert len(senders) > 0
        seen |= {(n, targets[n]) for n in senders}
    links = (dense > 0).sum() - 16
    assert len(seen) > 0.5 * links


def test_a_matching_pairs_all_devices():
    network = build_topology("random_matching", 16).network
    for number in range(5):
        key = jax.random.fold_in(KEY, number)
        assert (np.asarray(draw_pairs(key, network.at_round(key, jnp.int32(number)))) < 16).sum() == 8


def test_without_learning_models_wander_unchanged():
    """A receiver takes over the sender's model, and the sender keeps it too."""
    problem = small_problem("complete")
    algorithm = ddjax.def_kt(make_learners(optimizer=optax.sgd(0.0)))
    start = algorithm.init(KEY, problem)
    state, info = jax.jit(algorithm.round)(KEY, start, problem)
    came_from = np.arange(DEVICES)
    receivers, senders = np.nonzero(info.messages.peer["parameters"])
    came_from[receivers] = senders
    assert len(receivers)
    close(state.devices[0].params, jax.tree.map(lambda leaf: leaf[came_from], start.devices[0].params))


def test_def_kt_counts_its_bytes_and_refuses_what_it_cannot_do():
    problem, population = small_problem(), make_learners()
    assert ddjax.def_kt(population).message_bytes(problem).peer == {"parameters": 4 * (5 * CLASSES + CLASSES)}
    with pytest.raises(InputError, match="the same architecture"):
        ddjax.def_kt(make_learners(("linear", "mlp")))
    with pytest.raises(InputError, match="def_kt has its own loss"):
        ddjax.def_kt(make_learners(prior_adjustment=1.0)).check(problem)
