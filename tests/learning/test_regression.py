"""Numbers to predict, and double precision: against NumPy, the closed form and least squares."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import call, rows, settings, summary, sweep
from loops import Drawn, with_bias
from small import BATCH, REFERENCE_BATCH, STEP, compressor, make_distillation, rounds

import ddjax
from ddjax.experiments import build
from ddjax.learning import tasks
from ddjax.mixing import COMPRESSORS
from ddjax.models import build_model
from ddjax.networks import as_network, build_topology
from ddjax.simulation.metrics import evaluate
from ddjax.theory import least_squares
from ddjax.types import working_dtype

DEVICES, DIMENSIONS, OUTPUTS = 8, 3, 2
RATE, WEIGHT = 0.05, 2.0


@pytest.fixture
def single_again():
    """After a script that may have set the precision of the process."""
    yield
    jax.config.update("jax_enable_x64", False)


def make_problem(spec="ring", outputs=1, **kwargs):
    dataset = ddjax.load_dataset(f"synthetic_regression:{DIMENSIONS}", devices=DEVICES, train=200)
    turned = np.random.default_rng(1).normal(size=(1, outputs))
    dataset = dataset._replace(y_train=dataset.y_train @ turned, y_test=dataset.y_test @ turned, outputs=outputs)
    matrix = build_topology(spec, DEVICES).network
    return ddjax.make_problem(dataset, matrix, **{"partition": "natural", "reference_size": 40} | kwargs)


def make_learners(problem, rate=RATE, weight=WEIGHT, batch_size=BATCH, name="linear", **kwargs):
    model = build_model(name, problem.x.shape[1:], problem.y.shape[1])
    learner = ddjax.supervised_learner(
        model, optax.sgd(rate), task=tasks.REGRESSION, distillation_weight=weight, **kwargs
    )
    return ddjax.Population([ddjax.Group(learner, DEVICES)], batch_size)


def coefficients(state):
    """`[N, P + 1, K]`, the last row the bias."""
    dense = state.devices[0].params["dense"]
    return np.concatenate([np.swapaxes(dense["kernel"], 1, 2), dense["bias"][:, None]], axis=1)


def smoothness(problem, weight):
    """Of the quadratic that a device minimizes, the largest over devices."""
    shared = with_bias(np.asarray(problem.reference))
    gram = weight * shared.T @ shared / len(shared)
    own = [
        with_bias(np.asarray(problem.x)[held[:m]])
        for held, m in zip(problem.private_indices, problem.private_counts, strict=True)
    ]
    return max(2 * np.linalg.eigvalsh(a.T @ a / len(a) + gram)[-1] for a in own)


def settle(problem, consensus, weight, count):
    """Coefficients after full-batch rounds with the step size one over the smoothness, over four for `tracking`."""
    rate = 1 / smoothness(problem, weight) / (4 if consensus == "tracking" else 1)
    population = make_learners(problem, rate, weight, batch_size=0)
    algorithm = make_distillation(population, consensus, reference_batch_size=len(problem.reference))
    # A network without links, a limit case, is not refused here.
    simulation = ddjax.Simulation(algorithm._replace(check=population.check), problem)
    key = jax.random.key(0)
    return coefficients(simulation.advance(key, simulation.init(key), simulation.zeros(), count)[0])


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("consensus", ["gradient", "tracking", "neighbors"])
def test_distillation_of_numbers_is_the_pseudocode_in_numpy(consensus):
    problem = make_problem("barabasi_albert:2", OUTPUTS)
    state, states = rounds(make_distillation(make_learners(problem), consensus), problem, 20)

    x, y, public = (np.asarray(a) for a in (problem.x, problem.y, problem.reference))
    w = np.asarray(problem.network.dense())
    x, public = with_bias(x), with_bias(public)
    theta = coefficients(states[0])
    z = np.zeros((DEVICES, len(public), OUTPUTS))
    previous = z.copy()
    for t in range(20):
        drawn = Drawn(jax.random.fold_in(jax.random.key(7), t), problem)
        b = drawn.reference
        s = np.array([public[b] @ theta[n] for n in range(DEVICES)])
        targets = np.array([sum(w[n, m] * s[m] for m in range(DEVICES)) for n in range(DEVICES)])
        old = z.copy()
        for n in range(DEVICES):
            mine = drawn.private[n][0]
            target = targets[n] if consensus == "neighbors" else old[n, b]
            gradient = 2 * x[mine].T @ (x[mine] @ theta[n] - y[mine]) / len(mine)
            gradient += WEIGHT * 2 * public[b].T @ (s[n] - target) / len(b)
            theta[n] = theta[n] - RATE * gradient
            if consensus == "gradient":
                z[n, b] = sum(w[n, m] * old[m, b] for m in range(DEVICES)) + STEP * (s[n] - old[n, b])
            elif consensus == "tracking":
                z[n, b] = sum(w[n, m] * (old[m, b] + s[m] - previous[m, b]) for m in range(DEVICES))
        previous[:, b] = s
    np.testing.assert_allclose(coefficients(state), theta, rtol=1e-10, atol=1e-12)
    if consensus != "neighbors":
        np.testing.assert_allclose(state.estimate, z, rtol=1e-10, atol=1e-12)
        assert z.min() < -0.1  # where clipping to [0, 1] would show


def closed_form(problem, outputs=1):
    return least_squares.co_regularized(least_squares.normal_equations(problem, outputs), WEIGHT)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("consensus", "spec"), [("tracking", "ring"), ("neighbors", "complete")])
def test_distillation_ends_at_the_closed_form(consensus, spec):
    """Neither is biased; distillation between linear models is co-regularized least squares with the same ρ."""
    problem = make_problem(spec)
    expected = closed_form(problem)
    assert distance(expected, np.broadcast_to(expected.mean(0), expected.shape)) > 0.01  # devices stay apart
    assert distance(settle(problem, consensus, WEIGHT, 20_000), expected) < 1e-8


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", ["no weight", "no links"])
def test_isolated_devices_end_at_least_squares(case):
    """Without a link a device is its own average: the distillation loss pulls to where it is."""
    problem = make_problem()
    if case == "no links":
        problem = problem._replace(network=as_network(jnp.eye(DEVICES)))
    found = settle(problem, "tracking", 0.0 if case == "no weight" else WEIGHT, 20_000)
    for n, (held, m) in enumerate(zip(problem.private_indices, problem.private_counts, strict=True)):
        a, y = (np.asarray(array)[held[:m]] for array in (problem.x, problem.y))
        assert distance(found[n], np.linalg.lstsq(with_bias(a), y)[0]) < 1e-8


@pytest.mark.usefixtures("float64")
def test_gradient_consensus_of_a_constant_step_stays_biased():
    """So what `tracking` reaches is not what any form would."""
    problem = make_problem()
    assert distance(settle(problem, "gradient", WEIGHT, 20_000), closed_form(problem)) > 1e-3


def test_co_regularization_of_numbers_is_the_closed_form():
    problem = make_problem(outputs=OUTPUTS)
    algorithm = ddjax.co_regularization(make_learners(problem), distillation_weight=WEIGHT)
    state, history = ddjax.run(algorithm, problem, key=jax.random.key(0), rounds=1, eval_every=1)
    expected = closed_form(problem, OUTPUTS)
    np.testing.assert_allclose(state.coefficients, expected, rtol=1e-5, atol=1e-6)
    errors = with_bias(np.asarray(problem.x_test)) @ expected - np.asarray(problem.y_test)
    np.testing.assert_allclose(history[-1].score, (errors**2).sum(-1).mean(-1), rtol=1e-4)
    assert history[-1].metric == "mse"


def test_measures_of_numbers_against_numpy():
    problem = make_problem(outputs=OUTPUTS)
    population = make_learners(problem)
    devices = population.init(jax.random.key(0))
    measures = evaluate(lambda x: population.predict(devices, x), problem)
    s, y = np.asarray(population.predict(devices, problem.x_test), float), np.asarray(problem.y_test, float)
    np.testing.assert_allclose(measures.score, ((s - y) ** 2).sum(-1).mean(-1), rtol=1e-5)
    assert measures.ensemble_score == pytest.approx(((s.mean(0) - y) ** 2).sum(-1).mean(), rel=1e-5)


@pytest.mark.parametrize("size", [1e25, np.nan])
def test_an_error_that_is_not_finite_names_its_device(size):
    problem = make_problem()
    population = make_learners(problem)
    algorithm = ddjax.local(population)
    state = algorithm.init(jax.random.key(0), problem)
    broken = jax.tree.map(lambda leaf: leaf.at[5].set(size), state.devices)
    with pytest.raises(ddjax.DivergedError) as error:
        ddjax.Simulation(algorithm, problem).measure(state._replace(devices=broken))
    assert error.value.device == 5


def test_a_learner_refuses_targets_of_the_other_task():
    problem = make_problem()
    for task, y in ((tasks.CLASSIFICATION, problem.y), (tasks.REGRESSION, jnp.zeros(len(problem.y), jnp.int32))):
        learner = ddjax.supervised_learner(build_model("linear", (DIMENSIONS,), 1), optax.sgd(RATE), task=task)
        with pytest.raises(ValueError, match=f"metric is {task.metric}"):
            learner.gradient(None, learner.init(jax.random.key(0)).params, (problem.x, y, None))


# Every system, and every mixer that keeps or makes numbers of its own.
SYSTEMS = [
    ["--algorithm=distillation", "--local_epochs=2"],
    ["--consensus=tracking", "--mixing=choco", "--reference_batch_size=0", "--batch_size=0"],
    ["--consensus=neighbors", "--mixing=adaptive", "--models=linear:4+mlp:4"],
    ["--mixing=push_sum", "--topology=one_peer_exponential"],
    ["--mixing=gossip", "--topology=fresh_erdos_renyi:0.6"],
    ["--algorithm=dsgd", "--mixing_product=gather", "--optimizer=adam"],
    ["--algorithm=dsgd", "--topology=random_matching"],
    ["--algorithm=choco", "--compressor=random_k:0.5"],
    ["--algorithm=push_sum", "--topology=directed_ring", "--compressor=qsgd:4"],
    ["--algorithm=gossip", "--message_fraction=0.5"],
    ["--algorithm=fedavg", "--client_fraction=0.5", "--local_epochs=1", "--learning_rate_schedule=cosine"],
    ["--algorithm=dynamic_averaging", "--divergence_threshold=0.01", "--check_every=2"],
    ["--algorithm=server_distillation"],
    ["--algorithm=co_regularization"],
    ["--algorithm=centralized"],
    ["--dataset=digits", "--models=cnn", "--examples_per_device=4", "--reference_batch_size=9", "--eval_examples=20"],
]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("flags", SYSTEMS, ids=" ".join)
def test_every_array_of_a_run_in_double_precision_is_of_it(flags):
    fast = ["--devices=8", "--models=linear", "--rounds=3", "--learning_rate=0.01"]
    built = build(settings("--dataset=synthetic_regression", "--precision=float64", *fast, *flags))
    run = ddjax.iterate(built.simulation, key=jax.random.key(0), rounds=3, eval_every=3)
    for snapshot, _ in run:
        for path, leaf in jax.tree_util.tree_leaves_with_path((snapshot.state, built.problem)):
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                assert leaf.dtype == np.float64, jax.tree_util.keystr(path)
    info = jax.eval_shape(built.algorithm.round, jax.random.key(0), snapshot.state, built.problem)[1]
    assert info.loss.dtype == info.distillation_loss.dtype == np.float64
    assert info.steps.dtype == np.int32
    assert snapshot.state.round == 3


@pytest.mark.usefixtures("float64")
def test_deep_models_are_in_double_precision_too():
    built = build_model("resnet14", (8, 8, 3), 2)
    device = ddjax.supervised_learner(built, optax.sgd(RATE)).init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(device)} == {np.dtype(np.float64)}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_numbers_of_a_message_have_their_eight_bytes(name):
    """What is not a number (indices, levels, halves, signs) keeps its size."""
    spec = f"{name}:2" if COMPRESSORS[name].arguments else name
    single = compressor(spec).message_bytes((5, 4))
    with jax.enable_x64(True):
        double = compressor(spec).message_bytes((5, 4))
    numbers = {"identity": 20, "uint8": 2, "sign": 1, "top_classes": 15, "top_k": 2, "random_k": 2, "qsgd": 1}
    assert double - single == 4 * numbers.get(name, 0)


@pytest.mark.usefixtures("float64")
def test_messages_in_double_precision_have_eight_bytes_a_number():
    problem = make_problem(outputs=OUTPUTS)
    population = make_learners(problem)
    assert make_distillation(population).message_bytes(problem).peer == {"value": 8 * REFERENCE_BATCH * OUTPUTS}
    pushed = ddjax.distillation(population, ddjax.push_sum(), reference_batch_size=REFERENCE_BATCH)
    weighted = 8 * REFERENCE_BATCH * (OUTPUTS + 1)
    assert pushed.message_bytes(problem).peer == {"numerator and weight": weighted}
    shared = ddjax.dsgd(population, ddjax.weighted_average())
    assert shared.message_bytes(problem).peer == {"value": 8 * (DIMENSIONS + 1) * OUTPUTS}


TINY = ["--devices=4", "--models=linear", "--rounds=4", "--eval_every=2", "--learning_rate=0.01"]


@pytest.mark.slow
@pytest.mark.usefixtures("single_again", "pictures")
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_train_leaves_mse_in_place_of_accuracy(tmp_path, capsys, precision):
    out = tmp_path / "run"
    flags = [*TINY, "--dataset=synthetic_regression", f"--precision={precision}", f"--output_dir={out}"]
    assert call(*flags, "--models=linear:2+mlp:2", "--checkpoint_every=2") == 0
    assert working_dtype() == precision
    found = summary(out)
    names = {"mse_mean", "mse_min", "mse_max", "mse_std", "mse_mean_linear", "mse_mean_mlp", "ensemble_mse"}
    assert {name for name in found if "mse" in name or "accuracy" in name} == names | {"target_accuracy"}
    assert names <= set(rows(out)[0])
    assert found["mse_min"] <= found["mse_mean"] <= found["mse_max"]
    assert (out / "learning_curves.png").stat().st_size
    mean, worst, best = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mse")).split()[
        1:4
    ]
    assert float(best) <= float(mean) <= float(worst) == pytest.approx(found["mse_max"], rel=1e-2)

    whole = tmp_path / "whole"
    assert call(*flags[:-1], "--models=linear:2+mlp:2", "--rounds=6", f"--output_dir={whole}") == 0
    assert call(*flags, "--models=linear:2+mlp:2", "--checkpoint_every=2", "--rounds=6", "--resume") == 0
    assert rows(out) == rows(whole)


def test_train_on_a_table(tmp_path):
    """A target that is linear in its columns, by enough rounds on one device, is predicted."""
    rng = np.random.default_rng(0)
    size, kind = rng.normal(50, 20, 300), rng.choice(["flat", "house"], 300)
    price = 3 * size + 100 * (kind == "house")
    lines = [f"{s},{k},{p}" for s, k, p in zip(size, kind, price, strict=True)]
    path = tmp_path / "homes.csv"
    path.write_text("\n".join(["size,kind,price", *lines]))
    out = tmp_path / "run"
    flags = ["--algorithm=local", "--devices=2", "--models=linear", "--rounds=600", "--learning_rate=0.1"]
    assert call(*flags, f"--dataset={path}", "--target_column=price", f"--output_dir={out}") == 0
    assert float(rows(out)[0]["mse_mean"]) > 0.5
    assert summary(out)["mse_max"] < 1e-6
    assert json.loads((out / "config.json").read_text())["flags"]["target_column"] == "price"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--divergence=kl"],
            "--divergence=kl is only for classification, but synthetic_regression is a regression task",
        ),
        (["--temperature=2"], "--temperature=2.0 is only for classification"),
        (["--target_accuracy=0.5"], "--target_accuracy=0.5 is only for classification"),
        (["--partition=dirichlet"], "'dirichlet' needs labels"),
        (["--partition=shards"], "use iid, quantity or natural"),
        (
            ["--target_column=y"],
            "--target_column is not used by --dataset=synthetic_regression; it belongs to --dataset=FILE.csv",
        ),
        (["--dataset=synthetic_regression:0"], "DIMENSIONS must be a whole number of at least 1, got '0'"),
        (["--dataset=synthetic_regression:2:-1"], "NOISE must be a number of at least 0, got '-1'"),
        (["--precision=bfloat16"], "a CPU supports float32 and float64"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, flags, message):
    assert call(*TINY, "--dataset=synthetic_regression", *flags, f"--output_dir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("single_again")
def test_a_sweep_in_double_precision_has_the_numbers_of_single_runs(tmp_path):
    flags = [*TINY, "--dataset=synthetic_regression", "--precision=float64"]
    assert sweep(*flags, "--seeds=2", "--host_devices=1", f"--sweep_dir={tmp_path / 'sweep'}") == 0
    alone = tmp_path / "alone"
    assert call(*flags, "--seed=1", "--host_devices=1", f"--output_dir={alone}") == 0
    results = [rows(folder) for folder in (tmp_path / "sweep/cells").iterdir()]
    assert rows(alone) in results
    assert np.float64(rows(alone)[-1]["mse_mean"]) != np.float32(rows(alone)[-1]["mse_mean"])


def test_a_sweep_has_double_precision_alone_or_not(tmp_path, capsys):
    assert sweep(*TINY, "--precision=float32,float64", f"--sweep_dir={tmp_path / 'sweep'}") == 2
    assert "all cells of a process must use float64 if one of them does" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
