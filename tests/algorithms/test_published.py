"""All algorithms except distillation, and the mixers: loops over devices in NumPy, limit cases, invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import Drawn, numpy_step, softmax, with_bias
from small import (
    BATCH,
    CLASSES,
    DEVICES,
    DIMENSIONS,
    RATE,
    REFERENCE_BATCH,
    STEP,
    close,
    compressor,
    make_distillation,
    make_learners,
    matrix_of,
    one_round,
    rounds,
    server_distillation,
    small_problem,
)

import ddjax
from ddjax.data.synthetic import synthetic_classification
from ddjax.errors import InputError
from ddjax.learning import draw, round_keys
from ddjax.mixing import MIXERS
from ddjax.mixing.gossip import gossip
from ddjax.networks import as_network, build_topology
from ddjax.theory import least_squares

KEY = jax.random.key(7)  # of `rounds`

# The graph is strongly connected, but without self-loops no doubly stochastic matrix has exactly these links: device 1
# hears only from 0 and must give it weight 1, so 2 could not hear from 0. Columns sum to 1.
UNBALANCED = jnp.array([[0.0, 0.0, 1.0], [0.5, 0.0, 0.0], [0.5, 1.0, 0.0]])


def theta(stacked):
    """Kernel and bias of each device, in double precision."""
    dense = stacked.params["dense"]
    kernels, biases = np.asarray(dense["kernel"], float), np.asarray(dense["bias"], float)
    return [(kernels[n].copy(), biases[n].copy()) for n in range(len(kernels))]


def vector(pair):
    """Bias and kernel as one vector, in the order of the flattened parameters."""
    return np.concatenate([pair[1], pair[0].ravel()])


def parts(flat):
    return flat[CLASSES:].reshape(CLASSES, DIMENSIONS), flat[:CLASSES]


def same_parameters(devices, expected, tolerance=1e-4):
    close(devices[0].params["dense"]["kernel"], np.array([kernel for kernel, _ in expected]), tolerance)
    close(devices[0].params["dense"]["bias"], np.array([bias for _, bias in expected]), tolerance)


def arrays(problem):
    return np.asarray(problem.x, float), np.asarray(problem.y), np.asarray(problem.network.dense(), float)


def local_step(pair, rows, x, y):
    return numpy_step(*pair, x[rows], y[rows], x[:1], None)[:2]


# CHOCO-SGD


def test_choco_is_the_algorithm_box_in_numpy():
    problem, step_size, k = small_problem(), 0.3, 4
    algorithm = ddjax.dsgd(make_learners(), ddjax.choco(compressor(f"top_k:{k}"), step_size))
    state, states = rounds(algorithm, problem, 20)
    x, y, w = arrays(problem)
    own = [vector(pair) for pair in theta(states[0].devices[0])]
    public = [np.zeros_like(v) for v in own]
    for t in range(20):
        drawn = Drawn(jax.random.fold_in(KEY, t), problem)
        half = [vector(local_step(parts(own[n]), drawn.private[n][0], x, y)) for n in range(DEVICES)]
        for n in range(DEVICES):
            difference = half[n] - public[n]
            kept = np.argsort(-np.abs(difference))[:k]
            public[n][kept] += difference[kept]
        own = [
            half[n] + step_size * sum(w[n, m] * (public[m] - public[n]) for m in range(DEVICES)) for n in range(DEVICES)
        ]
    same_parameters(state.devices, [parts(v) for v in own])


def test_choco_without_compression_is_dsgd(problem):
    population = make_learners()
    exact = ddjax.dsgd(population, ddjax.choco(compressor("identity"), 1.0))
    plain = ddjax.dsgd(population, ddjax.weighted_average())
    close(rounds(exact, problem, 20)[0].devices, rounds(plain, problem, 20)[0].devices)
    distilled = [
        rounds(
            ddjax.distillation(population, mixer, reference_batch_size=REFERENCE_BATCH, consensus="tracking"),
            problem,
            20,
        )
        for mixer in (ddjax.choco(compressor("identity"), 1.0), ddjax.weighted_average())
    ]
    close(distilled[0][0].estimate, distilled[1][0].estimate)


@pytest.mark.parametrize("spec", ["top_k:3", "random_k:3", "qsgd:2", "sign"])
def test_choco_gossip_reaches_the_average(spec):
    """Any contraction with a small enough γ converges linearly and keeps the mean."""
    x = {
        "a": jax.random.normal(jax.random.key(0), (DEVICES, 4, 3)),
        "b": jax.random.normal(jax.random.key(1), (DEVICES,)),
    }
    mixer, network = ddjax.choco(compressor(spec), 0.1), one_round(small_problem().network)
    state, mean = mixer.init(x, 1), jax.tree.map(lambda leaf: leaf.mean(0), x)
    step = jax.jit(mixer.mix)
    for t in range(600):
        x, state, sent = step(jax.random.key(t), x, state, network)
    close(jax.tree.map(lambda leaf: leaf.mean(0), x), mean, 1e-4)
    assert max(float(jnp.ptp(leaf, axis=0).max()) for leaf in x.values()) < 0.05
    assert sent.peer["difference"].sum() == 2 * DEVICES


# Push-sum


def test_push_sum_is_the_algorithm_box_in_numpy():
    problem = small_problem(devices=3)._replace(network=as_network(UNBALANCED))
    algorithm = ddjax.dsgd(make_learners(size=3), ddjax.push_sum())
    state, states = rounds(algorithm, problem, 25)
    x, y, p = arrays(problem)
    numerator = [vector(pair) for pair in theta(states[0].devices[0])]
    weight = np.ones(3)
    for t in range(25):
        drawn = Drawn(jax.random.fold_in(KEY, t), problem)
        half = []
        for n in range(3):
            z = numerator[n] / weight[n]
            gradient_step = vector(local_step(parts(z), drawn.private[n][0], x, y)) - z
            half.append(numerator[n] + gradient_step)
        numerator = [sum(p[n, m] * half[m] for m in range(3)) for n in range(3)]
        weight = p @ weight
    same_parameters(state.devices, [parts(u / w) for u, w in zip(numerator, weight, strict=True)])
    assert np.ptp(weight) > 0.1


def test_push_sum_reaches_the_exact_average_where_no_doubly_stochastic_matrix_exists():
    """Also on a directed graph from a file, with the weights built for it; plain averaging misses the mean."""
    irregular = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0]]) + np.eye(4)
    for matrix in (UNBALANCED, jnp.asarray(irregular / irregular.sum(0), jnp.float32)):
        network = one_round(matrix)
        start = jax.random.normal(jax.random.key(0), (len(matrix), 5))
        mixer, plain, x = ddjax.push_sum(), start, start
        state = mixer.init(x, 1)
        for _ in range(200):
            x, state, _ = mixer.mix(None, x, state, network)
            plain = matrix @ plain
        np.testing.assert_allclose(x, np.broadcast_to(start.mean(0), x.shape), atol=1e-5)
        assert np.abs(plain - start.mean(0)).max() > 0.1


def test_push_sum_on_a_doubly_stochastic_matrix_is_dsgd():
    problem = small_problem("directed_exponential")
    pushed, plain = (
        rounds(ddjax.dsgd(make_learners(), mixer), problem, 20)[0]
        for mixer in (ddjax.push_sum(), ddjax.weighted_average())
    )
    close(pushed.devices, plain.devices)


def test_tracking_over_push_sum_reaches_the_exact_mean():
    """With a frozen population, every row ends at the mean of the soft decisions, however often it was drawn."""
    population = make_learners(size=3, optimizer=optax.sgd(0.0))
    problem = small_problem(devices=3)._replace(network=as_network(UNBALANCED))
    algorithm = ddjax.distillation(population, ddjax.push_sum(), reference_batch_size=7, consensus="tracking")
    state, states = rounds(algorithm, problem, 400)
    s = population.predict(states[0].devices, problem.reference)
    close(state.estimate, np.broadcast_to(s.mean(0), s.shape), 1e-4)


def test_the_consensus_step_size_of_push_sum_is_stable_up_to_its_limit(tmp_path):
    """`z ← mix(z) + ζ (0 − z)` through the mixer itself, a little below the limit and a little above."""
    path = tmp_path / "graph.txt"
    path.write_text("0 1\n0 2\n0 3\n1 2\n2 0\n3 2\n")
    built = build_topology(f"directed_edges:{path}", 4, stochastic="column")
    limit = built.largest_consensus_step_size()
    mixer, network = ddjax.push_sum(), one_round(built.network)
    start = jax.random.normal(jax.random.key(0), (4, 3))

    def size_after(step_size):
        def one(_, carry):
            z, state = carry
            mixed, state, _ = mixer.mix(None, z, state, network)
            return mixed - step_size * z, state

        return float(jnp.abs(jax.lax.fori_loop(0, 600, one, (start, mixer.init(start, 1)))[0]).max())

    assert size_after(0.97 * limit) < 1e-2
    assert size_after(1.03 * limit) > 1e2


def test_no_limit_is_made_up_for_push_sum_on_a_network_that_changes(tmp_path):
    for name, edges in (("a", "0 1\n1 2\n2 3\n"), ("b", "3 0\n")):
        (tmp_path / name).write_text(edges)
    spec = f"alternating:directed_edges:{tmp_path / 'a'}+directed_edges:{tmp_path / 'b'}"
    with pytest.raises(InputError, match="use consensus tracking"):
        build_topology(spec, 4, stochastic="column").largest_consensus_step_size()


# Gossip learning


@pytest.mark.parametrize(("by_age", "period", "delay"), [(False, 1, 0), (True, 1, 0), (False, 3, 0), (False, 3, 4)])
def test_gossip_is_the_algorithm_box_in_numpy(by_age, period, delay):
    """Also with turns, delays and the step size `η/t`, where `t` counts all minibatches of a model up to this one."""
    problem, count = small_problem("complete"), 12 + 4 * delay
    optimizer = optax.sgd(lambda count: RATE / (1 + count)) if by_age else None
    learners = make_learners(optimizer=optimizer)
    algorithm = ddjax.gossip(learners, schedule_by_age=by_age, push_period=period, message_delay=delay)
    state, states = rounds(algorithm, problem, count)
    x, y, _ = arrays(problem)
    own, age = theta(states[0].devices[0]), np.zeros(DEVICES, int)
    turn = np.zeros(DEVICES, int) if period == 1 else np.asarray(state.turn)
    assert period == 1 or 1 < len(set(turn)) <= period
    under_way = []  # (round in which it arrives, receiver, place in the order of its round, parameters, age)
    most = overtaken = 0
    for t in range(count):
        keys = round_keys(jax.random.fold_in(KEY, t))
        pushing, ordering, _ = jax.random.split(keys.mix, 3)
        targets = np.asarray(problem.network.push_targets(pushing))
        late = np.asarray(jax.random.randint(jax.random.fold_in(keys.mix, 3), targets.shape, 0, delay + 1))
        order = np.asarray(jax.random.uniform(ordering, (DEVICES * (delay + 1),)))
        for m in range(DEVICES):
            if t % period == turn[m]:
                under_way.append((t + late[m], targets[m], m * (delay + 1) + t % (delay + 1), own[m], age[m]))
        arriving = [message for message in under_way if message[0] == t]
        overtaken += sum(due > t for due, *_ in under_way[: under_way.index(arriving[-1])]) if arriving else 0
        for n in range(DEVICES):
            inbox = sorted((order[place], theirs, old) for _, to, place, theirs, old in arriving if to == n)
            most = max(most, len(inbox))
            for number, (_, theirs, old) in enumerate(inbox):
                a = old / (age[n] + old) if age[n] + old else 0.5
                merged = tuple((1 - a) * mine + a * other for mine, other in zip(own[n], theirs, strict=True))
                age[n] = max(age[n], old)
                key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(keys.train, number), n), 0)
                drawn = jax.random.randint(jax.random.split(key)[0], (BATCH,), 0, problem.private_counts[n])
                age[n] += BATCH
                step = local_step(merged, np.asarray(problem.private_indices)[n, np.asarray(drawn)], x, y)
                slower = BATCH / age[n] if by_age else 1
                own[n] = tuple(before + slower * (new - before) for before, new in zip(merged, step, strict=True))
    assert most > 1  # some device received several messages in one round
    assert bool(overtaken) is bool(delay)
    same_parameters(state.devices, own)
    assert state.age.tolist() == age.tolist()


def test_late_messages_of_gossip_are_counted_when_they_are_sent():
    """A device sends once per period; all messages arrive, except those under way at the end."""
    problem, algorithm = small_problem(), ddjax.gossip(make_learners(), push_period=3, message_delay=4)
    state, step = algorithm.init(jax.random.key(0), problem), jax.jit(algorithm.round)
    sent, steps, turn = np.zeros((30, DEVICES), int), 0, np.asarray(state.turn)
    for t in range(30):
        state, info = step(jax.random.key(t), state, problem)
        sent[t] = np.asarray(info.messages.peer["parameters and age"]).sum(0)
        steps += int(info.steps.sum())
    np.testing.assert_array_equal(sent, np.arange(30)[:, None] % 3 == turn)
    late = (np.asarray(state.under_way.due) >= 30) & (np.asarray(state.under_way.target) < DEVICES)
    assert steps == sent.sum() - late.sum() < sent.sum()


@pytest.mark.parametrize(("given", "message"), [({"push_period": 0}, "push_period"), ({"message_delay": -1}, "delay")])
def test_gossip_refuses_periods_and_delays_that_are_none(given, message):
    with pytest.raises(InputError, match=message):
        ddjax.gossip(make_learners(), **given)


def test_ages_count_the_examples_of_each_device(problem):
    """Each receiver trains two epochs per message; after one round, all sent models had age zero."""
    algorithm = ddjax.gossip(ddjax.Population(make_learners().groups, BATCH, local_epochs=2))
    state, info = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)
    sizes, heard = np.asarray(problem.private_counts), np.asarray(info.messages.peer["parameters and age"]).sum(1)
    assert len(set(sizes)) > 1
    assert state.age.tolist() == (heard * 2 * sizes).tolist()


def test_a_gossip_round_sends_one_message_and_makes_one_update_a_device():
    problem = small_problem("barabasi_albert:2")
    algorithm = ddjax.gossip(make_learners())
    state = algorithm.init(jax.random.key(0), problem)
    links = np.asarray(problem.network.links())
    step = jax.jit(algorithm.round)
    for t in range(20):
        before = state
        state, info = step(jax.random.key(t), state, problem)
        pushed = np.asarray(info.messages.peer["parameters and age"])
        assert (pushed.sum(0) == 1).all()
        assert (pushed <= links).all()
        assert info.steps.tolist() == pushed.sum(1).tolist()
        silent = pushed.sum(1) == 0
        assert (state.age >= before.age).all()
        for new, old in zip(jax.tree.leaves(state.devices), jax.tree.leaves(before.devices), strict=True):
            np.testing.assert_array_equal(np.asarray(new)[silent], np.asarray(old)[silent])


def test_gossip_targets_are_uniform_over_the_out_neighbours():
    """4,000 draws on a star with a chord; every frequency within 5 standard errors (wrong once in 100,000)."""
    matrix = as_network(jnp.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 1]]) / 4)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: matrix.pushes(matrix.push_targets(key)))(keys)
    out = np.asarray(matrix.links())
    expected = out / out.sum(0)
    error = np.abs(np.asarray(drawn).mean(0) - expected)
    assert (error <= 5 * np.sqrt(expected * (1 - expected) / 4000)).all()


def test_subsampled_gossip_merges_the_sampled_part_alone():
    """With learning rate 0, each parameter ends at the receiver's value or halfway to a sender's."""
    population = make_learners(optimizer=optax.sgd(0.0))
    algorithm = ddjax.gossip(population, message_fraction=0.25)
    problem = small_problem()
    state = algorithm.init(jax.random.key(0), problem)
    state = state._replace(devices=population.init(jax.random.key(1)))
    after, info = algorithm.round(jax.random.key(2), state, problem)
    before, pushed = [vector(p) for p in theta(state.devices[0])], np.asarray(info.messages.peer["parameters and age"])
    for n, pair in enumerate(theta(after.devices[0])):
        moved = np.flatnonzero(np.abs(vector(pair) - before[n]) > 1e-7)  # a quarter of 18, rounded up
        assert len(moved) <= 5 * pushed[n].sum()
        if pushed[n].sum() == 1:
            (sender,) = np.flatnonzero(pushed[n])
            assert len(moved) >= 1  # biases start at zero everywhere
            close(vector(pair)[moved], (before[n] + before[sender])[moved] / 2)
    assert algorithm.message_bytes(problem).peer == {"parameters and age": 4 * 5 + 4}


def test_the_gossip_mixer_keeps_the_mean_in_expectation_on_a_regular_graph():
    """4,000 draws, 5 means at 5.5 standard errors: wrong once in a million; and always within the convex hull."""
    x, matrix = jax.random.normal(jax.random.key(0), (DEVICES, 5)), small_problem().network
    mix = jax.vmap(lambda key: gossip().mix(key, x, ddjax.MixerState(), one_round(matrix))[0])
    mixed = np.asarray(mix(jax.random.split(jax.random.key(1), 4000)))
    means = mixed.mean(1)
    assert (np.abs(means.mean(0) - x.mean(0)) <= 5.5 * means.std(0) / np.sqrt(4000)).all()
    assert means.std(0).min() > 0.01  # but not in each round
    assert (mixed >= x.min(0) - 1e-6).all()
    assert (mixed <= x.max(0) + 1e-6).all()


# Federated averaging


def test_fedavg_is_the_algorithm_box_in_numpy():
    """C = 1/2, two local epochs in shuffled minibatches whose last is smaller, unequal devices."""
    problem, epochs = small_problem(), 2
    population = ddjax.Population(make_learners().groups, BATCH, local_epochs=epochs)
    algorithm = ddjax.fedavg(population, fraction=0.5)
    state, states = rounds(algorithm, problem, 5)
    x, y, _ = arrays(problem)
    private, sizes = np.asarray(problem.private_indices), np.asarray(problem.private_counts)
    assert len(set(sizes)) > 1
    dense = states[0].params["dense"]
    server = np.asarray(dense["kernel"], float), np.asarray(dense["bias"], float)
    for t in range(5):
        keys = round_keys(jax.random.fold_in(KEY, t))
        chosen = np.asarray(draw(keys.mix, DEVICES, DEVICES // 2))
        results = []
        for n in chosen:
            shuffling, _ = jax.random.split(jax.random.fold_in(keys.train, n))
            uniform = np.asarray(jax.random.uniform(shuffling, (epochs, private.shape[1])))
            client = server
            for epoch in range(epochs):
                shuffled = private[n, np.argsort(uniform[epoch, : sizes[n]])]
                for start in range(0, sizes[n], BATCH):
                    client = local_step(client, shuffled[start : start + BATCH], x, y)
            results.append(client)
        share = sizes[chosen] / sizes[chosen].sum()
        server = tuple(sum(p * client[i] for p, client in zip(share, results, strict=True)) for i in (0, 1))
    close(state.params["dense"]["kernel"], server[0], 1e-4)
    close(state.params["dense"]["bias"], server[1], 1e-4)
    _, info = algorithm.round(jax.random.key(0), state, problem)
    assert info.steps.sum() == sum(epochs * -(-sizes[n] // BATCH) for n in np.flatnonzero(info.steps))


def test_fedavg_with_all_devices_and_one_full_batch_is_gradient_descent_on_the_pooled_loss():
    problem = small_problem()
    algorithm = ddjax.fedavg(ddjax.Population(make_learners().groups, batch_size=0, local_epochs=1))
    state, states = rounds(algorithm, problem, 10)
    x, y, _ = arrays(problem)
    dense = states[0].params["dense"]
    pooled = np.asarray(dense["kernel"], float), np.asarray(dense["bias"], float)
    rows = np.concatenate(
        [np.asarray(p)[:size] for p, size in zip(problem.private_indices, problem.private_counts, strict=True)]
    )
    for _ in range(10):
        pooled = local_step(pooled, rows, x, y)
    close(state.params["dense"]["kernel"], pooled[0], 1e-5)


def test_fedavg_counts_both_ways_and_starts_optimizers_afresh(problem):
    population = make_learners(optimizer=optax.sgd(RATE, momentum=0.9))
    algorithm = ddjax.fedavg(population, fraction=0.4)  # 2 of 6
    state = algorithm.init(jax.random.key(0), problem)
    _, info = algorithm.round(jax.random.key(1), state, problem)
    assert info.messages.up["parameters"].sum() == 2
    np.testing.assert_array_equal(info.messages.up["parameters"], info.messages.down["parameters"])
    assert algorithm.message_bytes(problem).up == {"parameters": 4 * (DIMENSIONS + 1) * CLASSES}
    # A single step from rest is that of plain SGD, whatever the rounds before.
    momentum, plain = (
        rounds(ddjax.fedavg(make_learners(optimizer=o)), problem, 4)[0]
        for o in (optax.sgd(RATE, momentum=0.9), optax.sgd(RATE))
    )
    close(momentum.params, plain.params)


def test_fresh_optimizers_follow_the_schedule_over_rounds(problem):
    population = make_learners(optimizer=optax.sgd(lambda count: jnp.where(count < 2, RATE, 0.0)))
    _, states = rounds(ddjax.fedavg(population), problem, 4)
    close(states[2].params, states[4].params, 1e-7)
    assert not np.allclose(states[1].params["dense"]["kernel"], states[2].params["dense"]["kernel"])


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_fedavg_fraction_must_lie_between_0_and_1(fraction):
    with pytest.raises(InputError, match=r"must lie in \(0, 1\]"):
        ddjax.fedavg(make_learners(), fraction=fraction)


# Dynamic averaging


@pytest.mark.parametrize("balancing", ["one", "hedge", "full"])
def test_dynamic_averaging_is_the_algorithm_box_in_numpy(balancing):
    # With "hedge", at most a sixth of all devices may violate first.
    size, period = (20, 1) if balancing == "hedge" else (DEVICES, 2)
    problem, threshold, count = small_problem(partition="iid", devices=size), 0.05, 60
    algorithm = ddjax.dynamic_averaging(
        make_learners(size=size), threshold=threshold, check_every=period, balancing=balancing
    )
    state, states = rounds(algorithm, problem, count)
    x, y, _ = arrays(problem)
    own = [vector(pair) for pair in theta(states[0].devices[0])]
    reference, violations = own[0], 0
    partial = full = grown = jumped = 0
    for t in range(count):
        round_key = jax.random.fold_in(KEY, t)
        drawn = Drawn(round_key, problem)
        own = [vector(local_step(parts(own[n]), drawn.private[n][0], x, y)) for n in range(size)]
        if (t + 1) % period:
            continue
        members = [n for n in range(size) if ((own[n] - reference) ** 2).sum() > threshold]
        if not members:
            continue
        violations += len(members)
        due = violations >= {"one": size, "hedge": np.inf, "full": 1}[balancing]
        waiting = np.argsort(np.asarray(jax.random.uniform(round_keys(round_key).mix, (size,))))
        waiting = [n for n in waiting if n not in members]
        if due:
            violations = 0
            members, waiting = list(range(size)), []
        while waiting and ((np.mean([own[n] for n in members], 0) - reference) ** 2).sum() > threshold:
            polls = 1
            if (
                balancing == "hedge"
            ):  # as in the authors' library: two per model, or all if these were half of the devices
                polls = min(2 * len(members), len(waiting))
                polls = len(waiting) if len(members) + polls >= size / 2 else polls
                jumped |= 1 < polls < len(waiting)
            members, waiting = members + waiting[:polls], waiting[polls:]
        average = np.mean([own[n] for n in members], 0)
        for n in members:
            own[n] = average
        if len(members) == size:
            reference = average
            full += due
            grown += not due
        else:
            partial += 1
    assert bool(partial) == (balancing != "full")
    assert bool(full) == (balancing != "hedge")
    assert bool(grown) == (balancing != "full")  # a subset that grew to all devices does not reset the count
    assert bool(jumped) == (balancing == "hedge")
    same_parameters(state.devices, [parts(v) for v in own])


def test_dynamic_averaging_between_always_and_never(problem):
    """Δ = 0 synchronises at every check, which is D-SGD with a uniform W at those rounds; Δ = ∞ never sends."""
    population = make_learners()
    always = ddjax.dynamic_averaging(population, threshold=0.0, check_every=1)
    uniform = problem._replace(network=as_network(jnp.full((DEVICES, DEVICES), 1 / DEVICES)))
    close(
        rounds(always, problem, 10)[0].devices,
        rounds(ddjax.dsgd(population, ddjax.weighted_average()), uniform, 10)[0].devices,
    )
    _, info = always.round(jax.random.key(0), always.init(jax.random.key(0), problem), problem)
    assert info.messages.up["violation"].sum() == info.messages.down["average"].sum() == DEVICES
    assert info.messages.down["poll"].sum() == 0
    never = ddjax.dynamic_averaging(population, threshold=float("inf"))
    _, history = ddjax.run(never, problem, key=KEY, rounds=30, eval_every=30)
    assert history[-1].bytes.total == 0
    assert history[-1].steps == 30 * DEVICES


def test_every_poll_is_answered_and_every_sender_gets_the_average(problem):
    algorithm = ddjax.dynamic_averaging(make_learners(), threshold=0.05)
    state, polled = algorithm.init(jax.random.key(0), problem), 0
    step = jax.jit(algorithm.round)
    for t in range(30):
        state, info = step(jax.random.key(t), state, problem)
        up, down = info.messages.up, info.messages.down
        np.testing.assert_array_equal(up["answer"], down["poll"])
        np.testing.assert_array_equal(up["answer"] + up["violation"], down["average"])
        polled += int(down["poll"].sum())
    assert polled
    size = 4 * (DIMENSIONS + 1) * CLASSES
    sizes = algorithm.message_bytes(problem)
    assert sizes.up == {"violation": size, "answer": size}
    assert sizes.down == {"poll": 1, "average": size + 1}


# Server distillation, co-regularization


@pytest.mark.slow
def test_server_distillation_is_distillation_on_the_complete_graph():
    population, problem = make_learners(("linear", "mlp")), small_problem("complete")
    served = server_distillation(population, REFERENCE_BATCH)
    close(
        rounds(served, problem, 15)[0].devices,
        rounds(make_distillation(population, "neighbors"), problem, 15)[0].devices,
    )
    _, info = served.round(jax.random.key(0), served.init(jax.random.key(0), problem), problem)
    assert info.messages.peer == {}
    assert info.messages.up["value"].tolist() == info.messages.down["mean"].tolist() == [1] * DEVICES
    for consensus in ("gradient", "tracking"):
        results = [
            rounds(
                ddjax.distillation(
                    population, mixer, reference_batch_size=5, consensus=consensus, consensus_step_size=STEP
                ),
                problem,
                10,
            )[0]
            for mixer in (ddjax.server(), ddjax.weighted_average())
        ]
        close(results[0].estimate, results[1].estimate)


def least_squares_problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 2))
    sizes = np.array([12, 8, 20])
    private = np.zeros((3, 20), int)
    for n, start in enumerate(np.cumsum(sizes) - sizes):
        private[n, : sizes[n]] = np.arange(start, start + sizes[n])
    return x, y, private, sizes, rng.normal(size=(15, 4))


def co_regularized(x, y, private, sizes, reference, weight):
    problem = ddjax.Problem(x, y, private, sizes, reference, None, None, None)
    return least_squares.co_regularized(least_squares.normal_equations(problem, y.shape[1]), weight)


@pytest.mark.parametrize("weight", [0.1, 3.0])
def test_co_regularization_minimizes_the_joint_objective(weight):
    """Compared with one dense system of all devices, built from the objective instead of its normal equations."""
    x, y, private, sizes, reference = least_squares_problem()
    found = co_regularized(x, y, private, sizes, reference, weight)
    devices, features = 3, 5
    rows, targets = [], []
    for n in range(devices):
        mine = private[n, : sizes[n]]
        block = np.zeros((sizes[n], devices, features))
        block[:, n] = with_bias(x[mine])
        rows.append(block / np.sqrt(sizes[n]))
        targets.append(y[mine] / np.sqrt(sizes[n]))
        pull = -np.repeat(with_bias(reference)[:, None], devices, 1) / devices
        pull[:, n] += with_bias(reference)
        rows.append(pull * np.sqrt(weight / len(reference)))
        targets.append(np.zeros((len(reference), 2)))
    matrix = np.concatenate(rows).reshape(-1, devices * features)
    expected = np.linalg.lstsq(matrix, np.concatenate(targets))[0].reshape(devices, features, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_co_regularization_ends():
    """ρ → 0 gives the local solutions; ρ → ∞ gives agreement, at the mean of the devices' normal equations."""
    x, y, private, sizes, reference = least_squares_problem()
    apart = co_regularized(x, y, private, sizes, reference, 1e-9)
    for n in range(3):
        mine = private[n, : sizes[n]]
        np.testing.assert_allclose(apart[n], np.linalg.lstsq(with_bias(x[mine]), y[mine])[0], atol=1e-6)
    together = co_regularized(x, y, private, sizes, reference, 1e6)
    weight = np.concatenate([np.full(size, 1 / size) for size in sizes])[:, None] ** 0.5
    mine = np.concatenate([private[n, : sizes[n]] for n in range(3)])
    pooled = np.linalg.lstsq(weight * with_bias(x[mine]), weight * y[mine])[0]
    for n in range(3):
        np.testing.assert_allclose(together[n], pooled, atol=1e-4)


def test_co_regularization_runs_as_a_system(problem):
    algorithm = ddjax.co_regularization(make_learners(), distillation_weight=1.0)
    state, history = ddjax.run(algorithm, problem, key=KEY, rounds=2, eval_every=1)
    targets = np.eye(CLASSES)[np.asarray(problem.y)]
    expected = co_regularized(
        *(
            np.asarray(a)
            for a in (problem.x, targets, problem.private_indices, problem.private_counts, problem.reference)
        ),
        1.0,
    )
    np.testing.assert_allclose(state.coefficients, expected, atol=1e-4)
    x = with_bias(np.asarray(problem.x_test))
    np.testing.assert_allclose(algorithm.predict(state, problem.x_test), x @ expected, atol=1e-4)
    assert history[0].score.tolist() == history[-1].score.tolist()
    assert history[-1].bytes.total == 0


# Compressed messages, adaptive weights


@pytest.mark.parametrize("spec", ["float16", "uint8", "top_classes:2", "sign"])
def test_encoded_messages_keep_the_mean_and_the_limit(problem, spec):
    x = jax.nn.softmax(3 * jax.random.normal(jax.random.key(0), (DEVICES, 4, CLASSES)))
    mixer = ddjax.encoded(ddjax.weighted_average(), compressor(spec))
    mixed, _, _ = mixer.mix(jax.random.key(0), x, mixer.init(x, 2), one_round(problem.network))
    np.testing.assert_allclose(mixed.mean(0), x.mean(0), atol=1e-6)
    w = np.asarray(problem.network.dense(), float)
    q = np.stack([compressor(spec).compress(None, row) for row in x])
    expected = [x[n] + sum(w[n, m] * (q[m] - q[n]) for m in range(DEVICES)) for n in range(DEVICES)]
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    assert mixer.message_bytes(x, 2).peer == {"value": compressor(spec).message_bytes((4, CLASSES))}


def test_encoding_with_the_identity_changes_nothing(problem):
    for inner in (ddjax.weighted_average(), ddjax.server(), ddjax.push_sum()):
        encoded = ddjax.encoded(inner, compressor("identity"))
        results = [rounds(ddjax.dsgd(make_learners(), mixer), problem, 10)[0].devices for mixer in (inner, encoded)]
        close(*results)


def test_encoding_shrinks_the_way_up_and_leaves_the_weights_of_push_sum():
    x = jnp.zeros((DEVICES, 4, CLASSES))
    half = compressor("float16")
    served = ddjax.encoded(ddjax.server(), half).message_bytes(x, 2)
    assert (served.up, served.down) == ({"value": 24}, {"mean": 48})
    pushed = ddjax.encoded(ddjax.push_sum(), half).message_bytes(x, 2)
    assert pushed.peer == {"numerator and weight": 24 + 4 * 4}


def test_adaptive_weights_are_the_rule_in_numpy(problem):
    forgetting = 0.2
    mixer, w = ddjax.adaptive(forgetting), np.asarray(problem.network.dense(), float)
    x = jax.random.normal(jax.random.key(0), (DEVICES, 4, CLASSES))
    state, last, spread = mixer.init(x, 2), None, np.ones((DEVICES, DEVICES))
    for t in range(6):
        x = x + jax.random.normal(jax.random.key(10 + t), x.shape)
        values = np.asarray(x, float)
        expected = np.zeros_like(values)
        for n in range(DEVICES):
            neighbours = [m for m in range(DEVICES) if m != n and w[n, m]]
            for m in neighbours:
                if last is not None:
                    spread[n, m] *= 1 - forgetting
                    spread[n, m] += forgetting * ((values[m] - last[n]) ** 2).mean()
            total = sum(1 / spread[n, m] for m in neighbours)
            heard = sum(values[m] / spread[n, m] for m in neighbours) / total
            expected[n] = w[n, n] * values[n] + (1 - w[n, n]) * heard
        x, state, _ = mixer.mix(None, x, state, one_round(problem.network))
        np.testing.assert_allclose(x, expected, atol=1e-5)
        last = expected


def test_adaptive_weights_turn_away_from_a_device_that_talks_nonsense():
    problem = small_problem("complete")
    population = make_learners()
    algorithm = ddjax.distillation(population, ddjax.adaptive(), reference_batch_size=20, consensus="neighbors")
    random_labels = jax.random.randint(jax.random.key(0), problem.y.shape, 0, CLASSES)
    liar = problem.private_indices[2, : problem.private_counts[2]]
    state, _ = rounds(algorithm, problem._replace(y=problem.y.at[liar].set(random_labels[liar])), 150)
    spread = np.asarray(state.mixer.rest)
    others = [n for n in range(DEVICES) if n != 2]
    for n in others:
        assert spread[n, 2] > np.median([spread[n, m] for m in others if m != n])


@pytest.mark.parametrize(
    ("consensus", "mixer", "message"),
    [
        ("tracking", gossip(), "keeps the mean"),
        ("tracking", ddjax.adaptive(), "keeps the mean"),
        ("neighbors", ddjax.push_sum(), "keeps no estimate"),
        ("neighbors", ddjax.choco(compressor("identity"), 1.0), "keeps no estimate"),
    ],
)
def test_mixings_that_make_no_sense_are_refused(consensus, mixer, message):
    with pytest.raises(InputError, match=message):
        ddjax.distillation(make_learners(), mixer, reference_batch_size=5, consensus=consensus)


@pytest.mark.parametrize(
    "factory",
    [ddjax.gossip, ddjax.fedavg, lambda population: ddjax.dynamic_averaging(population, threshold=1.0)],
)
def test_different_architectures_cannot_share_parameters(factory):
    with pytest.raises(InputError, match="shares parameters"):
        factory(make_learners(("linear", "mlp")))


# Every mixer under distillation


@pytest.mark.parametrize("consensus", ["gradient", "tracking", "neighbors"])
@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_mixes_the_drawn_rows_alone_over_a_mixed_network(name, consensus):
    problem = small_problem()
    arguments = {"choco": (compressor("top_k:4"), 0.2)}.get(name, ())
    mixer = MIXERS[name].build(*arguments)
    refused = {("gossip", "tracking"), ("adaptive", "tracking"), ("push_sum", "neighbors"), ("choco", "neighbors")}
    try:
        algorithm = ddjax.distillation(
            make_learners(("linear", "mlp")), mixer, reference_batch_size=5, consensus=consensus
        )
    except InputError:
        assert (name, consensus) in refused
        return
    assert (name, consensus) not in refused
    before, _ = rounds(algorithm, problem, 6)
    after, _ = rounds(algorithm, problem, 1, state=before)
    drawn = Drawn(jax.random.fold_in(KEY, 6), problem).reference
    untouched = np.setdiff1d(np.arange(20), drawn)
    for old, new in zip(jax.tree.leaves(before.mixer.rows), jax.tree.leaves(after.mixer.rows), strict=True):
        np.testing.assert_array_equal(np.asarray(old)[:, untouched], np.asarray(new)[:, untouched])
    if consensus != "neighbors":
        np.testing.assert_array_equal(before.estimate[:, untouched], after.estimate[:, untouched])
        assert np.isfinite(after.estimate).all()
        assert not np.array_equal(before.estimate[:, drawn], after.estimate[:, drawn])


def test_sent_soft_decisions_are_the_softmax(problem):
    """The server of server_distillation computes the plain average of softmax outputs."""
    population = make_learners(optimizer=optax.sgd(0.0))
    algorithm = server_distillation(population, 20)
    state = algorithm.init(jax.random.key(0), problem)
    _, info = algorithm.round(jax.random.key(1), state, problem)
    x = np.asarray(problem.reference, float)
    s = np.array([softmax(x @ kernel.T + bias) for kernel, bias in theta(state.devices[0])])
    close(info.distillation_loss, ((s - s.mean(0)) ** 2).sum(-1).mean(1), 1e-5)


# Networks that change


def test_a_cycle_goes_through_its_matrices(problem):
    population = make_learners()
    first, second = (matrix_of(build_topology(name, DEVICES).network) for name in ("ring", "star"))
    algorithm = ddjax.dsgd(population, ddjax.weighted_average())
    cycle = problem._replace(network=as_network(np.stack([first, second])))
    state, _ = rounds(algorithm, cycle, 3)
    other = None
    for matrix in (first, second, first):
        fixed = problem._replace(network=as_network(matrix))
        other, _ = rounds(algorithm, fixed, 1, state=other)
    close(state.devices, other.devices, 0)


@pytest.mark.parametrize("devices", [2, 8, 16])
def test_one_peer_exponential_averages_exactly_after_one_cycle(devices):
    built = build_topology("one_peer_exponential", devices)
    x = np.random.default_rng(0).normal(size=devices)
    for matrix in built.matrices:
        assert (matrix.count_nonzero(axis=1) <= 2).all()
        x = matrix @ x
    np.testing.assert_allclose(x, x.mean(), atol=1e-12)
    assert built.spectral_gap == pytest.approx(1)


@pytest.mark.parametrize("spec", ["random_matching", "fresh_random_regular:3", "fresh_erdos_renyi:0.4"])
def test_drawn_graphs_are_doubly_stochastic_and_differ(spec):
    network = ddjax.make_problem(
        synthetic_classification(0, 8, 200, 20, 3, 4, 0.0), build_topology(spec, 8).network
    ).network
    draw = jax.jit(lambda key: network.at_round(key, 0).sent.dense())
    matrices = np.array([draw(jax.random.key(i)) for i in range(50)])
    np.testing.assert_allclose(matrices.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(matrices, matrices.transpose(0, 2, 1))
    assert matrices.min() >= 0
    assert len({matrix.tobytes() for matrix in matrices}) > 25
    degrees = (matrices != 0).sum(1) - 1
    if spec != "fresh_erdos_renyi:0.4":
        assert (degrees == {"random_matching": 1, "fresh_random_regular:3": 3}[spec]).all()
    else:  # 50 × 28 coins: 5 standard errors, wrong once in 10⁶
        links = degrees.sum() / 2 / (50 * 28)
        assert abs(links - 0.4) < 5 * np.sqrt(0.4 * 0.6 / (50 * 28))


def test_random_matchings_are_uniform():
    """All 15 pairs of 6 devices are equally frequent: 3,000 matchings, 5 standard errors each (wrong once in 10⁵)."""
    network = build_topology("random_matching", 6).network
    drawn = jax.vmap(lambda key: network.at_round(key, 0).sent.dense())(jax.random.split(jax.random.key(0), 3000))
    often = np.asarray(drawn != 0).mean(0)[np.triu_indices(6, 1)]
    assert np.abs(often - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 3000)


@pytest.mark.parametrize("spec", ["random_matching", "fresh_random_regular:3", "fresh_erdos_renyi:0.3"])
def test_disagreement_shrinks_at_the_spectral_gap_of_drawn_graphs(spec):
    """E‖x − x̄‖² after a round is (1 − gap)² times that before: 2,000 draws, 5 standard errors, and 0.03 for
    the gap itself where that is estimated from 64 draws."""
    built = build_topology(spec, 12)
    x = np.random.default_rng(1).normal(size=12)
    x -= x.mean()
    draws = jax.vmap(lambda key: built.network.at_round(key, 0).sent.dense())(jax.random.split(jax.random.key(3), 2000))
    left = ((np.asarray(draws, float) @ x) ** 2).sum(1) / (x**2).sum()
    slack = 0.03 if "erdos" in spec else 0
    assert abs(left.mean() - (1 - built.spectral_gap) ** 2) < 5 * left.std() / np.sqrt(2000) + slack


def test_changing_networks_are_the_same_for_every_algorithm_and_cut():
    """A run over random matchings gives the same numbers wherever it is cut; two systems see the same links."""
    problem = small_problem("random_matching")
    links = []
    for algorithm in (ddjax.dsgd(make_learners(), ddjax.weighted_average()), make_distillation(make_learners())):
        _, info = jax.jit(algorithm.round)(KEY, algorithm.init(KEY, problem), problem)
        links.append(info.messages.peer["value"])
        assert links[-1].sum() == DEVICES
    np.testing.assert_array_equal(*links)
    (a, _), (b, _) = (ddjax.run(algorithm, problem, key=KEY, rounds=9, eval_every=n) for n in (4, 9))
    close(a, b, 0)
