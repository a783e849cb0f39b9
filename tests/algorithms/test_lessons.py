"""FedMD, FedCT and DS-FL: plain loops over devices in NumPy that read like the papers' pseudocode, and limit cases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import Drawn, numpy_step, softmax
from small import (
    BATCH,
    CLASSES,
    DEVICES,
    DIMENSIONS,
    RATE,
    REFERENCE_BATCH,
    close,
    make_learners,
    rounds,
    small_problem,
)

import ddjax
from ddjax.algorithms import ALGORITHMS
from ddjax.data.synthetic import synthetic_classification
from ddjax.errors import InputError
from ddjax.learning import round_keys

KEY, ROUNDS = jax.random.key(7), 12


def theta(device):
    dense = device.params["dense"]
    return [(np.asarray(dense["kernel"][n], float), np.asarray(dense["bias"][n], float)) for n in range(DEVICES)]


def same_parameters(state, expected):
    for found, (kernel, bias) in zip(theta(state.devices[0]), expected, strict=True):
        close(found, (kernel, bias), 2e-4)


def shuffled(key, n, size, epochs):
    """The minibatches of passes over `size` examples, by the documented rule."""
    drawn = jax.random.uniform(jax.random.split(jax.random.fold_in(key, n))[0], (epochs, size))
    orders = np.argsort(np.asarray(drawn), axis=1)
    return [order[start : start + BATCH] for order in orders for start in range(0, size, BATCH)]


def one_draw(key, number, n, size):
    """The rows of step `number` of device `n`, among `size`, by the documented rule."""
    step = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, number), n), 0)
    return np.asarray(jax.random.randint(jax.random.split(step)[0], (BATCH,), 0, size))


def follow(kernel, bias, x, error):
    """One step of SGD, from the derivative of the mean loss by the outputs of each example."""
    return kernel - RATE * error.T @ x / len(x), bias - RATE * error.sum(0) / len(x)


def arrays(problem):
    return np.asarray(problem.x, float), np.asarray(problem.y), np.asarray(problem.reference, float)


@pytest.mark.parametrize(("pretraining", "warmup"), [(0, 0), (4, 3)])
def test_fedmd_is_the_paper_pseudocode_in_numpy(pretraining, warmup):
    epochs = 2
    problem = small_problem(reference_labels=pretraining > 0)
    falling = optax.sgd(lambda count: RATE / (1 + count // 1000))  # falls by rounds: not before the first exchange
    algorithm = ddjax.fedmd(
        make_learners(optimizer=falling),
        reference_batch_size=REFERENCE_BATCH,
        distillation_epochs=epochs,
        pretraining_steps=pretraining,
        warmup_steps=warmup,
    )
    state, states = rounds(algorithm, problem, ROUNDS)

    x, y, public = arrays(problem)
    models = theta(states[0].devices[0])
    first = jax.random.fold_in(round_keys(jax.random.fold_in(KEY, 0)).train, DEVICES)
    on_public, on_private = jax.random.split(first)
    held = np.asarray(problem.private_indices)
    for n, size in enumerate(np.asarray(problem.private_counts)):
        for number in range(pretraining):  # transfer learning: public data, then private
            rows = one_draw(on_public, number, n, len(public))
            models[n] = numpy_step(*models[n], public[rows], problem.reference_labels[rows], public[:1], None)[:2]
        for number in range(warmup):
            rows = held[n, one_draw(on_private, number, n, size)]
            models[n] = numpy_step(*models[n], x[rows], y[rows], public[:1], None)[:2]
    for t in range(ROUNDS):
        key = jax.random.fold_in(KEY, t)
        drawn = Drawn(key, problem)
        subset = public[drawn.reference]
        consensus = np.mean([subset @ kernel.T + bias for kernel, bias in models], axis=0)  # communicate, aggregate
        for n, (kernel, bias) in enumerate(models):
            for rows in shuffled(round_keys(key).mix, n, REFERENCE_BATCH, epochs):  # digest
                sign = np.sign(subset[rows] @ kernel.T + bias - consensus[rows])
                kernel, bias = follow(kernel, bias, subset[rows], sign / CLASSES)
            rows = drawn.private[n][0]  # revisit
            models[n] = numpy_step(kernel, bias, x[rows], y[rows], public[:1], None)[:2]
    same_parameters(state, models)


def test_ds_fl_is_the_paper_pseudocode_in_numpy():
    problem = small_problem()
    algorithm = ddjax.ds_fl(
        make_learners(), reference_batch_size=REFERENCE_BATCH, distillation_epochs=2, sharpening_temperature=0.1
    )
    state, states = rounds(algorithm, problem, ROUNDS)

    x, y, public = arrays(problem)
    models = theta(states[0].devices[0])
    for t in range(ROUNDS):
        key = jax.random.fold_in(KEY, t)
        drawn = Drawn(key, problem)
        subset = public[drawn.reference]
        for n, rows in enumerate(drawn.private):  # update
            models[n] = numpy_step(*models[n], x[rows[0]], y[rows[0]], public[:1], None)[:2]
        mean = np.mean([softmax(subset @ kernel.T + bias) for kernel, bias in models], axis=0)  # predict, upload
        sharpened = softmax(mean / 0.1)  # aggregate by ERA, broadcast
        for n, (kernel, bias) in enumerate(models):
            for rows in shuffled(round_keys(key).mix, n, REFERENCE_BATCH, 2):  # distill
                error = softmax(subset[rows] @ kernel.T + bias) - sharpened[rows]
                kernel, bias = follow(kernel, bias, subset[rows], error)
            models[n] = kernel, bias
    same_parameters(state, models)


def test_kt_pfl_is_the_paper_pseudocode_in_numpy():
    problem, step_size, penalty = small_problem(), 0.3, 0.2
    algorithm = ddjax.kt_pfl(
        make_learners(),
        reference_batch_size=REFERENCE_BATCH,
        knowledge_step_size=step_size,
        knowledge_penalty=penalty,
    )
    state, states = rounds(algorithm, problem, ROUNDS)

    x, y, public = arrays(problem)
    models = theta(states[0].devices[0])
    c = np.full((DEVICES, DEVICES), 1 / DEVICES)
    for t in range(ROUNDS):
        key = jax.random.fold_in(KEY, t)
        drawn = Drawn(key, problem)
        subset = public[drawn.reference]
        for n, rows in enumerate(drawn.private):  # local update
            models[n] = numpy_step(*models[n], x[rows[0]], y[rows[0]], public[:1], None)[:2]
        s = [softmax(subset @ kernel.T + bias) for kernel, bias in models]
        for n in range(DEVICES):  # the server's step, device by device
            mixture = sum(c[n, m] * s[m] for m in range(DEVICES))
            slope = [2 * ((mixture - s[n]) * s[m]).sum(1).mean() for m in range(DEVICES)]
            c[n] = np.maximum(c[n] - step_size * (slope + 2 * penalty * (c[n] - 1 / DEVICES)), 0)
            c[n] /= c[n].sum()
        for n, (kernel, bias) in enumerate(models):
            target = sum(c[n, m] * s[m] for m in range(DEVICES))
            for rows in shuffled(round_keys(key).mix, n, REFERENCE_BATCH, 1):  # distill
                error = softmax(subset[rows] @ kernel.T + bias) - target[rows]
                kernel, bias = follow(kernel, bias, subset[rows], error)
            models[n] = kernel, bias
    same_parameters(state, models)
    close(state.coefficients, c, 1e-4)
    assert np.abs(c - 1 / DEVICES).max() > 0.02


@pytest.mark.parametrize("name", ["fedct", "fedct_neighbors"])
def test_fedct_is_the_paper_pseudocode_in_numpy(name):
    problem = small_problem("barabasi_albert:2")
    state, states = rounds(ALGORITHMS[name].build(make_learners(local_steps=3)), problem, ROUNDS)

    x, y, public = arrays(problem)
    w = np.asarray(problem.network.dense())
    voters = [range(DEVICES) if name == "fedct" else np.flatnonzero(w[n]) for n in range(DEVICES)]
    models, pseudo = theta(states[0].devices[0]), None
    for t in range(ROUNDS):
        key = jax.random.fold_in(KEY, t)
        for n, drawn in enumerate(Drawn(key, problem, local_steps=3).private):
            for number, rows in enumerate(drawn):
                inputs, labels = x[rows], y[rows]
                if pseudo is not None:  # equally many examples of P and of D
                    step = jax.random.fold_in(jax.random.fold_in(round_keys(key).train, n), number)
                    at = np.asarray(jax.random.randint(jax.random.split(step)[1], (BATCH,), 0, len(public)))
                    inputs = np.concatenate([inputs, public[at]])
                    labels = np.concatenate([labels, np.take(pseudo[n], at)])
                models[n] = numpy_step(*models[n], inputs, labels, public[:1], None)[:2]
        said = np.array([(public @ kernel.T + bias).argmax(1) for kernel, bias in models])
        pseudo = [[np.bincount(said[voters[n], i]).argmax() for i in range(len(public))] for n in range(DEVICES)]
    same_parameters(state, models)
    np.testing.assert_array_equal(state.labels, pseudo)
    assert name == "fedct" or len(np.unique(pseudo, axis=0)) > 1


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("name", ["fedct", "fedct_neighbors"])
def test_fedct_before_labels_is_local_training(name, epochs):
    groups = make_learners(optimizer=optax.adam(0.01)).groups
    problem, population = small_problem(), ddjax.Population(groups, BATCH, local_steps=2, local_epochs=epochs)
    found, expected = (rounds(ALGORITHMS[each].build(population), problem, 1)[0].devices for each in (name, "local"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("batch", "epochs"), [(BATCH, 1), (0, 0)])
def test_of_all_private_examples_fedct_takes_as_many_public_ones(batch, epochs):
    """If all pseudo-labelled examples are the same example, the loss before the step is known."""
    problem = small_problem()
    problem = problem._replace(reference=jnp.broadcast_to(problem.reference[:1], problem.reference.shape))
    population = ddjax.Population(make_learners(optimizer=optax.sgd(0.0)).groups, batch, local_epochs=epochs)
    algorithm = ddjax.fedct(population)
    state, first = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)
    _, info = jax.jit(algorithm.round)(KEY, state, problem)
    counts = np.asarray(problem.private_counts)
    np.testing.assert_array_equal(info.steps, np.ceil(counts / (batch or counts)))
    public = arrays(problem)[2][0]
    s = np.array([softmax(kernel @ public + bias) for kernel, bias in theta(state.devices[0])])
    said = -np.log(s[np.arange(DEVICES), np.asarray(state.labels)[:, 0]])
    close(info.loss, (first.loss + info.steps * said) / 2, 1e-4)


def test_labels_of_neighbors_on_the_complete_graph_are_those_of_the_server():
    population, problem = make_learners(local_steps=3), small_problem("complete")
    served = rounds(ddjax.fedct(population), problem, 4)[0]
    close(rounds(ddjax.fedct_neighbors(population), problem, 4)[0], served)


def test_ds_fl_sharpens_the_mean():
    """The learned soft decisions do not depend on the temperature of the measured ones."""
    population, problem = make_learners(optimizer=optax.sgd(0.0), temperature=3.0), small_problem()
    algorithm = ddjax.ds_fl(population, reference_batch_size=20, sharpening_temperature=0.1)
    start = algorithm.init(KEY, problem)
    _, info = jax.jit(algorithm.round)(KEY, start, problem)
    public = arrays(problem)[2]
    s = np.array([softmax(public @ kernel.T + bias) for kernel, bias in theta(start.devices[0])])
    close(info.distillation_loss, -(softmax(s.mean(0) / 0.1) * np.log(s)).sum(-1).mean(1), 1e-4)


def test_fedmd_of_devices_that_agree_is_local_training():
    """The consensus of equal devices is the output of each, so there is nothing to digest."""
    problem, population = small_problem(), make_learners()
    start = ddjax.local(population).init(KEY, problem)
    alike = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), start.devices)
    algorithm = ddjax.fedmd(population, reference_batch_size=1)
    after, info = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem)._replace(devices=alike), problem)
    expected, _ = jax.jit(ddjax.local(population).round)(KEY, start._replace(devices=alike), problem)
    close(info.distillation_loss, np.zeros(DEVICES), 1e-6)
    assert all(np.abs(a - b).max() < RATE for a, b in zip(*map(jax.tree.leaves, (after, expected)), strict=True))


def test_pretraining_counts_as_steps_and_sends_nothing():
    """With learning rate 0, all losses are those of the initial models."""
    problem = small_problem(reference_labels=True)
    learners = make_learners(optimizer=optax.sgd(0.0), batch_size=0)
    algorithm = ddjax.fedmd(learners, reference_batch_size=5, pretraining_steps=3, warmup_steps=2)
    state, first = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)
    _, second = jax.jit(algorithm.round)(KEY, state, problem)
    assert first.steps.tolist() == [6] * DEVICES
    assert second.steps.tolist() == [1] * DEVICES
    jax.tree.map(np.testing.assert_array_equal, first.messages, second.messages)
    public, labels = arrays(problem)[2], np.asarray(problem.reference_labels)
    s = np.array([softmax(public @ kernel.T + bias) for kernel, bias in theta(state.devices[0])])
    on_public = -np.log(s[:, np.arange(len(labels)), labels]).mean(1)
    close(first.loss, 3 * on_public + 3 * second.loss, 1e-4)
    close(first.distillation_loss, 6 * second.distillation_loss, 1e-4)


def test_the_labels_of_the_reference_set_are_those_of_its_examples():
    """Reference labels exist only on request, and only for training data."""
    dataset = synthetic_classification(0, DEVICES, 120, 60, CLASSES, DIMENSIONS)
    problem = ddjax.make_problem(dataset, np.full((DEVICES, DEVICES), 1 / DEVICES), reference_labels=True)
    x, y = np.asarray(dataset.x_train), np.asarray(dataset.y_train)
    for example, label in zip(problem.reference, problem.reference_labels, strict=True):
        assert label == y[np.abs(x - np.asarray(example)).sum(1).argmin()]
    assert small_problem().reference_labels is None
    noise = small_problem(reference_labels=True, reference_source="noise")
    assert noise.reference_labels is None
    with pytest.raises(InputError, match="needs the labels of the reference set"):
        ddjax.fedmd(make_learners(), reference_batch_size=5, pretraining_steps=1).check(noise)
    ddjax.fedmd(make_learners(), reference_batch_size=5, warmup_steps=1).check(noise)
    with pytest.raises(InputError, match="pretraining_steps must be at least 0"):
        ddjax.fedmd(make_learners(), reference_batch_size=5, pretraining_steps=-1)


def test_bytes_are_those_counted_by_hand():
    problem, population = small_problem(), make_learners()
    for algorithm, up, down in (
        (ddjax.fedmd(population, reference_batch_size=5), {"logits": 5 * CLASSES * 4}, {"mean": 60}),
        (ddjax.ds_fl(population, reference_batch_size=5), {"soft decisions": 60}, {"sharpened mean": 60}),
        (ddjax.kt_pfl(population, reference_batch_size=5), {"soft decisions": 60}, {"mixture": 60}),
        (ddjax.fedct(population), {"labels": 20}, {"consensus": 20}),
    ):
        sizes = algorithm.message_bytes(problem)
        assert (sizes.peer, sizes.up, sizes.down) == ({}, up, down)
    _, info = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)
    assert info.messages.up["labels"].tolist() == info.messages.down["consensus"].tolist() == [1] * DEVICES
    algorithm = ddjax.fedct_neighbors(population)
    assert algorithm.message_bytes(problem).peer == {"labels": 20}
    _, info = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)
    np.testing.assert_array_equal(info.messages.peer["labels"], problem.network.links())


def test_what_they_cannot_do_with_is_refused():
    partly = small_problem(reference_known=0.5)
    for make in (ddjax.fedct, lambda population: ddjax.fedmd(population, reference_batch_size=5)):
        with pytest.raises(InputError, match="know the whole reference set"):
            make(make_learners()).check(partly)
    for make in (ddjax.fedct, ddjax.fedct_neighbors):
        with pytest.raises(InputError, match=f"{make.__name__} has its own loss"):
            make(make_learners(prior_adjustment=1.0)).check(small_problem())
    with pytest.raises(InputError, match="must be between 1 and 20"):
        ddjax.ds_fl(make_learners(), reference_batch_size=21).check(small_problem())
    with pytest.raises(InputError, match="sharpening_temperature"):
        ddjax.ds_fl(make_learners(), reference_batch_size=5, sharpening_temperature=0.0)


def test_kt_pfl_that_learns_no_coefficients_distills_the_mean():
    """With one minibatch of all reference examples, local training alone gives the loss before the step."""
    problem, population = small_problem(), make_learners(batch_size=0)
    algorithm = ddjax.kt_pfl(population, reference_batch_size=20, knowledge_step_size=0.0)
    state, info = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)
    close(state.coefficients, np.full((DEVICES, DEVICES), 1 / DEVICES))
    local = ddjax.local(population)
    trained, _ = jax.jit(local.round)(KEY, local.init(KEY, problem), problem)
    s = np.array([softmax(arrays(problem)[2] @ kernel.T + bias) for kernel, bias in theta(trained.devices[0])])
    close(info.distillation_loss, -(s.mean(0) * np.log(s)).sum(-1).mean(1), 1e-4)
