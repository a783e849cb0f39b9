"""`scripts/sweep.py`: its cells, which have the numbers of single runs; nothing is lost or mixed up."""

import collections
import csv
import dataclasses
import errno
import functools
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from commands import call as call_train
from commands import cells as planned
from commands import settings as settings_of
from commands import sweep as call

import ddjax
from ddjax.experiments import build, experiment
from ddjax.experiments import files as files_module
from ddjax.experiments.fields import fields
from ddjax.experiments.settings import Settings
from ddjax.experiments.sweeps import estimates
from ddjax.experiments.sweeps import queue as queues
from ddjax.experiments.usage import used

ROOT = Path(__file__).parents[2]
TINY = ["--devices=4", "--models=linear", "--rounds=4", "--eval_every=2"]
# Three algorithms, two sizes, two seeds.
SMALL = ["--algorithm=local,dsgd,distillation", "--devices=4,6", "--seeds=2", *TINY[1:]]
KEPT = {"config.json", "metrics.csv", "devices.csv", "summary.json"}  # of a cell


def start(*flags):
    """sweep.py in its own process, which can be interrupted even if these tests run in the background."""
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts/sweep.py", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def cells(*flags):
    """The values of the cells that flags ask for."""
    return [cell.values for cell in planned(*flags)]


def chosen(found, *names):
    return [tuple(settings[name] for name in names) for settings in found]


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Which cells there are.


def test_cells_are_the_product_seeds_innermost():
    found = cells("--algorithm=local,dsgd", "--devices=8,32", "--seeds=2", "--seed=5")
    assert chosen(found, "algorithm", "devices", "seed") == [
        (algorithm, devices, seed) for algorithm in ("local", "dsgd") for devices in (8, 32) for seed in (5, 6)
    ]


def test_what_is_not_used_makes_no_cell_of_its_own():
    flags = ["--algorithm=local,dsgd,distillation", "--topology=ring,torus", "--consensus=gradient,tracking"]
    found = cells(*flags, "--consensus_step_size=0.1,0.2")
    one = [("local", None, None, None)]
    two = [("dsgd", topology, None, None) for topology in ("ring", "torus")]
    six = [
        ("distillation", topology, consensus, size)
        for topology in ("ring", "torus")
        for consensus, sizes in (("gradient", (0.1, 0.2)), ("tracking", (None,)))
        for size in sizes
    ]
    assert chosen(found, "algorithm", "topology", "consensus", "consensus_step_size") == one + two + six


@pytest.mark.slow
def test_every_flag_that_a_sweep_drops_changes_nothing():
    """Settings that are not `used` change no number."""
    other = {
        "topology": "complete",
        "distillation_weight": 3.0,
        "reference_batch_size": 5,
        "consensus_step_size": 0.1,
        "dirichlet_alpha": 9.0,
        "learning_rate": 0.2,
        "batch_size": 3,
        "optimizer": "adam",
        "local_steps": 3,
        "activation": "relu",
    }
    for flags in (
        ["--algorithm=local", "--partition=iid"],
        ["--algorithm=dsgd"],
        ["--algorithm=server_distillation"],
        ["--consensus=tracking"],
        ["--algorithm=co_regularization"],
        ["--mixing=server", "--local_epochs=1"],
    ):
        plain = settings_of(*TINY, *flags)
        spared = {name: value for name, value in other.items() if name not in used(plain)}
        changed = dataclasses.replace(plain, **spared)
        assert spared
        # `build` refuses some of these, because they have no effect.
        a, b = (final(experiment._build(settings, None, None, lambda phase: None)) for settings in (plain, changed))
        np.testing.assert_array_equal(a, b)


def final(built):
    _, history = ddjax.run(built.algorithm, built.problem, key=jax.random.key(0), rounds=4, eval_every=4)
    return [*history[-1].score, history[-1].disagreement, *history[-1].bytes.sent]


def test_weights_of_the_graph_make_no_cells_where_they_do_not_matter():
    """These systems use the graph only for the destinations of messages."""
    found = cells("--algorithm=def_kt,relaysgd,fedct_neighbors,dsgd", "--mixing_weights=uniform,lazy_uniform")
    weights = ("uniform", "lazy_uniform")
    alone = [(name, None) for name in ("def_kt", "relaysgd", "fedct_neighbors")]
    assert chosen(found, "algorithm", "mixing_weights") == alone + [("dsgd", name) for name in weights]


def test_zipped_lists_go_together():
    found = cells("--devices=8,16,32", "--rounds=10,20,30", "--models=linear,mlp", "--zip=devices,rounds")
    pairs = [(8, 10), (16, 20), (32, 30)]
    expected = [(*pair, model) for pair in pairs for model in ("linear", "mlp")]
    assert sorted(chosen(found, "devices", "rounds", "models")) == sorted(expected)


def test_cells_can_be_excluded():
    flags = ["--algorithm=local,dsgd", "--devices=8,32,128", "--learning_rate=0.1,0.2"]
    found = cells(*flags, "--exclude=algorithm=dsgd,devices=128", "--exclude=learning_rate=0.20,devices=8")
    expected = {
        (algorithm, devices, rate)
        for algorithm in ("local", "dsgd")
        for devices in (8, 32, 128)
        for rate in (0.1, 0.2)
        if (algorithm, devices) != ("dsgd", 128) and (rate, devices) != (0.2, 8)
    }
    assert set(chosen(found, "algorithm", "devices", "learning_rate")) == expected


def test_targets_are_of_the_whole_sweep_and_do_not_name_cells():
    plain, targeted = planned("--seeds=2"), planned("--seeds=2", "--target_accuracy=0.5,0.6")
    assert [cell.name for cell in plain] == [cell.name for cell in targeted]
    assert targeted[0].settings.target_accuracy == "0.5,0.6"


def test_cells_that_differ_in_numbers_and_seeds_alone_are_one_program():
    numbers = ["--learning_rate=0.1,0.2", "--distillation_weight=1,2", "--consensus_step_size=0.1,0.2", "--seeds=3"]
    found = planned(*numbers, "--temperature=1,2", "--divergence=kl,squared_euclidean")
    programs = {cell.program for cell in found}
    assert len(programs) == 2


# A user's mistakes.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--devises=8"], "devises"),
        (["--resume"], "resume"),
        (["--devices=8,x"], "--devices takes a whole number, got 'x'"),
        (["--devices=8,"], "--devices takes a whole number, got ''"),
        (["--algorithm=local,dsdg"], "did you mean 'dsgd'"),
        (["stray"], "unexpected argument 'stray'"),
        (["--exclude=devices=4"], "no cells: all are excluded"),
        (["--exclude=devices=5"], "matches no cell"),
        (["--exclude=device=4"], "did you mean 'devices'"),
        (["--exclude=devices"], "not FLAG=VALUE"),
        (["--exclude=devices=four"], "devices=four"),
        (["--rounds=1,2", "--devices=4,5,6", "--zip=rounds,devices"], "rounds has 2 and devices has 3 values"),
        (["--zip=seed,batchsize"], "list to zip"),
        (["--rounds=1,2", "--models=linear,mlp", "--zip=rounds,models", "--zip=models,rounds"], "zipped twice"),
        (["--seeds=0"], "--seeds takes a positive number"),
        (["--seeds=2", "--seed=1,2"], "--seeds takes a positive number"),
        (["--shard=2/2"], "shard must be i/n"),
        (["--shard=1"], "shard must be i/n"),
        (["--learning_rate=0.1,-1"], "cell learning_rate=-1.0: learning_rate must be at least 0"),
        (["--device_chunk=0,-1"], "device_chunk must be at least 0"),
        (["--algorithm=dsgd", "--message_fraction=0.1,0.5"], "no cell uses --message_fraction"),
        (["--algorithm=local", "--exclude=topology=ring"], "matches no cell"),
        (["--target_accuracy=70"], "numbers in (0, 1]"),
        (["--devices=4,2000"], "cell devices=2000: 1078 private examples are too few"),
        (["--precision=float32,tf32"], "only available on GPUs and TPUs"),
        (["--sweep_dir=~nosuchuser/x"], "sweep_dir"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, flags, message):
    out = tmp_path / "sweep"
    assert call(*TINY, f"--sweep_dir={out}", *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished sweep; copy it before you change it."""
    out = tmp_path_factory.mktemp("finished") / "sweep"
    assert call(*SMALL, f"--sweep_dir={out}") == 0
    return out


def copied(finished, tmp_path):
    import shutil

    return shutil.copytree(finished, tmp_path / "sweep")


@pytest.mark.slow
def test_another_sweep_is_not_mixed_in(tmp_path, capsys, finished):
    out = copied(finished, tmp_path)
    before = files(out)
    for flags, message in (
        (["--rounds=6"], "rounds=4, here 6"),
        (["--learning_rate=0.2"], "learning_rate=0.0, here 0.2"),
    ):
        assert call(*SMALL, f"--sweep_dir={out}", *flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "holds another sweep" in error
        assert message in error
    assert call(*SMALL, f"--sweep_dir={out}", "--seeds=1") == 2
    assert "has 6 cells that this sweep leaves out" in capsys.readouterr().err
    assert files(out) == before


@pytest.mark.slow
def test_a_sweep_of_an_earlier_version_goes_on(tmp_path, capsys, finished):
    """The older version had one setting less, and its cells had other names."""
    out = copied(finished, tmp_path)
    plan = json.loads((out / "sweep.json").read_text())
    cells = {f"old-{name}": settings for name, settings in plan["cells"].items()}
    for name, settings in cells.items():
        (out / "cells" / name.removeprefix("old-")).rename(out / "cells" / name)
        del settings["standardize"], settings["task"]
    (out / "sweep.json").write_text(json.dumps({**plan, "cells": cells}))
    assert call(*SMALL, f"--sweep_dir={out}", "--seeds=3") == 0
    assert "18 cells; 12 are done" in capsys.readouterr().out
    assert len(list((out / "cells").iterdir())) == 18


def test_a_file_that_changes_is_not_mixed_in(tmp_path, capsys):
    """Neither a data set nor a graph may change; finished cells stay, and a sweep that adds nothing is not refused."""
    data, edges, out = tmp_path / "data.npz", tmp_path / "graph.edges", tmp_path / "sweep"
    edges.write_text("0 1\n1 2\n2 3\n")
    flags = [f"--dataset={data}", f"--topology=edges:{edges}", "--devices=4", "--models=linear", "--rounds=2"]
    flags += ["--eval_every=2", f"--sweep_dir={out}"]
    x, y = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32), np.arange(400) % 2
    save = functools.partial(np.savez, data, y_train=y, x_test=x, y_test=y)
    save(x_train=x)
    assert call(*flags) == 0
    before = files(out)
    capsys.readouterr()
    edges.write_text("0 1\n1 2\n2 3\n3 0\n")
    assert call(*flags) == 0
    assert call(*flags, "--seeds=2") == 2
    assert f"'{edges}' has changed since other cells" in capsys.readouterr().err
    edges.write_text("0 1\n1 2\n2 3\n")
    save(x_train=x + 1)
    assert call(*flags, "--seeds=2") == 2
    assert f"'{data}' has changed since other cells" in capsys.readouterr().err
    assert files(out) == before
    save(x_train=x)
    assert call(*flags, "--seeds=2") == 0


def test_a_test_file_that_changes_is_not_mixed_in(tmp_path, capsys):
    data, tests, out = tmp_path / "data", tmp_path / "data.t", tmp_path / "sweep"
    data.write_text("".join(f"{row % 2} 1:{row / 100} 2:1\n" for row in range(100)))
    tests.write_text("0 1:0.5\n1 2:0.5\n")
    flags = [f"--dataset={data}", "--devices=4", "--models=linear", "--rounds=2", "--eval_every=2"]
    flags += [f"--sweep_dir={out}"]
    assert call(*flags) == 0
    tests.write_text("0 1:0.5\n1 2:0.7\n")
    assert call(*flags, "--seeds=2") == 2
    assert f"'{tests}' has changed since other cells" in capsys.readouterr().err


def test_seeds_of_a_table_are_splits_of_one_file(tmp_path):
    """Each seed trains on different rows, which does not count as a changed file."""
    table, out = tmp_path / "table.csv", tmp_path / "sweep"
    table.write_text("a,b\n" + "".join(f"{i % 7},{'xy'[i % 2]}\n" for i in range(100)))
    flags = [f"--dataset={table}", "--target_column=b", "--devices=4", "--models=linear", "--rounds=2", "--seeds=3"]
    assert call(*flags, "--eval_every=2", f"--sweep_dir={out}") == 0
    assert len(list((out / "cells").iterdir())) == 3


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    assert call(*TINY, f"--sweep_dir={out}") == 2
    assert "something other than a sweep" in capsys.readouterr().err
    assert call(*TINY, f"--sweep_dir={out / 'mine.txt'}") == 2
    assert "is a file" in capsys.readouterr().err
    assert files(out) == {out / "mine.txt": b"precious"}


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("sweep.json", lambda content: b""),
        ("sweep.json", lambda content: content[: len(content) // 2]),
        ("metrics.csv", lambda content: b""),
        ("metrics.csv", lambda content: content[:-60]),
        ("metrics.csv", lambda content: b"".join(content.splitlines(keepends=True)[:-1])),
        ("summary.json", lambda content: content[: len(content) // 2]),
    ],
)
def test_a_half_written_file_is_noticed_and_nothing_overwritten(tmp_path, capsys, finished, name, cut):
    out = copied(finished, tmp_path)
    path = next(out.rglob(name))
    path.write_bytes(cut(path.read_bytes()))
    before = files(out)
    assert call(*SMALL, f"--sweep_dir={out}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path.parent) in error
    assert "damaged" in error
    assert files(out) == before


@pytest.mark.slow
def test_a_full_disk_ends_the_sweep_with_one_line_and_whole_cells(tmp_path, capsys, monkeypatch, finished):
    out, written = tmp_path / "sweep", []

    def write(path, content):
        if len(written) == 11:  # in the middle of a cell
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        keep(path, content)

    keep = files_module.write
    monkeypatch.setattr(files_module, "write", write)
    assert call(*SMALL, f"--sweep_dir={out}") == 2
    error = capsys.readouterr().err
    assert "No space left" in error.splitlines()[-1]
    stored = list((out / "cells").iterdir())
    assert len(stored) == 2
    assert all({path.name for path in cell.iterdir()} == KEPT for cell in stored)
    monkeypatch.setattr(files_module, "write", keep)
    assert call(*SMALL, f"--sweep_dir={out}") == 0
    assert (out / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


# Measured figures.


def test_cells_have_the_numbers_of_single_runs(tmp_path, finished):
    """Equal to train.py on one shard to the bit, whatever ran beside or before a cell."""
    results = pd.read_csv(finished / "results.csv")
    for algorithm, devices, seed in (("dsgd", 6, 1), ("distillation", 4, 1), ("local", 6, 0)):
        out = tmp_path / f"{algorithm}{devices}{seed}"
        flags = [*TINY, f"--algorithm={algorithm}", f"--devices={devices}", f"--seed={seed}", f"--output_dir={out}"]
        assert call_train(*flags) == 0
        alone = pd.read_csv(out / "metrics.csv").drop(columns=["seconds_train", "rounds_per_second"])
        chosen = (results.algorithm == algorithm) & (results.devices == devices) & (results.seed == seed)
        pd.testing.assert_frame_equal(results[chosen].reset_index(drop=True)[list(alone)], alone, check_exact=True)


def test_numbers_are_data_of_one_program_and_give_those_of_single_runs(tmp_path, monkeypatch):
    """Learning rates, weights and step sizes need no new compilation, and each cell has its own numbers."""
    made = []

    class Counted(ddjax.Simulation):
        def __init__(self, *arguments):
            made.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(experiment, "Simulation", Counted)
    out = tmp_path / "sweep"
    lists = ["--learning_rate=0.05,0.3", "--distillation_weight=1,10", "--consensus_step_size=0.2,0.5", "--seeds=2"]
    assert call(*TINY, *lists, f"--sweep_dir={out}") == 0
    assert len(made) == 1 + len(jax.local_devices())  # one is the check before the start
    results = pd.read_csv(out / "results.csv")
    last = results[results["round"] == 4]
    assert last["loss"].nunique() == 16
    monkeypatch.undo()
    values = {"learning_rate": 0.3, "distillation_weight": 1.0, "consensus_step_size": 0.2, "seed": 1}
    built = build(settings_of(*TINY, *(f"--{name}={value}" for name, value in values.items())))
    _, history = ddjax.run(built.algorithm, built.problem, key=jax.random.key(1), rounds=4, eval_every=2)
    (row,) = last[np.logical_and.reduce([last[name] == value for name, value in values.items()])].to_dict("records")
    # Constants in one program, data in the other: to rounding.
    assert row["loss"] == pytest.approx(history[-1].loss, rel=1e-6)
    assert row["disagreement"] == pytest.approx(history[-1].disagreement, rel=1e-5)


def test_one_table_with_a_row_per_evaluation_and_a_column_per_flag(finished):
    results = pd.read_csv(finished / "results.csv")
    parquet = pd.read_parquet(finished / "results.parquet")
    assert len(results) == len(parquet) == 12 * 3
    assert list(results) == list(parquet)
    flags = set(fields(Settings))
    apart = {
        "include",
        "output_dir",
        "resume",
        "checkpoint_every",
        "host_devices",
        "tensorboard",
        "coordinator_address",
    }
    assert flags - set(results) == apart | {"num_processes", "process_id"}
    assert {"cell", "status", "round", "accuracy_mean", "accuracy_min", "bytes_sent_total"} <= set(results)
    for name in ("accuracy_mean", "bytes_sent_total", "devices", "learning_rate"):
        np.testing.assert_array_equal(results[name], parquet[name])
    local, dsgd = (results[results.algorithm == name] for name in ("local", "dsgd"))
    assert local.topology.isna().all()
    assert set(dsgd.topology) == {"ring"}
    assert dsgd.consensus.isna().all()
    timings = pd.read_csv(finished / "timings.csv")
    assert set(timings.cell) == set(results.cell)
    assert (timings.us_per_device_step > 0).all()
    assert pd.read_csv(finished / "failures.csv").empty
    cell = finished / "cells" / results.cell[0]
    assert {path.name for path in cell.iterdir()} == KEPT
    assert json.loads((cell / "config.json").read_text())["flags"]["algorithm"] == "local"


@pytest.mark.slow
def test_a_second_start_does_nothing_and_a_sweep_may_grow(tmp_path, capsys, finished):
    out = copied(finished, tmp_path)
    cell = next((out / "cells").iterdir())
    stamp = cell.stat().st_mtime_ns
    assert call(*SMALL, f"--sweep_dir={out}") == 0
    assert "12 are done" in capsys.readouterr().out
    assert (out / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()
    assert call(*SMALL, "--seeds=3", f"--sweep_dir={out}") == 0
    printed = capsys.readouterr()
    assert "18 cells; 12 are done" in printed.out
    assert printed.err.count(" cells, about ") == 5  # the last line has no time left
    assert cell.stat().st_mtime_ns == stamp
    old, new = pd.read_csv(finished / "results.csv"), pd.read_csv(out / "results.csv")
    pd.testing.assert_frame_equal(new[new.seed < 2].reset_index(drop=True), old, check_exact=True)


def test_a_cell_that_fails_is_recorded_and_the_rest_go_on(tmp_path, capsys, monkeypatch):
    out = tmp_path / "sweep"
    flags = [*TINY, "--models=mlp", "--rounds=40", "--eval_every=20", "--algorithm=local,dsgd", f"--sweep_dir={out}"]
    run = ddjax.iterate

    def sometimes(simulation, **arguments):
        if broken and len(simulation.message_bytes.peer):
            raise RuntimeError("the roof is on fire")
        return run(simulation, **arguments)

    broken = True
    monkeypatch.setattr(experiment, "iterate", sometimes)
    assert call(*flags, "--learning_rate=0.1,1e9") == 3
    printed = capsys.readouterr()
    assert "2 failed, 1 diverged" in printed.err
    assert "3/4" in printed.err
    with (out / "failures.csv").open() as file:
        failures = {(row["algorithm"], float(row["learning_rate"])): row for row in csv.DictReader(file)}
    assert set(failures) == {("local", 1e9), ("dsgd", 0.1), ("dsgd", 1e9)}
    assert "but was 2.3 at the start; try" in failures["local", 1e9]["reason"]
    assert failures["dsgd", 0.1]["reason"] == "the roof is on fire"
    results = pd.read_csv(out / "results.csv")
    assert set(zip(results.learning_rate, results.status, strict=True)) == {(0.1, "done"), (1e9, "diverged")}
    assert "RuntimeError" in next((out / "failed").iterdir()).read_text()
    broken = False
    assert call(*flags, "--learning_rate=0.1,1e9") == 3  # failed cells are tried again, diverged ones are not
    assert "2/4" not in capsys.readouterr().err
    failures = pd.read_csv(out / "failures.csv")
    assert list(failures.status) == ["diverged", "diverged"]
    assert not list((out / "failed").iterdir())


def test_scalars_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    out, run = tmp_path / "sweep", tmp_path / "run"
    assert call(*TINY, "--tensorboard", f"--sweep_dir={out}") == 0
    assert call_train(*TINY, "--tensorboard", f"--output_dir={run}") == 0
    (cell,) = (out / "tensorboard").iterdir()
    for folder, table in ((cell, out / "results.csv"), (run / "tensorboard", run / "metrics.csv")):
        events = EventAccumulator(str(folder))
        events.Reload()
        rows = pd.read_csv(table)
        for name in ("accuracy_mean", "bytes_sent_total"):
            scalars = events.Tensors(name)  # TensorBoard's form of scalars since 2.0
            assert events.SummaryMetadata(name).plugin_data.plugin_name == "scalars"
            assert [scalar.step for scalar in scalars] == [0, 2, 4]
            np.testing.assert_allclose([make_ndarray(s.tensor_proto) for s in scalars], rows[name], rtol=1e-6)


def test_missing_tensorboard_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert call(*TINY, "--tensorboard", f"--sweep_dir={tmp_path / 'sweep'}") == 2
    assert "pip install -e '.[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_memory_bounds_what_runs_at_once():
    """Cells of 4, 3 and 3 bytes with a budget of 6: the first alone, then the others together."""

    class Fake:
        def __init__(self, memory):
            self.memory, self.seconds, self.cells = memory, memory, collections.deque([memory])

    programs = [Fake(3), Fake(4), Fake(3)]
    queue, taken = queues.Queue(programs, 6), []
    first, _ = queue.take(None)
    assert first.memory == 4
    waiting = threading.Thread(target=lambda: taken.append(queue.take(None)[0]))
    waiting.start()
    time.sleep(0.1)
    assert not taken
    queue.done(first)
    waiting.join(10)
    assert queue.take(None)[0].memory == taken[0].memory == 3
    assert queue.take(None) is None


def test_a_lane_stays_with_the_program_it_has_compiled():
    class Fake:
        def __init__(self, *cells):
            self.memory, self.seconds, self.cells = 1, 1, collections.deque(cells)

    small, large = Fake("a", "b"), Fake("c", "d", "e")
    queue = queues.Queue([small, large], 100)
    assert queue.take(None)[1] == "c"
    assert queue.take(None)[1] == "a"  # another lane, another program
    assert queue.take(small)[1] == "b"
    assert queue.take(large)[1] == "d"
    assert queue.take(small)[1] == "e"  # helps out


def test_the_estimate_counts_operations():
    """Linear 64 → 10: a forward pass of a device takes 2 · 640 operations, and a training example three times that."""
    built = build(Settings(models="linear", devices=4, rounds=10, eval_every=5, eval_examples=50))
    forward, references = 4 * 2 * 640, len(built.problem.reference)
    expected = forward * (3 * (16 + 64) * 10 + 3 * (50 + references))
    assert estimates.operations(built) == expected


@pytest.mark.slow
def test_a_sweep_killed_at_random_moments_ends_with_the_same_table(tmp_path):
    """By SIGKILL, each time after up to two more cells and up to half a second; the seed of the moments is fixed."""
    flags = [*SMALL, "--seeds=4"]
    whole, killed, moments = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    assert call(*flags, f"--sweep_dir={whole}") == 0
    expected = (whole / "results.csv").read_bytes()
    for _ in range(2):
        process = start(*flags, f"--sweep_dir={killed}")
        for _ in range(moments.randint(0, 2)):
            assert " cells, " in process.stderr.readline()
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert len(list((killed / "cells").glob("[!.]*"))) < 24
    assert call(*flags, f"--sweep_dir={killed}") == 0
    assert (killed / "results.csv").read_bytes() == expected
    assert {path.name for path in (killed / "cells").glob("[!.]*")} == {
        path.name for path in (whole / "cells").iterdir()
    }


@pytest.mark.slow
def test_two_shards_at_once_do_each_cell_once(tmp_path, finished):
    out = tmp_path / "sweep"
    shards = [start(*SMALL, f"--sweep_dir={out}", f"--shard={number}/2") for number in range(2)]
    errors = [process.communicate(timeout=600)[1] for process in shards]
    assert [process.returncode for process in shards] == [0, 0], errors
    ran = [re.findall(r"/6 cells[^;]*; (.*?): accuracy", error) for error in errors]
    assert list(map(len, ran)) == [6, 6]
    assert len({*ran[0], *ran[1]}) == 12
    assert (out / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


@pytest.mark.slow
def test_interrupting_keeps_what_is_done(tmp_path, finished):
    out, many = tmp_path / "sweep", [*SMALL, "--seeds=5"]  # enough cells that some are left when the signal comes
    process = start(*many, f"--sweep_dir={out}")
    for line in process.stderr:
        if "1/30 cells" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "interrupted" in process.stderr.read()
    assert 1 <= len(list((out / "cells").glob("[!.]*"))) < 30
    assert call(*many, f"--sweep_dir={out}") == 0
    assert len(list((out / "cells").iterdir())) == 30
    assert set((finished / "results.csv").read_text().splitlines()) < set(
        (out / "results.csv").read_text().splitlines()
    )
