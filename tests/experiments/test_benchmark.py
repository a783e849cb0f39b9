"""`scripts/benchmark.py`: its output, its refusals, its counts, and PyTorch doing the same work."""

import json

import jax
import numpy as np
import pytest

from ddjax.experiments.benchmarks import benchmark, workloads
from ddjax.experiments.benchmarks.settings import BenchmarkSettings, cases
from ddjax.experiments.benchmarks.workloads import Case
from ddjax.learning import draw, round_keys

TINY = [
    "--models=linear",
    "--devices=4",
    "--batch_size=2",
    "--reference_batch_size=3",
    "--repeats=2",
    "--seconds=0.001",
]


def call(*flags):
    """The exit code of benchmark.py with these flags."""
    return benchmark.main(["benchmark.py", *flags])


@pytest.mark.slow
def test_what_a_run_leaves(tmp_path, capsys):
    output = tmp_path / "new" / "rows.json"
    assert call(*TINY, "--work=distillation", f"--output={output}") == 0
    (row,) = json.loads(output.read_text())
    assert list(output.parent.iterdir()) == [output]
    assert {name: row[name] for name in Case._fields} == {
        "work": "distillation",
        "models": "linear",
        "devices": 4,
        "batch_size": 2,
        "topology": "ring",
        "reference_batch_size": 3,
        "device_chunk": 0,
        "micro_batch": 0,
        "convolution": "",
        "mixing_product": "",
        "precision": "float32",
        "examples_per_device": 100,
        "test_examples": None,
    }
    positive = (
        "seconds_compile us_per_device_step examples_per_second flops_per_second peak_flops_per_second "
        "bytes_per_second peak_bytes_per_second peak_memory_bytes ratio_to_parts"
    )
    assert all(row[name] > 0 for name in positive.split())
    assert len(row["us_per_device_step_repeats"]) == len(row["ratios_to_parts"]) == 2
    assert min(row["us_per_device_step_repeats"]) <= row["us_per_device_step"] <= max(row["us_per_device_step_repeats"])
    assert row["ratio_to_torch"] is None
    printed = capsys.readouterr().out
    assert all(len(line) <= 120 for line in printed.splitlines() if "written" not in line)
    assert printed.count("distillation") == 3  # in the row, in its forms, and in the legend
    # An existing file stays.
    assert call(*TINY, "--work=local_sgd", f"--output={output}") == 2
    assert json.loads(output.read_text()) == [row]


def test_pairs_with_torch(tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "rows.json"
    assert call(*TINY, "--work=local_sgd", "--baseline=torch", f"--output={output}") == 0
    (row,) = json.loads(output.read_text())
    assert row["topology"] is row["ratio_to_parts"] is None
    assert len(row["ratios_to_torch"]) == 2
    assert row["ratio_to_torch"] == pytest.approx(np.median(row["ratios_to_torch"]))
    assert row["torch_us_per_device_step"] > 0
    assert row["versions"]["torch"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--work=dsdg"], "did you mean 'dsgd'"),
        (["--models=mpl"], "did you mean 'mlp'"),
        (["--work=dsgd", "--models=linear:2+mlp:2", "--devices=4"], "need the same model"),
        (["--devices=4,x"], "devices takes positive whole numbers"),
        (["--batch_size=0"], "batch_size takes positive whole numbers"),
        (["--work=dsgd", "--topology=rnig"], "did you mean 'ring'"),
        (["--work=dsgd", "--topology=random_matching"], "use one that does not"),
        (["--reference_batch_size=2000"], "between 1 and 1999, got 2000"),
        (["--repeats=0"], "must be positive"),
        (["--seconds=nan"], "must be positive"),
        (["--baseline=tensorflow"], "accepted: torch"),
        (["--no_such_flag=1"], "no_such_flag"),
        (["positional"], "unexpected argument"),
    ],
)
def test_mistakes_are_one_line(flags, says, tmp_path, capsys):
    assert call(*flags, f"--output={tmp_path / 'rows.json'}") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_torch(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert call("--baseline=torch", f"--output={tmp_path / 'rows.json'}") == 2
    assert "not installed" in capsys.readouterr().err


def test_the_lists_are_multiplied():
    asked = BenchmarkSettings(models="linear,mlp", devices="4,8", topology="ring,complete")
    counts = [case.work for case in cases(asked)]
    assert [counts.count(work) for work in workloads.WORK] == [4, 8, 8, 0]  # local_sgd uses no graph


def steps(work, models, devices=4, batch_size=16, topology="ring", reference=8):
    mixes, distills = work != "local_sgd", work == "distillation"
    return workloads.device_step(
        Case(work, models, devices, batch_size, topology if mixes else None, reference if distills else None)
    )


def test_useful_work_by_hand():
    """Forward and the gradients of the weights; the gradient of a layer's input for all layers but the first."""
    linear, hidden, out = 784 * 10, 784 * 128, 128 * 10
    first, second, dense, last = 784 * 25 * 16, 196 * 25 * 16 * 32, 7 * 7 * 32 * 64, 64 * 10
    assert steps("local_sgd", "linear")[0] == 2 * 16 * 2 * linear
    assert steps("local_sgd", "mlp")[0] == 2 * 16 * (2 * hidden + 3 * out)
    assert steps("local_sgd", "cnn")[0] == 2 * 16 * (2 * first + 3 * (second + dense + last))
    assert steps("local_sgd", "linear:1+mlp:3")[0] == 2 * 16 * (2 * linear + 3 * (2 * hidden + 3 * out)) / 4
    # On a ring a device mixes three values: its own and two of neighbours.
    assert steps("distillation", "linear")[0] == 2 * (16 + 8) * 2 * linear + 2 * 3 * 8 * 10
    assert steps("dsgd", "linear")[0] == 2 * 16 * 2 * linear + 2 * 3 * 7850
    assert steps("dsgd", "linear", topology="complete", devices=8)[0] == 2 * 16 * 2 * linear + 2 * 8 * 7850


def test_strided_convolutions_by_hand():
    """Of ResNet-14, 32×32: a stage has half the side and twice the channels of the one before."""
    stem, rest = 32**2 * 9 * 3 * 16, 64 * 10
    rest += 32**2 * 9 * 4 * 16 * 16
    for side, channels in ((16, 32), (8, 64)):
        rest += side**2 * channels * (9 * (channels // 2 + 3 * channels) + channels // 2)
    assert steps("local_sgd", "resnet14", batch_size=2)[0] == 2 * 2 * (2 * stem + 3 * rest)


def test_least_traffic_by_hand():
    assert steps("local_sgd", "linear")[1] == 4 * (4 * 7850 + 16 * 784)
    assert steps("dsgd", "linear")[1] == 4 * (4 * 7850 + 16 * 784 + (3 + 1) * 7850)
    assert steps("distillation", "linear")[1] == 4 * (4 * 7850 + (16 + 8 / 4) * 784 + (3 + 1) * 80)


def test_evaluations_by_hand():
    case = Case("evaluation", "linear", 4, 16, None, None, test_examples=500)
    assert workloads.device_step(case) == (2 * 2500 * 7840, 4 * (7850 + 2500 / 4 * 784))


def as_torch(params, like):
    """ddjax's parameters of one device under PyTorch's names, in the layouts of the state dict `like`."""
    found = {}
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        *layer, kind = (str(entry.key) for entry in path)
        name, value = ".".join([*layer, "bias" if kind == "bias" else "weight"]), np.asarray(value)
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif value.shape != tuple(like[name].shape):
            value = value.T
        if value.shape == (64, 7 * 7 * 32):  # in ddjax, the cnn flattens features with channels last
            value = value.reshape(64, 7, 7, 32).transpose(0, 3, 1, 2).reshape(64, -1)
        found[name] = value
    return found


@pytest.mark.parametrize(
    ("work", "model"),
    [
        ("distillation", "linear"),
        ("distillation", "mlp"),
        ("distillation", "cnn"),
        pytest.param("distillation", "resnet14", marks=pytest.mark.slow),
        ("local_sgd", "mlp"),
        ("dsgd", "mlp"),
    ],
)
def test_torch_does_the_same_work(work, model):
    torch = pytest.importorskip("torch")
    from ddjax.experiments.benchmarks import torch_baseline

    case = Case(work, model, 3, 4, "ring", 5)
    problem, algorithm = workloads.problem(case), workloads.algorithm(work, case)
    key = jax.random.key(1)
    keys = round_keys(key)

    class Drawn(torch_baseline.Network):
        """With the minibatches that ddjax draws."""

        def private_rows(self, n):
            drawing = jax.random.split(jax.random.fold_in(jax.random.fold_in(keys.train, n), 0))[0]
            rows = jax.random.randint(drawing, (case.batch_size,), 0, workloads.PRIVATE_EXAMPLES)
            return torch.from_numpy(np.array(rows))

        def reference_rows(self):
            rows = draw(keys.reference, workloads.REFERENCE_SIZE, 5)
            return torch.from_numpy(np.array(rows))

    network = Drawn(
        work,
        [model] * 3,
        problem,
        case.network().matrices[0],
        workloads.CLASSES,
        batch_size=case.batch_size,
        reference_batch_size=5,
        learning_rate=workloads.LEARNING_RATE,
        distillation_weight=workloads.DISTILLATION_WEIGHT,
        consensus_step_size=workloads.CONSENSUS_STEP_SIZE,
    )

    def parameters(state, n):
        params = jax.tree.map(lambda leaf: leaf[n], state.devices[0].params)
        return as_torch(params, network.devices[n].model.state_dict())

    state = algorithm.init(jax.random.key(0), problem)
    before = [parameters(state, n) for n in range(3)]
    for device, start in zip(network.devices, before, strict=True):
        device.model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in start.items()})
    state, _ = jax.jit(algorithm.round)(key, state, problem)
    network.round()
    for n, device in enumerate(network.devices):
        for name, value in parameters(state, n).items():
            np.testing.assert_allclose(device.model.state_dict()[name].numpy(), value, atol=1e-5, err_msg=name)
        moved = sum(np.abs(value - before[n][name]).sum() for name, value in parameters(state, n).items())
        assert moved > 1e-3
    if work == "distillation":
        np.testing.assert_allclose(network.estimate.numpy(), state.estimate, atol=1e-5)
