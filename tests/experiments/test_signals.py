"""Ends of a command from outside: signals, kills, an output without a reader, other runs at the same time."""

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import call, rows

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
# Not digits: scikit-learn takes a second to import.
SMALL = ["--devices=4", "--models=linear", "--host_devices=1", "--dataset=synthetic_classification"]
LONG = [*SMALL, "--optimizer=adam", "--consensus=tracking", "--rounds=400", "--eval_every=20", "--checkpoint_every=20"]
ENDLESS = [*SMALL, "--rounds=2000000", "--eval_every=1000000"]


def takes():
    """Accept Ctrl-C and SIGHUP, which a process in the background or under nohup ignores, as do its children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*flags, **kwargs):
    """train.py in its own process, which accepts all signals however these tests were started."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **kwargs}
    return subprocess.Popen([sys.executable, TRAIN, *flags], preexec_fn=takes, **pipes)


def until_trains(process, out, patience=60.0):
    """Wait for the first row of a run."""
    end = time.monotonic() + patience
    while not (out / "metrics.csv").exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)


@pytest.mark.slow
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    """One run, which every signal ends, and which goes on each time."""
    out = tmp_path / "a run"
    process = start(*ENDLESS, "--checkpoint_every=1000000", f"--output_dir={out}")
    until_trains(process, out)
    rounds = []
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)):
        process.send_signal(number)
        error = process.communicate()[1]
        assert process.returncode == code, error
        line = f"train.py: interrupted ({number.name}); continue from round "
        assert error.startswith(line)
        assert error.endswith(f" with --resume --output_dir='{out}'\n")
        rounds.append(reached := int(error.removeprefix(line).split()[0].replace(",", "")))
        # The last two are kept; they are equal if the signal comes before the first round.
        assert {path.name for path in (out / "checkpoints").iterdir()} == set(map(str, rounds[-2:]))
        assert not list(out.glob(".*"))
        last = [f"--rounds={reached + 3}"] if number == signal.SIGINT else []
        process = start("--resume", f"--output_dir={out}", *last)
        while not (line := process.stdout.readline()).startswith("  resumed"):
            assert line, process.communicate()[1]
        assert line == f"  resumed    at round {reached:,}\n"
        time.sleep(1.5)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert rounds == sorted(rounds)
    assert [row["round"] for row in rows(out)] == ["0", str(reached + 3)]


@pytest.mark.slow
def test_what_is_ignored_stays_ignored(tmp_path):
    """As under nohup."""
    out = tmp_path / "run"
    ignore = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    command = [sys.executable, TRAIN, *ENDLESS, f"--output_dir={out}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=ignore)
    until_trains(process, out)
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    error = process.communicate()[1]
    assert process.returncode == 143
    assert "interrupted (SIGTERM); what was written is kept" in error


@pytest.mark.slow
def test_nobody_reads_the_output(tmp_path):
    out = tmp_path / "run"
    process = start(*SMALL, "--rounds=5", f"--output_dir={out}")
    process.stdout.close()
    assert process.wait() == 0, process.stderr.read()
    assert process.stderr.read() == ""
    assert (out / "summary.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_output(tmp_path):
    out = tmp_path / "run"
    with open("/dev/full", "w") as full:
        process = start(*SMALL, "--rounds=5", f"--output_dir={out}", stdout=full)
        error = process.communicate()[1]
    assert process.returncode == 0
    assert error == "train.py: stdout cannot be written to (No space left on device); continuing without it\n"
    assert (out / "summary.json").exists()


@pytest.mark.slow
def test_a_terminal_without_greek(tmp_path):
    flags = [*SMALL, "--rounds=5", f"--output_dir={tmp_path / 'run'}"]
    process = start(*flags, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    printed, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert "4 x linear" in printed


def test_a_backend_that_is_not_there(tmp_path):
    process = start(*SMALL, f"--output_dir={tmp_path / 'run'}", env=os.environ | {"JAX_PLATFORMS": "cuda"})
    error = process.communicate()[1]
    assert process.returncode == 2
    assert error.startswith("train.py: JAX cannot run with JAX_PLATFORMS='cuda'")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_runs_that_start_at_once_do_not_mix(tmp_path, capsys):
    """Two runs with default folders, two on one folder, and one that resumes a live run."""
    flags = [*SMALL, "--rounds=4", "--eval_every=2"]
    apart = [start(*flags, cwd=tmp_path) for _ in range(2)]
    two = [start(*flags, "--output_dir=same", cwd=tmp_path) for _ in range(2)]
    said = [process.communicate() for process in apart + two]
    assert [process.returncode for process in apart] == [0] * 2, said
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    for folder in [*folders, tmp_path / "same"]:
        assert [row["round"] for row in rows(folder)] == ["0", "2", "4"]
        assert (folder / "summary.json").exists()
    assert sorted(process.returncode for process in two) == [0, 2], said
    refused = next(error for process, (_, error) in zip(two, said[2:], strict=True) if process.returncode == 2)
    assert "is in use by" in refused or "is not empty" in refused
    out = tmp_path / "live"
    live = start(*ENDLESS, "--checkpoint_every=1000000", f"--output_dir={out}")
    until_trains(live, out)
    resume = [*ENDLESS, "--checkpoint_every=1000000", f"--output_dir={out}", "--resume"]
    assert call(*resume) == 2
    assert f"is in use by process {live.pid}" in capsys.readouterr().err
    assert live.poll() is None
    live.kill()
    live.communicate()
    assert call(*resume) == 2
    assert "no checkpoint in" in capsys.readouterr().err  # a killed process no longer claims the folder


def disturbed(folder, numbers, seed):
    """End a run repeatedly at random moments, and compare it with an undisturbed run; return the number of resumes.

    Without a checkpoint the run starts again, as its user would do.
    """
    whole, out = folder / "whole", folder / "disturbed"
    begin = time.monotonic()
    assert start(*LONG, f"--output_dir={whole}").wait() == 0
    length, resumes, moments = time.monotonic() - begin, 0, random.Random(seed)
    numbers = list(numbers)
    while True:
        flags = [*LONG, f"--output_dir={out}"]
        # A checkpoint that is being written has a longer name.
        if any(path.name.isdecimal() for path in out.glob("checkpoints/*")):
            flags.append("--resume")
            resumes += 1
        else:
            shutil.rmtree(out, ignore_errors=True)
        process = start(*flags)
        if numbers:
            try:
                process.wait(moments.uniform(0.3, 1.0) * length)
            except subprocess.TimeoutExpired:
                process.send_signal(number := numbers.pop())
                _, error = process.communicate()
                # 0: the run was done; -SIGTERM: the command had not started, or had ended.
                allowed = (-number,) if number == signal.SIGKILL else (143, 0, -number)
                assert process.returncode in allowed, error
                continue
        _, error = process.communicate()
        assert process.returncode == 0, error
        assert rows(out) == rows(whole)
        assert (out / "links.csv").read_bytes() == (whole / "links.csv").read_bytes()
        if not numbers:
            return resumes
        shutil.rmtree(out)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_bit(tmp_path):
    """At random moments, checkpoint writes included. docs/results/operations.md has fifty kills and twenty signals."""
    assert disturbed(tmp_path, [signal.SIGTERM, signal.SIGKILL], seed=1) >= 1
