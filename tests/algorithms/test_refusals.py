"""Refusals from Python when a `Simulation` is made: one line each, the same as from flags."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import CLASSES, DEVICES, DIMENSIONS, compressor, make_distillation, make_learners, small_problem

import ddjax
from ddjax.errors import InputError
from ddjax.experiments import Settings, build
from ddjax.learning import REGRESSION
from ddjax.models import build_model


def refusal(algorithm, problem):
    """The message, which is one line."""
    with pytest.raises(ddjax.InputError) as error:
        ddjax.Simulation(algorithm, problem)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(problem, **arrays):
    return problem._replace(**arrays)


UNSTABLE = "consensus_step_size 0.9 is unstable here: it must be below"


def test_an_unstable_consensus_step_size_on_a_hypercube():
    problem, population = small_problem("hypercube", devices=8), make_learners(size=8)
    message = refusal(make_distillation(population, step=0.9), problem)
    assert message == f"{UNSTABLE} 0.5; use a smaller value, or lazy mixing weights"
    ddjax.Simulation(make_distillation(population, step=0.49), problem)


def test_an_unstable_start_of_a_schedule_and_a_stable_one(problem):
    assert UNSTABLE in refusal(make_distillation(make_learners(), step=lambda t: 0.9 / (1 + t)), problem)
    ddjax.Simulation(make_distillation(make_learners(), step=lambda t: 0.4 / (1 + t)), problem)


def test_a_mixing_that_does_not_apply_the_weights_has_the_limit_one(problem):
    def served(step):
        return ddjax.distillation(make_learners(), ddjax.server(), reference_batch_size=5, consensus_step_size=step)

    ddjax.Simulation(served(0.9), problem)
    assert "must be below 1;" in refusal(served(1.0), problem)


def test_hyperparameters_are_checked_when_they_change(problem):
    """Hyperparameters are data of the compiled program, where nothing can be checked."""
    alone = ddjax.sharding.mesh(jax.devices()[:1])

    def make(numbers):
        return make_distillation(make_learners(), step=numbers["step"])

    with pytest.raises(ddjax.InputError, match=UNSTABLE):
        ddjax.Simulation(make, problem, alone, {"step": 0.9})
    simulation = ddjax.Simulation(make, problem, alone, {"step": 0.3})
    with pytest.raises(ddjax.InputError, match=UNSTABLE):
        simulation.with_problem(problem, {"step": 0.9})


@pytest.mark.parametrize("over", ["parameters", "soft decisions"])
def test_choco_on_a_changing_graph(over):
    problem, mixer = small_problem("random_matching"), ddjax.choco(compressor("identity"), 0.5)
    population = make_learners()
    algorithm = (
        ddjax.dsgd(population, mixer)
        if over == "parameters"
        else ddjax.distillation(population, mixer, reference_batch_size=5, consensus="tracking")
    )
    assert "choco needs a fixed graph" in refusal(algorithm, problem)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(DEVICES), "not connected"),
        (np.full((DEVICES, DEVICES), 1 / 3), "row 0 sums to 2"),
        (np.eye(DEVICES) * 2 - np.full((DEVICES, DEVICES), 1 / DEVICES), "non-negative"),
        (np.r_[[[1 / 2, 1 / 2, 0, 0, 0, 0]], np.full((5, DEVICES), 1 / DEVICES)], "column"),
    ],
)
def test_a_matrix_of_ones_own_that_does_not_average(problem, matrix, message):
    for algorithm in (ddjax.dsgd(make_learners(), ddjax.weighted_average()), make_distillation(make_learners())):
        network = ddjax.networks.as_network(matrix)
        assert message in refusal(algorithm, changed(problem, network=network))


def test_rows_are_enough_where_every_round_mixes_afresh(problem):
    network = ddjax.networks.as_network(np.r_[[[1 / 2, 1 / 2, 0, 0, 0, 0]], np.full((5, DEVICES), 1 / DEVICES)])
    ddjax.Simulation(make_distillation(make_learners(), "neighbors"), changed(problem, network=network))


def test_what_does_not_use_the_graph_asks_nothing_of_it(problem):
    isolated = changed(problem, network=ddjax.networks.as_network(np.eye(DEVICES)))
    for algorithm in (
        ddjax.local(make_learners()),
        ddjax.fedavg(make_learners()),
        ddjax.dsgd(make_learners(), ddjax.server()),
    ):
        ddjax.Simulation(algorithm, isolated)


def test_gossip_needs_a_connected_graph(problem):
    isolated = changed(problem, network=ddjax.networks.as_network(np.eye(DEVICES)))
    assert "not connected" in refusal(ddjax.gossip(make_learners()), isolated)


def test_another_number_of_devices(problem):
    assert f"{DEVICES} devices" in refusal(ddjax.local(make_learners(size=4)), problem)


def test_another_task(problem):
    model = build_model("linear", (DIMENSIONS,), CLASSES)
    learner = ddjax.supervised_learner(model, optax.sgd(0.1), task=REGRESSION)
    population = ddjax.Population([ddjax.Group(learner, DEVICES)], 4)
    assert "targets of dtype int32" in refusal(ddjax.local(population), problem)


@pytest.mark.parametrize("label", [CLASSES, -1])
@pytest.mark.parametrize("where", ["y", "y_test"])
def test_labels_without_an_output(problem, label, where):
    wrong = changed(problem, **{where: getattr(problem, where).at[3].set(label)})
    assert "label" in refusal(ddjax.local(make_learners()), wrong)


def test_numbers_without_an_output(problem):
    model = build_model("linear", (DIMENSIONS,), 1)
    learner = ddjax.supervised_learner(model, optax.sgd(0.1), task=REGRESSION)
    population = ddjax.Population([ddjax.Group(learner, DEVICES)], 4)
    two = jnp.zeros((len(problem.y), 2)), jnp.zeros((len(problem.y_test), 2))
    assert "have 2 numbers to predict each" in refusal(
        ddjax.local(population), changed(problem, y=two[0], y_test=two[1])
    )


def test_models_that_are_not_linear_have_no_closed_form():
    with pytest.raises(ddjax.InputError, match="needs linear models that see all features; use --models=linear"):
        ddjax.co_regularization(make_learners(("mlp",)), distillation_weight=1.0)


def test_a_temperature_where_numbers_are_predicted():
    model = build_model("linear", (DIMENSIONS,), 1)
    with pytest.raises(ddjax.InputError, match="temperature=2 is only for classification"):
        ddjax.supervised_learner(model, optax.sgd(0.1), task=REGRESSION, temperature=2.0)


def test_no_function_hides_its_module():
    import ddjax.algorithms.distillation as d

    assert {"estimate", "mixer"} <= set(d.State._fields)
    assert callable(ddjax.distillation)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ddjax.choco(compressor("sign"), 5.0), r"must lie in \(0, 1\], got 5.0"),
        (lambda: ddjax.adaptive(7.0), r"forgetting must lie in \(0, 1\]"),
        (lambda: make_learners(local_steps=0), "local_steps must be positive"),
        (lambda: make_learners(batch_size=-3), "batch_size must be at least 0"),
        (lambda: make_learners(distillation_weight=-5.0), "distillation_weight must be at least 0"),
        (lambda: make_learners(temperature=-1.0), "temperature must be at least 0.01"),
    ],
)
def test_numbers_out_of_bounds_are_refused_from_python(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("step", [-1.0, float("nan")])
def test_a_consensus_step_size_is_a_number_of_at_least_zero(step):
    algorithm = make_distillation(make_learners(), step=step)
    with pytest.raises(InputError, match="consensus_step_size must be at least 0"):
        ddjax.Simulation(algorithm, small_problem())


def test_reduced_precision_is_refused_on_a_cpu():
    with pytest.raises(InputError, match="only available on GPUs and TPUs"):
        build(Settings(devices=4, models="linear", precision="bfloat16"))
