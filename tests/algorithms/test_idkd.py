"""IDKD: a plain loop over devices in NumPy, and D-SGD as its limit case."""

import jax
import numpy as np
import pytest
from loops import softmax
from sklearn.metrics import roc_curve
from small import BATCH, CLASSES, DEVICES, RATE, close, make_learners, rounds, small_problem

import ddjax
from ddjax.algorithms.idkd import roc_threshold
from ddjax.errors import InputError
from ddjax.experiments import Settings, build
from ddjax.learning import round_keys

KEY, AFTER, THRESHOLD = jax.random.key(7), 5, 0.6


def make(after=AFTER, threshold=THRESHOLD, detector="msp", **kwargs):
    return ddjax.idkd(
        make_learners(**kwargs),
        ddjax.weighted_average(),
        homogenize_after=after,
        detector=detector,
        confidence_threshold=threshold,
    )


def detected(detector, own, public):
    """`[R]` whether a device takes a reference example for one of its own kind, from the logits of both."""
    if detector == "msp":
        return softmax(public).max(1) > THRESHOLD
    score = {"msp_roc": lambda f: softmax(f).max(1), "energy_roc": lambda f: np.log(np.exp(f).sum(1))}[detector]
    scores = np.concatenate([score(own), score(public)])
    false, true, thresholds = roc_curve(np.arange(len(scores)) < len(own), scores, drop_intermediate=False)
    return score(public) >= thresholds[np.argmax(true - false > (true - false).max() - 1e-9)] - 1e-6


@pytest.mark.parametrize(
    ("product", "detector"), [("dense", "msp"), ("gather", "msp"), ("dense", "msp_roc"), ("dense", "energy_roc")]
)
def test_idkd_is_the_paper_pseudocode_in_numpy(product, detector):
    problem = small_problem("barabasi_albert:2", product=product)
    algorithm = make(detector=detector)
    state, states = rounds(algorithm, problem, 12)
    x, y, public = np.asarray(problem.x, float), np.asarray(problem.y), np.asarray(problem.reference, float)
    w, held = np.asarray(problem.network.dense(), float), np.asarray(problem.private_indices)
    dense = states[0].devices[0].params["dense"]
    models = [(np.asarray(dense["kernel"][n], float), np.asarray(dense["bias"][n], float)) for n in range(DEVICES)]
    learned = [{} for _ in range(DEVICES)]
    for t in range(12):
        train = round_keys(jax.random.fold_in(KEY, t)).train
        half = []
        for n, size in enumerate(np.asarray(problem.private_counts)):
            own = held[n, :size]
            inputs = np.array([*x[own], *(public[i] for i in learned[n])])
            labels = np.array([*np.eye(CLASSES)[y[own]], *learned[n].values()])
            key = jax.random.split(jax.random.fold_in(jax.random.fold_in(train, n), 0))[0]
            rows = np.asarray(jax.random.randint(key, (BATCH,), 0, len(inputs)))
            kernel, bias = models[n]
            error = (softmax(inputs[rows] @ kernel.T + bias) - labels[rows]) / BATCH
            half.append((kernel - RATE * error.T @ inputs[rows], bias - RATE * error.sum(0)))
        models = [
            tuple(sum(w[n, m] * half[m][part] for m in range(DEVICES)) for part in (0, 1)) for n in range(DEVICES)
        ]
        if t + 1 == AFTER:
            said = [softmax(public @ kernel.T + bias) for kernel, bias in models]
            own = [x[held[n, :size]] for n, size in enumerate(np.asarray(problem.private_counts))]
            sures = [
                detected(detector, own[n] @ kernel.T + bias, public @ kernel.T + bias)
                for n, (kernel, bias) in enumerate(models)
            ]
            for n in range(DEVICES):
                for i in range(len(public)):
                    sure = [said[m][i] for m in np.flatnonzero(w[n]) if sures[m][i]]
                    if sure:
                        learned[n][i] = np.mean(sure, axis=0)
    found = state.devices[0].params["dense"]
    for n, (kernel, bias) in enumerate(models):
        close((found["kernel"][n], found["bias"][n]), (kernel, bias), 2e-4)
    assert [len(labels) for labels in learned] == state.taken.sum(1).tolist()
    assert 0 < state.taken.sum() < state.taken.size

    _, info = jax.jit(algorithm.round)(jax.random.fold_in(KEY, AFTER - 1), states[AFTER - 1], problem)
    sent = problem.network.sent_by_device(np.asarray(info.messages.peer["soft label"]))
    degree = (w != 0).sum(0) - 1
    assert sent.tolist() == [degree[n] * sures[n].sum() for n in range(DEVICES)]
    assert algorithm.message_bytes(problem).peer["soft label"] == 4 * CLASSES + 4
    assert info.messages.peer["value"].sum() == degree.sum()


def test_where_nobody_is_sure_it_is_dsgd():
    problem = small_problem()
    expected = rounds(ddjax.dsgd(make_learners(), ddjax.weighted_average()), problem, 8)[0]
    state = rounds(make(after=2, threshold=1.0), problem, 8)[0]
    close(state.devices, expected.devices)
    assert not state.taken.any()


def test_a_device_that_cannot_tell_its_own_examples_labels_none():
    """Then no threshold beats the one above all scores; padding has no effect."""
    public = np.array([0.2, 0.9, 0.8])
    for private, count, expected in (
        ([0.1, 0.15, 5.0], 2, np.inf),
        ([0.85, 0.1, 0.0], 1, 0.85),
        ([0.95, 0.85, 0.1], 3, 0.95),
        ([0.95, 0.92, 0.0], 2, 0.92),
    ):
        assert float(roc_threshold(np.array(private), np.int32(count), public)) == pytest.approx(expected)


def test_what_idkd_cannot_do_with_is_refused():
    with pytest.raises(InputError, match="confidence_threshold"):
        make(threshold=1.5)
    with pytest.raises(InputError, match="homogenize_after must be at least 1"):
        make(after=0)
    with pytest.raises(InputError, match="did you mean 'energy_roc'"):
        make(detector="energy_rock")
    with pytest.raises(InputError, match="homogenize_after 5 lies beyond the last of the 4 rounds"):
        build(Settings(algorithm="idkd", devices=4, models="linear", rounds=4, homogenize_after=5))
    with pytest.raises(InputError, match="know the whole reference set"):
        make().check(small_problem(reference_known=0.5))
    with pytest.raises(InputError, match="idkd has its own loss"):
        make(prior_adjustment=1.0).check(small_problem())
