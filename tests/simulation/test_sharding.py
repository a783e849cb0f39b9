"""The same numbers wherever the devices are: one shard, several, several processes, with padding or without."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Algorithms with every way of using the device axis; 7 devices in groups that no number of shards divides.
PROGRAM = """
import jax, numpy as np, optax, sys
import ddjax
from ddjax.models import build_model
from jax.sharding import Mesh
from small import compressor, small_problem

problem = small_problem(devices=7, product=sys.argv[1], reference_known=0.5)

def population(*groups):
    def one(name):
        model = build_model(name, (5,), 3)
        return ddjax.supervised_learner(model, optax.adam(0.01), distillation_weight=2.0)
    return ddjax.Population([ddjax.Group(one(name), size, chunk) for name, size, chunk in groups], batch_size=4)

alike = population(("mlp", 7, 2))
algorithms = {
    "distillation": ddjax.distillation(
        population(("linear", 3, None), ("mlp", 4, 1)), ddjax.weighted_average(), reference_batch_size=5),
    "choco": ddjax.dsgd(alike, ddjax.choco(compressor("top_k:0.5"), 0.3)),
    "fedavg": ddjax.fedavg(alike, fraction=0.5),
    "gossip": ddjax.gossip(alike),
    "gradient_tracking": ddjax.gradient_tracking(alike, ddjax.weighted_average()),
    "relaysgd": ddjax.relaysgd(alike),
    "idkd": ddjax.idkd(alike, ddjax.weighted_average(), homogenize_after=2, confidence_threshold=0.4),
}
tree = problem._replace(network=small_problem("path", devices=7, product=sys.argv[1]).network)
devices = jax.devices()
for name in sys.argv[2:]:
    algorithm, found = algorithms[name], []
    for shards in (1, 2, 4) if name == "distillation" else (1, 4):
        given = tree if name == "relaysgd" else problem._replace(known=None) if name == "idkd" else problem
        simulation = ddjax.Simulation(algorithm, given, mesh=Mesh(devices[:shards], ("devices",)))
        key = jax.random.key(3)
        state, totals = simulation.advance(key, simulation.init(key), simulation.zeros(), 15)
        measures = simulation.measure(state)
        found.append(jax.tree.map(np.asarray, (state, totals, measures)))
    for other in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=name), found[0], other)
        # Counts are whole numbers and accuracies fractions of them: the same to the bit.
        jax.tree.map(np.testing.assert_array_equal, found[0][1].info.messages, other[1].info.messages)
        np.testing.assert_array_equal(found[0][2].score, other[2].score)
print("the same")
"""


def run(arguments, **variables):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | variables
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [
    ("dense", "distillation", "fedavg"),
    ("gather", "choco", "gossip"),
    ("gather", "gradient_tracking", "relaysgd", "idkd"),
])  # fmt: skip
def test_one_two_and_four_shards_give_the_same_numbers(arguments):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    process = run(["-c", PROGRAM, *arguments], XLA_FLAGS=flags)
    out, errors = process.communicate(timeout=600)
    assert out.strip() == "the same", errors


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path):
    """Nine devices on two processes of two shards; process 0 alone writes and speaks."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    flags = [ROOT / "scripts/train.py", "--devices=9", "--rounds=40", "--eval_every=20", "--checkpoint_every=20"]
    alone = run([*flags, f"--output_dir={tmp_path / 'alone'}", "--host_devices=1"])
    together = [*flags, f"--output_dir={tmp_path / 'two'}", "--host_devices=2", f"--coordinator_address={address}"]
    two = [run([*together, "--num_processes=2", f"--process_id={number}"]) for number in range(2)]
    outputs = [process.communicate(timeout=600) for process in (alone, *two)]
    assert [process.returncode for process in (alone, *two)] == [0, 0, 0], outputs
    assert "distillation on digits" in outputs[1][0]
    assert outputs[2][0] == ""
    expected, found = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("alone", "two"))
    for name in ("accuracy_mean", "disagreement", "loss", "distillation_loss"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert found["bytes_sent_total"] == expected["bytes_sent_total"]
    resumed = run([*together[:-1], "--rounds=60", "--resume"])  # by one process, what two have written
    out, errors = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, errors
    assert "resumed    at round 40" in out
