"""The checks for authors: every registered part passes them, and broken parts do not."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import compressor

import ddjax
from ddjax.algorithms import ALGORITHMS
from ddjax.mixing import MIXERS
from ddjax.models import MODELS
from ddjax.testing import check_algorithm, check_dataset, check_mixer, check_model
from ddjax.types import Traffic

LOOPS = {
    "average": lambda x, w: np.array([sum(w[n, m] * x[m] for m in range(len(w))) for n in range(len(w))]),
    "server": lambda x, w: np.broadcast_to(x.mean(0), x.shape),
}


def mixer(name):
    arguments = {"choco": (compressor("top_k:0.5"), 0.3)}.get(name, ())
    return MIXERS[name].build(*arguments)


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_passes(name):
    check_mixer(lambda: mixer(name), loop=LOOPS.get(name))


def algorithm(name, population):
    entry = ALGORITHMS[name]
    own = {
        "reference_batch_size": 5, "message_fraction": 0.5, "fraction": 0.5, "threshold": 0.1, "check_every": 2,
        "distillation_weight": 1.0, "proximal_weight": 0.5, "server_step_size": 0.8, "schedule_by_age": True,
        "balancing": "hedge", "ridge": 0.1, "consensus": entry.fixed.get("consensus", "gradient"),
        "learning_rate": 0.1, "momentum": 0.9, "distillation_epochs": 2, "sharpening_temperature": 0.1,
        "homogenize_after": 2, "detector": "energy_roc", "pretraining_steps": 0, "warmup_steps": 2,
        "push_period": 2, "message_delay": 2, "knowledge_step_size": 0.1, "knowledge_penalty": 0.5,
    }  # fmt: skip
    mixers = [mixer(entry.fixed.get("mixing", "average"))] if entry.mixes else []
    return entry.build(population, *mixers, **{parameter: own[parameter] for parameter in entry.settings})


# Here `local_dsgd` is `dsgd`. The others have the form of `dsgd` or `fedavg`, and their own loops.
NAMES = [entry.name for entry in ALGORITHMS.entries() if not entry.pooled and entry.name != "local_dsgd"]
ALIKE = ("exact_diffusion", "quasi_global_momentum", "fedprox")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in NAMES]
)
def test_every_algorithm_passes(name):
    stochastic = "column" if name == "push_sum" else "doubly"
    topology = "binary_tree" if name == "relaysgd" else "ring"
    check_algorithm(lambda population: algorithm(name, population), topology=topology, stochastic=stochastic)


DEEPER = {"resnet14", "resnet20"}  # like resnet8 with more blocks, but slow to compile


@pytest.mark.parametrize(
    "name", [entry.name for entry in MODELS.entries() if not entry.tokens and entry.name not in DEEPER]
)
def test_every_model_of_numbers_passes(name):
    check_model(name, (8, 8))


@pytest.mark.parametrize("name", [entry.name for entry in MODELS.entries() if entry.tokens or entry.on_tokens])
def test_every_model_of_token_ids_passes(name):
    check_model(name, (6,), tokens=5)


@pytest.mark.parametrize("spec", ["digits", "synthetic_classification", "synthetic_regression"])
def test_every_dataset_passes(spec):
    check_dataset(spec)


@pytest.mark.slow
def test_mixers_and_algorithms_pass_on_two_shards():
    program = (
        "import test_testing as t\n"
        "for name in t.MIXERS: t.check_mixer(lambda: t.mixer(name))\n"
        "for name in ('scaffold', 'corlsr'):\n"
        "    t.check_algorithm(lambda population: t.algorithm(name, population))\n"
        "import jax; print(jax.device_count())\n"
    )
    here = Path(__file__).parent
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{here}:{here.parent}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2", done.stderr


# Broken parts.


def broken(**changes):
    """The weighted average with an error."""
    return ddjax.weighted_average()._replace(**changes)


def drifts(key, x, state, network):
    mixed, state, sent = ddjax.weighted_average().mix(key, x, state, network)
    return jax.tree.map(lambda leaf: leaf + 1e-3, mixed), state, sent


def narrows(key, x, state, network):
    mixed, state, sent = ddjax.weighted_average().mix(key, x, state, network)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mixed), state, sent


def miscounts(key, x, state, network):
    mixed, state, sent = ddjax.weighted_average().mix(key, x, state, network)
    return mixed, state, Traffic({"other": sent.peer["value"]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: broken(mix=drifts), "the mean over devices"),
        (lambda: broken(mix=narrows), "requires float64"),
        (lambda: broken(mix=miscounts), "are counted"),
        (lambda: broken(message_bytes=lambda x, leading: Traffic({"value": 2.5})), "not an int"),
    ],
)
def test_a_broken_mixer_is_caught(make, message):
    with pytest.raises(AssertionError, match=message):
        check_mixer(make)


def test_a_wrong_loop_is_caught():
    with pytest.raises(AssertionError, match="the plain loop"):
        check_mixer(ddjax.weighted_average, loop=lambda x, w: w.T @ x + 0.1)


def test_a_broken_algorithm_is_caught():
    def reports_too_little(population):
        local = ddjax.local(population)

        def round(key, state, problem):
            state, info = local.round(key, state, problem)
            return state, info._replace(steps=info.steps[:2])

        return local._replace(round=round)

    with pytest.raises(AssertionError, match=r"info.steps has shape \(2,\)"):
        check_algorithm(reports_too_little)


@pytest.mark.parametrize(
    "call", [lambda count: jax.debug.callback(print, count), lambda count: jax.debug.print("{}", count)]
)
def test_a_round_that_calls_back_to_the_host_is_caught(call):
    def calls_back(population):
        made = algorithm("local", population)

        def round(key, state, problem):
            call(state.round)
            return made.round(key, state, problem)

        return made._replace(round=round)

    with pytest.raises(AssertionError, match="calls back to the host"):
        check_algorithm(calls_back)


@pytest.mark.slow
def test_co_regularization_ends_on_two_host_devices(tmp_path):
    """The system is solved on the host; callbacks from a compiled program deadlocked in over half of the runs."""
    program = (
        "import sys; from ddjax.experiments.train import main\n"
        "for run in range(4): assert main(['', *sys.argv[2:], f'--output_dir={sys.argv[1]}/{run}']) == 0\n"
    )
    flags = ["--algorithm=co_regularization", "--models=linear", "--host_devices=2", "--devices=4", "--rounds=4"]
    command = [sys.executable, "-c", program, tmp_path, *flags, "--eval_every=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
