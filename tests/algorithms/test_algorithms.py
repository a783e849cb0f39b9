"""Every algorithm against a plain loop over devices, its limit cases and its invariants."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import Drawn, numpy_step, softmax
from small import (
    CLASSES,
    DEVICES,
    RATE,
    STEP,
    close,
    image_problem,
    make_distillation,
    make_learners,
    one_round,
    rounds,
    small_problem,
)

import ddjax
from ddjax.errors import InputError
from ddjax.learning import OPTIMIZERS, losses
from ddjax.networks import as_network


@pytest.mark.parametrize("local_steps", [1, 3])
@pytest.mark.parametrize("consensus", ["gradient", "tracking", "neighbors"])
def test_distillation_is_the_paper_pseudocode_in_numpy(consensus, local_steps):
    problem = small_problem("barabasi_albert:2")
    algorithm = make_distillation(make_learners(local_steps=local_steps), consensus)
    count = 20
    state, states = rounds(algorithm, problem, count)

    x, y, w = np.asarray(problem.x, float), np.asarray(problem.y), np.asarray(problem.network.dense(), float)
    x_reference = np.asarray(problem.reference, float)
    dense = states[0].devices[0].params["dense"]
    theta = [(np.asarray(dense["kernel"][n], float), np.asarray(dense["bias"][n], float)) for n in range(DEVICES)]
    z = np.full((DEVICES, len(x_reference), CLASSES), 1 / CLASSES)
    previous = z.copy()
    for t in range(count):
        drawn = Drawn(jax.random.fold_in(jax.random.key(7), t), problem, local_steps)
        b = drawn.reference
        if consensus == "neighbors":
            sent = [softmax(x_reference[b] @ kernel.T + bias) for kernel, bias in theta]
            targets = [sum(w[n, m] * sent[m] for m in range(DEVICES)) for n in range(DEVICES)]
        else:
            targets = [np.clip(z[n, b], 0, 1) for n in range(DEVICES)]
        s = [None] * DEVICES
        for n in range(DEVICES):
            for rows in drawn.private[n]:
                *theta[n], s[n] = numpy_step(*theta[n], x[rows], y[rows], x_reference[b], targets[n])
        old = z.copy()
        for n in range(DEVICES):
            if consensus == "gradient":
                z[n, b] = sum(w[n, m] * old[m, b] for m in range(DEVICES)) + STEP * (s[n] - old[n, b])
            elif consensus == "tracking":
                z[n, b] = sum(w[n, m] * (old[m, b] + s[m] - previous[m, b]) for m in range(DEVICES))
        for n in range(DEVICES):
            previous[n, b] = s[n]

    close(state.devices[0].params["dense"]["kernel"], np.array([kernel for kernel, _ in theta]), 1e-4)
    close(state.devices[0].params["dense"]["bias"], np.array([bias for _, bias in theta]), 1e-4)
    if consensus != "neighbors":
        close(state.estimate, z, 1e-4)


@pytest.mark.parametrize("consensus", ["gradient", "tracking"])
def test_devices_that_know_a_part_of_the_reference_set_are_a_loop_in_which_they_have_no_more(consensus):
    problem = small_problem("barabasi_albert:2", reference_known=0.4)
    holders = np.asarray(problem.known)
    assert (holders.sum(1) == 8).all()
    assert len(np.unique(holders, axis=0)) > 1
    state, states = rounds(make_distillation(make_learners(), consensus), problem, 20)

    x, y, w = np.asarray(problem.x, float), np.asarray(problem.y), np.asarray(problem.network.dense(), float)
    dense = states[0].devices[0].params["dense"]
    theta = [(np.asarray(dense["kernel"][n], float), np.asarray(dense["bias"][n], float)) for n in range(DEVICES)]
    owned = [{i: np.asarray(problem.reference[i], float) for i in np.flatnonzero(holders[n])} for n in range(DEVICES)]
    z = np.full((DEVICES, len(problem.reference), CLASSES), 1 / CLASSES)
    previous = z.copy()
    for t in range(20):
        drawn = Drawn(jax.random.fold_in(jax.random.key(7), t), problem)
        change = np.zeros_like(z)
        for n in range(DEVICES):
            rows, b = drawn.private[n][0], [i for i in drawn.reference if i in owned[n]]
            public, targets = (np.array([owned[n][i] for i in b]), np.clip(z[n, b], 0, 1)) if b else (x[:1], None)
            *theta[n], s = numpy_step(*theta[n], x[rows], y[rows], public, targets)
            if b:
                shares = DEVICES / holders[:, b].sum(0)[:, None]
                change[n, b] = STEP * (s - z[n, b]) if consensus == "gradient" else shares * (s - previous[n, b])
                previous[n, b] = s
        old = z.copy()
        for n in range(DEVICES):
            for i in drawn.reference:
                if consensus == "gradient":
                    z[n, i] = sum(w[n, m] * old[m, i] for m in range(DEVICES)) + change[n, i]
                else:
                    z[n, i] = sum(w[n, m] * (old[m, i] + change[m, i]) for m in range(DEVICES))

    close(state.devices[0].params["dense"]["kernel"], np.array([kernel for kernel, _ in theta]), 1e-4)
    close(state.estimate, z, 1e-4)
    if consensus == "tracking":  # the mean over devices is the mean over those that know the example
        for i in np.flatnonzero(holders.any(0)):
            close(state.estimate[:, i].mean(0), previous[holders[:, i], i].mean(0), 1e-4)


def test_neighbors_and_closed_forms_refuse_a_reference_set_that_devices_know_in_part():
    problem = small_problem(reference_known=0.5)
    with pytest.raises(InputError, match="works only if every device knows all reference examples"):
        make_distillation(make_learners(), "neighbors").check(problem)
    algorithm = ddjax.co_regularization(make_learners(), distillation_weight=1.0)
    with pytest.raises(InputError, match="know the whole reference set"):
        algorithm.start(algorithm.init(jax.random.key(0), problem), problem)


def test_dsgd_is_the_paper_pseudocode_in_numpy():
    problem = small_problem("directed_exponential")
    algorithm = ddjax.dsgd(make_learners(), ddjax.weighted_average())
    state, states = rounds(algorithm, problem, 20)
    x, y, w = np.asarray(problem.x, float), np.asarray(problem.y), np.asarray(problem.network.dense(), float)
    dense = states[0].devices[0].params["dense"]
    theta = [(np.asarray(dense["kernel"][n], float), np.asarray(dense["bias"][n], float)) for n in range(DEVICES)]
    for t in range(20):
        drawn = Drawn(jax.random.fold_in(jax.random.key(7), t), problem)
        half = [
            numpy_step(*theta[n], x[drawn.private[n][0]], y[drawn.private[n][0]], x[:1], None) for n in range(DEVICES)
        ]
        theta = [tuple(sum(w[n, m] * half[m][part] for m in range(DEVICES)) for part in (0, 1)) for n in range(DEVICES)]
    close(state.devices[0].params["dense"]["kernel"], np.array([kernel for kernel, _ in theta]), 1e-4)


def one_step(learner):
    """Gradient and update of one device, `(key, device, minibatch, reference, targets) → (device, info)`."""

    def step(key, device, *arguments):
        gradient, info = learner.gradient(key, device.params, *arguments)
        return learner.update(device, gradient), info

    return step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("consensus", "names"),
    [
        ("gradient", ("linear", "mlp", "cnn", "mlp")),
        ("tracking", ("linear", "mlp", "cnn", "mlp")),
        ("neighbors", ("linear", "mlp", "cnn", "mlp")),
        ("gradient", ("linear", "mlp", "cnn", "resnet8")),
    ],
)
def test_mixed_network_is_a_loop_over_single_devices(consensus, names):
    """Stacked groups of several architectures against unstacked devices that only interact when they mix."""
    problem = image_problem(devices=8)
    population = make_learners(names, 8, (8, 8), chunk=1)
    half = problem.reference.shape[0] // 2  # so that rows are drawn again
    state, states = rounds(make_distillation(population, consensus, reference_batch_size=half), problem, 4)

    singles, devices = [], []
    for group, stacked in zip(population.groups, states[0].devices, strict=True):
        step, predict = jax.jit(one_step(group.learner)), jax.jit(group.learner.predict)
        for i in range(group.size):
            singles.append((step, predict))
            devices.append(jax.tree.map(lambda leaf, i=i: leaf[i], stacked))
    w = np.asarray(problem.network.dense())
    z = np.full((8, problem.reference.shape[0], CLASSES), 1 / CLASSES, np.float32)
    previous = z.copy()
    for t in range(4):
        drawn = Drawn(jax.random.fold_in(jax.random.key(7), t), problem, reference_batch_size=half)
        b, reference = drawn.reference, problem.reference[drawn.reference]
        predicted = np.array(
            [predict(device, reference) for (_, predict), device in zip(singles, devices, strict=True)]
        )
        targets = np.einsum("nm,mbk->nbk", w, predicted) if consensus == "neighbors" else z[:, b].clip(0, 1)
        for n, (step, _) in enumerate(singles):
            rows = drawn.private[n][0]
            batch = problem.x[rows], problem.y[rows], None
            devices[n], _info = step(jax.random.key(0), devices[n], batch, reference, jnp.asarray(targets[n]))
        if consensus == "gradient":
            z[:, b] = np.einsum("nm,mbk->nbk", w, z[:, b]) + STEP * (predicted - z[:, b])
        elif consensus == "tracking":
            z[:, b] = np.einsum("nm,mbk->nbk", w, z[:, b] + predicted - previous[:, b])
        previous[:, b] = predicted
    for g, stacked in enumerate(state.devices):
        for i in range(2):
            close(jax.tree.map(lambda leaf, i=i: leaf[i], stacked.params), devices[2 * g + i].params, 2e-4)
    if consensus != "neighbors":
        close(state.estimate, z, 1e-4)
        assert np.ptp(z, axis=0).max() > 1e-3  # the comparison is not empty
    if consensus == "tracking":
        close(state.previous, previous, 1e-4)


@pytest.mark.parametrize("consensus", ["gradient", "tracking", "neighbors"])
def test_zero_weight_is_isolated_training(problem, consensus):
    population = make_learners(distillation_weight=0.0)
    distilled, _ = rounds(make_distillation(population, consensus), problem, 10)
    alone, _ = rounds(ddjax.local(population), problem, 10)
    close(distilled.devices, alone.devices)


def test_identity_mixing_is_isolated_training(problem):
    problem = problem._replace(network=as_network(jnp.eye(DEVICES)))
    population = make_learners()
    mixed, states = rounds(ddjax.dsgd(population, ddjax.weighted_average()), problem, 10)
    local = ddjax.local(population)
    alone, _ = rounds(
        local, problem, 10, state=local.init(jax.random.key(0), problem)._replace(devices=states[0].devices)
    )
    close(mixed.devices, alone.devices)


def test_no_device_hears_of_another_without_links(problem):
    problem = problem._replace(network=as_network(jnp.eye(DEVICES)))
    changed = problem._replace(y=problem.y.at[problem.private_indices[2, : problem.private_counts[2]]].set(0))
    algorithm = make_distillation(make_learners())
    (a, _), (b, _) = rounds(algorithm, problem, 10), rounds(algorithm, changed, 10)
    same = (a.estimate == b.estimate).all((1, 2))
    assert same.tolist() == [True, True, False, True, True, True]


def test_uniform_mixing_from_a_common_start_is_sgd_on_the_mean_gradient():
    problem = small_problem("complete", partition="iid")
    population = make_learners()
    state, states = rounds(ddjax.dsgd(population, ddjax.weighted_average()), problem, 15)
    params = jax.tree.map(lambda leaf: leaf[0], states[0].devices[0].params)

    def loss(params, x, y):
        logits = x @ params["dense"]["kernel"].T + params["dense"]["bias"]
        return losses.softmax_cross_entropy(logits, y).mean()

    for t in range(15):
        drawn = Drawn(jax.random.fold_in(jax.random.key(7), t), problem)
        rows = np.concatenate([steps[0] for steps in drawn.private])  # equal minibatches: the mean of their gradients
        params = jax.tree.map(
            lambda p, g: p - RATE * g, params, jax.grad(loss)(params, problem.x[rows], problem.y[rows])
        )
    for n in range(DEVICES):
        close(jax.tree.map(lambda leaf, n=n: leaf[n], state.devices[0].params), params, 1e-5)


def test_tracking_keeps_the_mean_of_the_last_soft_decisions():
    """mean_n z_n = mean_n s_n^prev, to float precision, over 100 rounds and a mixed network."""
    problem = small_problem()
    algorithm = make_distillation(make_learners(("linear", "mlp")), "tracking")
    _, states = rounds(algorithm, problem, 100)
    for state in states[1::9]:
        np.testing.assert_allclose(state.estimate.mean(0), state.previous.mean(0), atol=2e-6)
    assert not np.allclose(states[-1].estimate, states[-1].previous, atol=1e-2)


def test_mixing_preserves_the_mean_and_counts_messages(problem):
    x = {
        "a": jax.random.normal(jax.random.key(0), (DEVICES, 3, 2)),
        "b": jax.random.normal(jax.random.key(1), (DEVICES,)),
    }
    mixer = ddjax.weighted_average()
    mixed, _, sent = mixer.mix(None, x, mixer.init(x, 1), one_round(problem.network))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a.mean(0), b.mean(0), atol=1e-6), x, mixed)
    np.testing.assert_array_equal(sent.peer["value"], np.roll(np.eye(DEVICES), 1, 0) + np.roll(np.eye(DEVICES), -1, 0))
    assert mixer.message_bytes(x, 1).peer == {"value": (6 + 1) * 4}


def test_messages_are_counted_where_they_are_sent():
    """Device 0 sends to 1 and 2, which send to no device: column 0 holds the weights."""
    mixing_matrix = jnp.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]])
    _, _, sent = ddjax.weighted_average().mix(None, jnp.ones((3, 2)), ddjax.MixerState(), one_round(mixing_matrix))
    assert sent.peer["value"].sum(0).tolist() == [2, 0, 0]


def test_gradient_consensus_settles_at_the_closed_form():
    """With constant soft decisions (learning rate 0), z → ζ ((1 + ζ) I − W)⁻¹ s, which is biased unless ζ → 0."""
    problem = small_problem()
    population = make_learners(optimizer=optax.sgd(0.0))
    algorithm = ddjax.distillation(
        population, ddjax.weighted_average(), reference_batch_size=20, consensus="gradient", consensus_step_size=STEP
    )
    state, states = rounds(algorithm, problem, 150)
    s = np.asarray(population.predict(states[0].devices, problem.reference), float)
    w = np.asarray(problem.network.dense(), float)
    expected = np.einsum("nm,mrk->nrk", STEP * np.linalg.inv((1 + STEP) * np.eye(DEVICES) - w), s)
    close(state.estimate, expected, 1e-5)


def test_tracking_and_complete_neighbors_reach_the_exact_mean():
    population = make_learners(optimizer=optax.sgd(0.0))
    kwargs = {"reference_batch_size": 20}
    problem = small_problem()
    tracking = ddjax.distillation(population, ddjax.weighted_average(), consensus="tracking", **kwargs)
    state, states = rounds(tracking, problem, 150)
    s = population.predict(states[0].devices, problem.reference)
    close(state.estimate, np.broadcast_to(s.mean(0), s.shape), 1e-5)
    problem = small_problem("complete")
    neighbors = ddjax.distillation(population, ddjax.weighted_average(), consensus="neighbors", **kwargs)
    _, info = neighbors.round(jax.random.key(0), states[0]._replace(estimate=None, previous=None), problem)
    expected = ((s - s.mean(0)) ** 2).sum(-1).mean(1)
    close(info.distillation_loss, expected, 1e-5)


def test_schedules_follow_the_rounds():
    """ζ is 0, then 1 from round 2 on; η is halved each round, for any number of local steps."""
    problem, population = small_problem(), make_learners()
    _, never = rounds(make_distillation(population, step=0.0), problem, 4)
    _, later = rounds(make_distillation(population, step=lambda t: jnp.where(t < 2, 0.0, 1.0)), problem, 4)
    close(never[2], later[2], 0)
    assert not np.allclose(never[3].estimate, later[3].estimate)


def test_learning_rate_schedule_counts_rounds_not_steps():
    from ddjax.experiments import Settings, build

    plain_settings = Settings(algorithm="local", devices=4, models="linear", local_steps=2, rounds=4)
    falling = dataclasses.replace(plain_settings, learning_rate_schedule="inverse_time:1", learning_rate=0.3)
    scheduled = build(falling)
    found = [build(dataclasses.replace(plain_settings, learning_rate=rate)) for rate in (0.3, 0.15)]
    state, _ = rounds(scheduled.algorithm, scheduled.problem, 2)
    plain = found[0].algorithm.init(jax.random.key(3), scheduled.problem)
    for built in found:  # one round at each of 0.3 / (1 + t)
        plain, _ = rounds(built.algorithm, built.problem, 1, state=plain)
    close(state.devices[0].params, plain.devices[0].params, 1e-6)


def test_device_chunks_change_nothing():
    """Vectorized, in chunks that do and do not divide the group, and one by one."""
    problem = small_problem()
    results = [rounds(make_distillation(make_learners(chunk=chunk)), problem, 10)[0] for chunk in (None, 1, 3, 4)]
    for other in results[1:]:
        close(results[0], other, 1e-5)


def test_only_the_drawn_rows_change(problem):
    algorithm = make_distillation(make_learners(), "tracking")
    _, states = rounds(algorithm, problem, 1)
    drawn = Drawn(jax.random.fold_in(jax.random.key(7), 0), problem).reference
    changed = np.flatnonzero((states[1].estimate != states[0].estimate).any((0, 2)))
    assert set(changed) == set(drawn)


def test_centralized_holds_all_examples(problem):
    pooled = ddjax.pool(problem)
    held = np.asarray(pooled.private_indices[0])
    assert sorted(held) == list(range(len(problem.x)))
    assert pooled.private_counts.tolist() == [len(problem.x)]


def test_mixed_architectures_cannot_share_parameters():
    with pytest.raises(InputError, match="shares parameters"):
        ddjax.dsgd(make_learners(("linear", "mlp")), ddjax.weighted_average())


@pytest.mark.parametrize("size", [0, 21])
def test_reference_batch_must_fit(problem, size):
    algorithm = ddjax.distillation(make_learners(), ddjax.weighted_average(), reference_batch_size=size)
    with pytest.raises(InputError, match="reference_batch_size"):
        algorithm.init(jax.random.key(0), problem)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_by_name_takes_a_schedule_and_keeps_its_state_shapes(name):
    params = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}
    built = OPTIMIZERS[name].build(lambda count: 0.01 / (1 + count))
    state = built.init(params)
    updates, after = built.update(params, state, params)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert any(jnp.abs(update).max() > 0 for update in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw"])
def test_optimizers_train(problem, name):
    algorithm = ddjax.local(make_learners(optimizer=OPTIMIZERS[name].build(0.01)))
    first = algorithm.round(jax.random.key(0), algorithm.init(jax.random.key(0), problem), problem)[1].loss.mean()
    state, _ = rounds(algorithm, problem, 60)
    assert algorithm.round(jax.random.key(0), state, problem)[1].loss.mean() < first


def test_temperature_softens_what_is_sent(problem):
    device = make_learners().init(jax.random.key(0))
    sharp, soft = (make_learners(temperature=t).predict(device, problem.reference) for t in (1.0, 4.0))
    expected = softmax(np.log(sharp) / 4)
    close(soft, expected, 1e-5)
