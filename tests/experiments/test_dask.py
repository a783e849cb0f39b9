"""`sweep.py --scheduler`: the tables of a local sweep, whichever workers take part or die."""

import collections
import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import pandas as pd
import pytest
from commands import cells as planned
from commands import sweep as call

from ddjax.errors import InputError
from ddjax.experiments import records
from ddjax.experiments.sweeps import cluster, dispatch, worker
from ddjax.experiments.sweeps.dispatch import Dispatcher, Job, LostError
from ddjax.experiments.sweeps.queue import Program, longest

distributed = pytest.importorskip("distributed")
TINY = ["--devices=4", "--models=linear", "--rounds=4", "--eval_every=2"]
# One seed in three has no graph.
PICKY = """
import networkx as nx
from ddjax.errors import InputError
from ddjax.networks import TOPOLOGIES, TopologyEntry

def picky(devices, seed):
    if seed == 1:
        raise InputError("one is an unlucky number")
    return nx.cycle_graph(devices)

TOPOLOGIES.add(TopologyEntry("picky", picky))
"""
pytestmark = pytest.mark.usefixtures("forgetful")
VERSIONS = {name: version for name, version in records.versions().items() if name != "python"}


@pytest.fixture(scope="module")
def workers():
    """Two worker processes of one thread each; their nannies replace those that die."""
    env = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # as in these tests
    options = {"memory_limit": None, "dashboard_address": None, "silence_logs": logging.CRITICAL, "env": env}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as started:
        yield started


def same_tables(one, other):
    for name in ("results.csv", "results.parquet", "failures.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


# Whole sweeps.


@pytest.mark.slow
def test_two_workers_give_the_tables_of_a_local_sweep(tmp_path, capsys, workers):
    """Equal to the bit, with cells that fail and diverge, a user's own parts, and several programs."""
    include, here, there = tmp_path / "picky.py", tmp_path / "here", tmp_path / "there"
    include.write_text(PICKY)
    flags = [*TINY, "--rounds=20", "--algorithm=local,dsgd", f"--include={include}", "--topology=picky"]
    flags += ["--seeds=3", "--learning_rate=0.1,1e9", "--models=mlp"]
    assert call(*flags, f"--sweep_dir={here}") == 3
    assert call(*flags, f"--sweep_dir={there}", f"--scheduler={workers.scheduler_address}", "--tensorboard") == 3
    assert "12/12 cells" in capsys.readouterr().err
    same_tables(here, there)
    failures = pd.read_csv(there / "failures.csv")
    assert {"failed", "diverged"} == set(failures.status)
    assert sum(reason.endswith("one is an unlucky number") for reason in failures.reason) == 2
    ran = {path.name for path in (there / "cells").iterdir()}
    assert {path.name for path in (there / "tensorboard").iterdir()} == ran
    assert next((there / "tensorboard").rglob("events.*"))


@pytest.mark.slow
def test_a_killed_workers_cell_is_run_by_another(tmp_path, workers):
    here, there = tmp_path / "here", tmp_path / "there"
    flags = [*TINY, "--rounds=1000", "--algorithm=dsgd", "--seeds=4"]
    killed = []

    def busy():
        return [name for name, one in workers.scheduler.workers.items() if any("run" in t.key for t in one.processing)]

    def kill():
        while not (list(there.glob("cells/[!.]*")) and (running := busy())):
            time.sleep(0.01)
        process = next(one.process for one in workers.workers.values() if one.worker_address == running[0])
        os.kill(process.pid, signal.SIGKILL)
        killed.append(process.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    assert call(*flags, f"--sweep_dir={there}", f"--scheduler={workers.scheduler_address}") == 0
    killer.join()
    assert killed
    assert call(*flags, f"--sweep_dir={here}") == 0
    same_tables(here, there)


@pytest.mark.slow
def test_a_cell_on_which_workers_die_fails_with_one_line_and_the_rest_go_on(tmp_path, capsys, workers):
    """A cell that ends its process stands for one that exhausts the memory."""
    include, out = tmp_path / "deadly.py", tmp_path / "sweep"
    deadly = PICKY.replace("picky", "deadly").replace("raise InputError(", "__import__('os')._exit(1), (")
    include.write_text(deadly)
    flags = [*TINY, "--algorithm=dsgd", f"--include={include}", "--topology=deadly", "--seeds=3"]
    assert call(*flags, f"--sweep_dir={out}", f"--scheduler={workers.scheduler_address}") == 3
    (failure,) = pd.read_csv(out / "failures.csv").to_dict("records")
    assert failure["seed"] == 1
    assert failure["reason"].startswith("3 workers died, one after another")
    assert set(pd.read_csv(out / "results.csv").seed) == {0, 2}
    assert "2 of 3 cells" in capsys.readouterr().out


@pytest.mark.slow
def test_a_cluster_of_its_own(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert call(*TINY, "--seeds=3", f"--sweep_dir={here}") == 0
    assert call(*TINY, "--seeds=3", f"--sweep_dir={there}", "--scheduler=local", "--host_devices=2") == 0
    same_tables(here, there)


# A user's mistakes.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scheduler=127.0.0.1:9"], "no Dask scheduler answered at --scheduler=127.0.0.1:9"),
        (["--scheduler=nosuch"], "HOST:PORT or local, got 'nosuch'"),
        (["--scheduler=local", "--shard=0/2"], "leave --shard out"),
        (["--scheduler=127.0.0.1:9", "--host_devices=2"], "--host_devices is only for this machine"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setattr(cluster, "_ANSWER", 0.5)
    assert call(*TINY, f"--sweep_dir={tmp_path / 'sweep'}", *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "sweep").exists()


def test_without_dask_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert call(*TINY, f"--sweep_dir={tmp_path / 'sweep'}", "--scheduler=127.0.0.1:9") == 2
    assert "pip install -e '.[dask]'" in capsys.readouterr().err


# Workers.


@pytest.fixture
def process(monkeypatch):
    """This process as a worker of one thread."""
    monkeypatch.setattr(worker, "_process", worker._Process())
    monkeypatch.setattr(worker, "_dask", lambda: SimpleNamespace(address="here", state=SimpleNamespace(nthreads=1)))
    return worker._process


def test_a_worker_says_what_it_has(process):
    said = worker.greet(planned(*TINY), "float32", VERSIONS)
    assert said.accelerators == [f"here {jax.local_devices()[0].id}"]
    assert said.environment == records.environment()
    assert said.files == {}


@pytest.mark.parametrize(
    ("flags", "versions", "message"),
    [
        ([], VERSIONS | {"jax": "0.1"}, f"it has jax {VERSIONS['jax']} instead of 0.1"),
        (
            ["--dataset=nosuch.npz"],
            VERSIONS,
            "'nosuch.npz': No such file or directory; workers need the client's files",
        ),
    ],
)
def test_a_worker_with_other_versions_or_without_the_files_says_so(process, flags, versions, message):
    with pytest.raises(InputError, match=message):
        worker.greet(planned(*TINY, *flags), "float32", versions)


def test_an_included_file_must_be_the_clients(tmp_path, process):
    include = tmp_path / "empty.py"
    include.write_text("")
    sample = planned(*TINY, f"--include={include}")
    worker.greet(sample, "float32", VERSIONS)
    include.write_text("# changed")
    with pytest.raises(InputError, match="differs from what the client includes"):
        worker.greet(sample, "float32", VERSIONS)


def test_an_accelerator_runs_one_cell_at_a_time_and_one_precision(process):
    running, seen, errors = [], [], []

    def use(precision):
        with process.lent(precision):
            running.append(precision)
            time.sleep(0.02)
            if running != [precision] or jax.config.jax_enable_x64 != (precision == "float64"):
                errors.append(list(running))
            running.remove(precision)
            seen.append(precision)

    try:
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(use, ["float32", "float64"] * 6))
    finally:
        jax.config.update("jax_enable_x64", False)
    assert collections.Counter(seen) == {"float32": 6, "float64": 6}
    assert not errors


def test_accelerators_of_two_workers_have_the_same_name_where_they_are_the_same(process, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    first, second = SimpleNamespace(local_hardware_id=0), SimpleNamespace(local_hardware_id=1)

    def names(visible, *devices):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return set(worker._names(devices))

    assert names("3", first).isdisjoint(names("2", first))
    assert names("2,3", first, second) == names("3", first) | names("2", first)
    assert names("", first, second) == names("0", first) | names("1", first)


# Assignment of cells to workers.


class Future:
    """A future that is done when asked, or never if its worker dies."""

    def __init__(self, call, dies):
        self.call, self.dies = call, dies

    def add_done_callback(self, told):
        if not self.dies:
            told(self)

    def result(self, timeout):
        return self.call()

    def cancel(self):
        assert self.dies


class Client:
    """A cluster.

    Args:
      workers: address → accelerators.
      deadly: a job that kills its worker.
    """

    status = "running"

    def __init__(self, workers, deadly=None):
        self.workers, self.deadly, self.ran = dict(workers), deadly, []

    def nthreads(self):
        return dict(self.workers)

    def submit(self, call, *arguments, workers, allow_other_workers, pure):
        (address,) = workers
        assert not allow_other_workers
        if dies := self.deadly in arguments:
            del self.workers[address]
        self.ran.append((address, *arguments))
        return Future(lambda: call(address, *arguments), dies)


def dispatched(client, jobs, check=lambda greeting: None, shared=False):
    """Return value of each job."""

    def greet(address):
        names = ["same"] if shared else [f"{address} {lane}" for lane in range(lanes[address])]
        return worker.Greeting({}, "host", names, 100.0, {})

    lanes = dict(client.workers)
    dispatcher = Dispatcher(client, "scheduler", Job("greeting", greet, ()), check)
    left = collections.deque(Job(f"job {name}", lambda address, name: name, (name,)) for name in jobs)
    take = lambda free: left.popleft() if left else None  # noqa: E731
    return {job.name: result for job, result in dispatcher.each(take, left.appendleft)}, dispatcher


def test_each_worker_has_as_many_jobs_as_accelerators():
    client = Client({"a": 1, "b": 3})
    results, _ = dispatched(client, "123456789")
    assert results == {f"job {name}": name for name in "123456789"}
    assert collections.Counter(address for address, *_ in client.ran[2:6]) == {"a": 1, "b": 3}


def test_a_job_is_given_up_after_three_deaths(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "_LOOK_EVERY", 0.01)
    client = Client(dict.fromkeys("abcde", 1), deadly="2")
    results, dispatcher = dispatched(client, "123")
    assert isinstance(results.pop("job 2"), LostError)
    assert results == {"job 1": "1", "job 3": "3"}
    assert len(dispatcher.workers) == 2
    assert capsys.readouterr().err.count("another worker takes over job 2") == 2


def test_two_workers_on_one_accelerator_are_one_too_many(capsys):
    results, dispatcher = dispatched(Client({"a": 1, "b": 1}), "123", shared=True)
    assert len(results) == 3
    assert sorted(one.lanes for one in dispatcher.workers.values()) == [0, 1]
    assert "another worker uses the accelerator same" in capsys.readouterr().err


def test_where_no_worker_can_be_used_the_first_reason_is_said(monkeypatch):
    def refuse(greeting):
        raise InputError("it is not to my liking")

    monkeypatch.setattr(dispatch, "_LOOK_EVERY", 0.01)
    with pytest.raises(InputError, match="no worker of scheduler can be used; worker a: it is not to my liking"):
        dispatched(Client({"a": 1}), "1", check=refuse)


def test_workers_are_waited_for_and_a_scheduler_that_is_gone_is_not(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "_LOOK_EVERY", 0.01)
    client = Client({"late": 1})
    moments = iter([{}, {}, {"late": 1}])
    client.nthreads = lambda: next(moments, {"late": 1})
    assert dispatched(client, "1")[0] == {"job 1": "1"}
    assert capsys.readouterr().err.count("waiting for a worker") == 1
    client.status = "connecting"
    with pytest.raises(InputError, match="the scheduler at scheduler is gone"):
        dispatched(client, "1")


def test_the_longest_cells_come_first_and_of_equals_those_that_are_compiled():
    short, long, twin, large = (
        Program([1], size, (seconds, 0)) for size, seconds in ((1, 1), (2, 9), (2, 9), (50, 99))
    )
    programs = [short, long, twin, large]
    assert longest(programs, None, 100) is large
    assert longest(programs, twin, 10) is twin
    assert longest(programs, short, 10) in (long, twin)
    long.cells.clear()
    twin.cells.clear()
    assert longest(programs, twin, 10) is short
    assert longest(programs, None, 0) is None
