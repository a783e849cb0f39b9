"""Lines on the console: units, the time of a run, messages, and the time left."""

import dataclasses
import io
import re
import sys
import threading
import time
from types import SimpleNamespace

import jax
import pytest
from commands import FAST, call, settings, summary

from ddjax.algorithms import ALGORITHMS
from ddjax.experiments import build, records
from ddjax.experiments.clock import Clock
from ddjax.experiments.console import account
from ddjax.experiments.messages import beside, message_lines
from ddjax.experiments.progress import Display as Bar
from ddjax.experiments.progress import Pace
from ddjax.experiments.sweeps import plan, progress
from ddjax.experiments.sweeps.forecast import Forecast, Work
from ddjax.experiments.sweeps.progress import Display
from ddjax.experiments.units import common_unit, duration, size
from ddjax.simulation import Progress

COMPILE = 4.0  # estimated seconds


class Time:
    """A clock that is set by hand."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds

    def pass_by(self, seconds):
        self.seconds += seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (2560, "2.56 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (15_360_000, "15.4 MB"),
        (24_431_000_000, "24.4 GB"),
        (3e12, "3 TB"),
    ],
)
def test_sizes_have_three_figures(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("counts", "texts"),
    [
        ((153_600, 4_915_200), ["0.154 MB", "4.92 MB"]),
        ((15_360_000, 491_520_000), ["15.4 MB", "492 MB"]),
        ((153_600, 1_536_000_000), ["0.154 MB", "1,540 MB"]),  # not 0.000154 GB
        ((0, 2560), ["0 kB", "2.56 kB"]),
        ((1, 20), ["1 byte", "20 bytes"]),
        ((0, 0), ["0 bytes", "0 bytes"]),
    ],
)
def test_sizes_that_are_compared_have_one_unit(counts, texts):
    assert [size(count, common_unit(counts)) for count in counts] == texts


def test_durations_are_in_the_unit_that_suits_them():
    assert [duration(seconds) for seconds in (3.4, 89, 120, 7200)] == ["3 s", "89 s", "2 min", "2.0 h"]


def test_the_phases_of_a_clock_add_up():
    time = Time()
    clock = Clock(["starting", "working", "drawing"], 2.0, time)
    for phase, seconds in (("working", 1.0), ("drawing", 5.0), ("working", 4.0)):
        time.pass_by(seconds)
        clock.enter(phase)
    time.pass_by(0.5)
    clock.move(3.0, "working", "starting")
    assert clock.seconds() == {"starting": 6.0, "working": 2.5, "drawing": 4.0, "total": 12.5}
    clock.move(100.0, "working", "drawing")  # no phase becomes negative
    assert clock.seconds() == {"starting": 6.0, "working": 0.0, "drawing": 6.5, "total": 12.5}


def test_the_time_of_a_run_is_accounted_for(tmp_path, capsys):
    """Training is a part of its own, also in a resumed run, which accounts only for itself."""
    flags = [*FAST, "--checkpoint_every=6", f"--output_dir={tmp_path / 'run'}"]
    trained = 0.0
    for more in ((), ("--resume", "--rounds=12")):
        begun = time.monotonic()
        assert call(*flags, *more) == 0
        passed = time.monotonic() - begun
        found = summary(tmp_path / "run")
        parts = {name: seconds for name, seconds in found["seconds"].items() if name != "total"}
        assert list(parts) == ["starting", "data", "compiling", "training", "evaluating", "drawing"]
        assert min(parts.values()) >= 0
        assert found["seconds"]["total"] == pytest.approx(passed, abs=0.5)
        assert parts["training"] == pytest.approx(found["seconds_train"] - trained, abs=0.002)
        assert parts["compiling"] >= found["seconds_compile"]
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("time"))
        printed = [round(10 * float(text)) for text in re.findall(r"\d+\.\d", line)]
        assert printed == [sum(printed[1:]), *(round(10 * seconds) for seconds in parts.values())]
        trained = found["seconds_train"]


def test_the_printed_times_add_up(capsys):
    """Each is rounded down, and their sum would be rounded up."""
    account({"data": 0.13, "training": 0.13, "total": 0.26})
    assert capsys.readouterr().out.split() == ["time", "0.2", "s", "0.1", "data,", "0.1", "training"]


P, R, B, K = 650, 359, 64, 10  # parameters, reference examples, of them in a round, classes
NUMBERS = 4 * B * K
SHARED = {"to the server: parameters;": 4 * P, "from the server: parameters;": 4 * P}
AVERAGED = {"to a neighbour: parameters;": 4 * P}
MESSAGES = {
    "co_regularization": {},
    "corlsr": {
        "to the server: predictions for 359 reference examples;": 4 * R * K,
        "from the server: the mean predictions for 359 reference examples;": 4 * R * K,
    },
    "def_kt": AVERAGED,
    "distillation": {"to a neighbour: 64 soft decisions of 10 classes;": NUMBERS},
    "server_distillation": {
        "to the server: 64 soft decisions of 10 classes;": NUMBERS,
        "from the server: the mean of 64 soft decisions of 10 classes;": NUMBERS,
    },
    "ds_fl": {
        "to the server: 64 soft decisions of 10 classes;": NUMBERS,
        "from the server: the sharpened mean of 64 soft decisions of 10 classes;": NUMBERS,
    },
    "dsgd": AVERAGED,
    "local_dsgd": AVERAGED,
    "choco": {"to a neighbour: difference of parameters, compressed by top_k:0.01;": (4 + 2) * 6},  # with indices
    "push_sum": {"to a neighbour: numerators of parameters, with weights;": 4 * (P + 1)},
    "dynamic_averaging": {
        "to the server: parameters of a device that violates the condition;": 4 * P,
        "to the server: parameters of a polled device;": 4 * P,
        "from the server: request for parameters;": 1,
        "from the server: average parameters, and whether they are the new reference;": 4 * P + 1,
    },
    "exact_diffusion": {"to a neighbour: corrected parameters;": 4 * P},
    "fedavg": SHARED,
    "fedprox": SHARED,
    "fedct": {
        "to the server: labels of 359 reference examples;": R,
        "from the server: 359 labels by majority vote;": R,
    },
    "fedct_neighbors": {"to a neighbour: labels of 359 reference examples;": R},
    "fedmd": {
        "to the server: logits of 10 classes for 64 reference examples;": NUMBERS,
        "from the server: the mean logits of 10 classes for 64 reference examples;": NUMBERS,
    },
    "gossip": {"to a neighbour: parameters and age;": 4 * P + 4},
    "gradient_tracking": {"to a neighbour: parameters and gradient estimate;": 4 * 2 * P},
    "idkd": AVERAGED | {"to a neighbour: soft label of one reference example, 10 classes;": 4 * K + 4},
    "kt_pfl": {
        "to the server: 64 soft decisions of 10 classes;": NUMBERS,
        "from the server: 64 soft decisions of 10 classes, mixed with weights for this device;": NUMBERS,
    },
    "local": {},
    "centralized": {},
    "quasi_global_momentum": AVERAGED,
    "relaysgd": {"to a neighbour: sum of the parameters of several devices, and their count;": 4 * P + 4},
    "scaffold": {
        "to the server: parameters and control variate;": 4 * 2 * P,
        "from the server: parameters and control variate;": 4 * 2 * P,
    },
}


@pytest.fixture
def untraced(monkeypatch):
    """Experiments are built without tracing their programs."""

    def simulation(make, problem, mesh, hyperparameters):
        return SimpleNamespace(problem=problem)

    monkeypatch.setattr("ddjax.experiments.experiment.Simulation", simulation)


def lines_of(*flags):
    built = build(settings("--devices=4", "--models=linear", *flags))
    return list(message_lines(built, min(B, len(built.problem.reference))))


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_the_messages_of_an_algorithm_say_what_they_hold(name):
    lines = lines_of(f"--algorithm={name}", *(["--topology=path"] if name == "relaysgd" else []))
    assert len(lines) == len(MESSAGES[name])
    for line, (text, count) in zip(lines, MESSAGES[name].items(), strict=True):
        assert text in line
        assert line.split()[1:3] == [f"{count:,}", "bytes" if count > 1 else "byte"]


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--models=mlp"], ["2,560 bytes (2.56 kB) to a neighbour: 64 soft decisions of 10 classes; 1/15 of"]),
        (
            ["--mixing=choco", "--compressor=uint8"],
            ["to a neighbour: difference of 64 soft decisions of 10 classes, compressed by uint8; 0.25 of"],
        ),
        (
            ["--algorithm=server_distillation", "--compressor=uint8"],
            ["10 classes, compressed by uint8; 0.25 of", "the mean of 64 soft decisions of 10 classes; 0.98 of"],
        ),
        (
            ["--algorithm=idkd", "--compressor=float16"],
            ["parameters, compressed by float16; 0.5 of", "reference example, 10 classes; 1/59 of"],
        ),
        (["--compressor=identity"], ["to a neighbour: 64 soft decisions of 10 classes; 0.98 of"]),
        (["--dataset=synthetic_regression"], ["256 bytes to a neighbour: 64 predictions; 5.8 times the largest"]),
    ],
)
def test_messages_depend_on_mixing_compressor_and_task(flags, words):
    lines = lines_of(*flags)
    assert len(lines) == len(words)
    for line, text in zip(lines, words, strict=True):
        assert text in line


@pytest.mark.usefixtures("untraced", "forgetful")
def test_a_message_that_nobody_describes_is_called_by_its_kind():
    ALGORITHMS.add(dataclasses.replace(ALGORITHMS["dsgd"], name="silent", contents={}))
    assert "to a neighbour: value; as large" in lines_of("--algorithm=silent")[0]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 of the"),
        (1, "1/38,440 of the"),
        (2560, "1/15 of the"),
        (15376, "0.4 of the"),
        (25627, "0.67 of the"),
        (38000, "0.99 of the"),
        (38439, "as large as the"),
        (38441, "as large as the"),
        (76880, "2 times the"),
        (38_440_000, "1,000 times the"),
    ],
)
def test_a_size_is_compared_with_the_largest_model(count, text):
    assert beside(count, 38_440) == f"{text} largest model, 38.4 kB"


@pytest.mark.parametrize("at_start", [0.0, 3.0])
def test_the_time_left_of_a_run_counts_its_evaluations(at_start):
    """100 rounds of 0.5 s, and evaluations of 3 s every 20 rounds: 5 of them, the last after the last round."""
    time = Time()
    pace = Pace(100, 20, time)
    assert pace.left() is None
    pace.follow(Progress(0, 0.0, 9.0, at_start))
    assert pace.left() is None
    for number in range(1, 101):
        time.pass_by(0.5)
        pace.follow(Progress(number, 0.5 * number, 9.0, at_start))
        known = at_start or number > 20  # a resumed run learns from its first evaluation what one takes
        evaluations = 5 - (number - 1) // 20 if known else 0
        assert pace.left() == pytest.approx(0.5 * (100 - number) + 3 * evaluations)
        if number % 20 == 0:
            time.pass_by(3.0)


def test_a_resumed_run_counts_only_what_it_does_itself():
    time = Time()
    pace = Pace(100, 50, time)
    pace.follow(Progress(40, 1000.0, 9.0))
    time.pass_by(10.0)
    pace.follow(Progress(45, 1010.0, 9.0))
    assert (pace.rate(), pace.left()) == (0.5, pytest.approx(110.0))


def terminal(monkeypatch):
    """A terminal in the place of stderr."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.mark.parametrize("process", [0, 1])
def test_an_evaluation_leaves_the_time_left_on_the_line(process, monkeypatch):
    """If several processes share a terminal, only the first process draws a bar."""
    screen = terminal(monkeypatch)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(records, "brief", lambda evaluation: "accuracy 0.9")
    bar = Bar(100, 50, 0)
    bar.progress(Progress(0, 0.0, 9.0))
    bar.progress(Progress(50, 0.5, 9.0))
    bar.evaluation(None)
    bar.close()
    drawn = screen.getvalue().split("\r")[-1].strip()
    if process == 0:
        assert drawn.startswith("round 50/100")
        assert drawn.endswith(", accuracy 0.9, 100 rounds/s, about 0 s left")
    else:
        assert drawn == ""


def run(forecast, name, program, begun, beside, training, fresh):
    """A cell from its begin to its end; returns when that is."""
    forecast.begin(name, program, fresh, begun)
    forecast.end(name, begun + beside + training, training)
    return begun + beside + training


def test_a_forecast_without_measurements_is_the_estimate():
    forecast = Forecast({"a": Work(1, (3.0, 1.0), COMPILE), "b": Work(1, (5.0, 1.0), COMPILE)})
    assert forecast.left(0.0) == pytest.approx(3 + 1 + 5 + 1 + 2 * COMPILE)


@pytest.mark.parametrize(("cells", "lanes", "seconds"), [(3, 2, 120), (9, 8, 120), (8, 8, 60), (3, 0, 180)])
def test_cells_are_whole(cells, lanes, seconds):
    forecast = Forecast({"a": Work(cells, (60.0, 0.0), 0.0)}, lambda: lanes)
    assert forecast.left(0.0) == pytest.approx(seconds, abs=1)


def test_each_lane_compiles_its_own_program():
    forecast = Forecast({"a": Work(4, (5.0, 0.0), COMPILE)}, lambda: 2)
    assert forecast.left(0.0) == pytest.approx(COMPILE + 5 + 0.3 + 5)
    forecast.begin("first", "a", True, 0.0)
    forecast.begin("second", "a", True, 0.0)
    for name in ("first", "second"):
        forecast.end(name, COMPILE + 5.0, 5.0)
    assert forecast.left(COMPILE + 5.0) == pytest.approx(0.3 + 5)  # both lanes have compiled it


@pytest.mark.parametrize(("longest", "seconds"), [(False, COMPILE + 10 + 0.3 + 10), (True, COMPILE + 10 + COMPILE + 9)])
def test_cells_are_handed_out_as_the_queue_does_it(longest, seconds):
    """Two lanes take a program each; a cluster starts with the longest cells, so both of its lanes compile both."""
    works = {"a": Work(2, (10.0, 0.0), COMPILE), "b": Work(2, (9.0, 0.0), COMPILE)}
    assert Forecast(works, lambda: 2, longest).left(0.0) == pytest.approx(seconds)


def test_workers_that_join_shorten_the_time_left():
    lanes = 1
    forecast = Forecast({"a": Work(4, (10.0, 0.0), 0.3)}, lambda: lanes)
    assert forecast.left(0.0) == pytest.approx(41.2)
    lanes = 4
    assert forecast.left(0.0) == pytest.approx(10.3)
    for name in "abcd":
        forecast.begin(name, "a", True, 0.0)
    lanes = 0
    assert forecast.left(0.0) == pytest.approx(10.3)  # running cells count


def test_the_time_left_shrinks_while_a_cell_reports_no_rounds():
    forecast = Forecast({"a": Work(2, (10.0, 0.0), COMPILE)})
    forecast.begin("first", "a", True, 0.0)
    forecast.train("first", 2 * COMPILE)
    assert forecast.left(2 * COMPILE + 7) == pytest.approx(3 + 0.3 + 10 + 0.3)
    assert forecast.left(2 * COMPILE + 20) == pytest.approx(0.3 + 20 + 0.3)  # as long as the first has taken
    forecast.end("first", 2 * COMPILE + 30, 30.0)
    assert forecast.left(2 * COMPILE + 30) == pytest.approx(30.3)


def test_estimates_are_scaled_by_what_was_measured():
    """All takes three times its estimate, so the program that nobody has run is expected to do so, too."""
    forecast = Forecast(
        {"a": Work(2, (4.0, 1.0), COMPILE), "b": Work(2, (1.0, 3.0), COMPILE), "c": Work(2, (2.0, 2.0), COMPILE)}
    )
    at = 0.0
    for number, (program, training) in enumerate((("a", 15.0), ("a", 15.0), ("b", 12.0), ("b", 12.0))):
        fresh = number % 2 == 0
        at = run(forecast, str(number), program, at, 7.0 if fresh else 1.0, training, fresh)
    assert forecast.left(at) == pytest.approx(7.0 + 12.0 + 1.0 + 12.0, rel=0.02)


def test_a_cell_that_runs_is_measured_by_its_rounds():
    forecast = Forecast({"a": Work(2, (4.0, 1.0), COMPILE)})
    forecast.begin("first", "a", True, 0.0)
    assert forecast.left(2.0) == pytest.approx(COMPILE - 2 + 5 + 5 + 0.3)
    forecast.follow("first", 0.25, 10.0)
    assert forecast.left(13.0) == pytest.approx(30 + 0.75 * 0.3 + 40 + 0.3)
    forecast.end("first", 43.0, 40.0)
    forecast.begin("second", "a", False, 43.0)
    forecast.back("second")  # its worker died, so another one compiles the program
    assert forecast.left(43.0) == pytest.approx(3 + 40)


def test_compilations_are_scaled_by_what_was_measured():
    """The first takes twice its estimate, and the other is twice as large."""
    forecast = Forecast({"a": Work(1, (1.0, 0.0), 3.0), "b": Work(1, (1.0, 0.0), 6.0)})
    at = run(forecast, "first", "a", 0.0, 6.0, 1.0, True)
    assert forecast.left(at) == pytest.approx(12.0 + 1.0)


def test_a_compilation_that_takes_longer_than_expected_counts():
    forecast = Forecast({"a": Work(1, (1.0, 0.0), COMPILE), "b": Work(1, (1.0, 0.0), COMPILE)})
    forecast.begin("first", "a", True, 0.0)
    assert forecast.left(5 * COMPILE) == pytest.approx(1 + 5 * COMPILE + 1)


def test_the_longest_cell_bounds_the_time_left():
    forecast = Forecast({"a": Work(2, (8.0, 0.0), COMPILE)}, lambda: 2)
    at = run(forecast, "first", "a", 0.0, 2.0, 8.0, True)
    forecast.begin("second", "a", False, at)
    forecast.follow("second", 0.5, 4.0)
    assert forecast.left(at + 4.0) == pytest.approx(4.0 + 0.5 * 0.3)


def test_cells_that_did_not_run_to_their_end_measure_nothing():
    forecast = Forecast({"a": Work(2, (8.0, 0.0), COMPILE)})
    forecast.begin("first", "a", True, 0.0)
    forecast.end("first", 0.01)
    assert forecast.left(0.01) == pytest.approx(8.3)


def test_a_sweep_says_how_long_it_takes_before_a_cell_has_ended(capsys):
    time = Time()
    first, second = plan.cells({"rounds": "10,20"}, {}, plan.SweepSettings())
    display = Display(3, 1, Forecast({"p": Work(2, (1.0, 0.0), COMPILE)}), " for the trials", time)
    display.begin(first, "p", True)
    time.pass_by(25.0)
    display.tick()
    display.round(first, 5, 20.0)
    assert capsys.readouterr().err == ""
    time.pass_by(20.0)
    display.round(first, 10, 40.0)
    display.tick()
    display.tick()
    assert capsys.readouterr().err == "1/3 cells, about 40 s left for the trials; rounds=10: round 10/10\n"
    display.end(first, "accuracy 0.9", 40.0)
    assert capsys.readouterr().err == "2/3 cells, about 40 s left for the trials; rounds=10: accuracy 0.9\n"
    time.pass_by(31.0)
    display.tick()
    assert capsys.readouterr().err == "2/3 cells, about 40 s left for the trials; no cell runs\n"
    display.begin(second, "p", False)
    display.train(second)
    display.end(second, "failed", None)
    assert capsys.readouterr().err == "3/3 cells; rounds=20: failed\n"


def test_a_display_ticks_by_itself_until_it_is_closed(monkeypatch):
    monkeypatch.setattr(progress, "_DRAW_EVERY", 0.001)
    ticked = threading.Semaphore(0)
    monkeypatch.setattr(Display, "tick", lambda self: ticked.release())
    before = threading.active_count()
    with Display(1, 0, Forecast({})):
        assert ticked.acquire(timeout=60)
    assert threading.active_count() == before


def test_a_terminal_has_one_line_that_is_redrawn(monkeypatch):
    screen = terminal(monkeypatch)
    cell, _ = plan.cells({"rounds": "10,20"}, {}, plan.SweepSettings())
    time = Time()
    with Display(1, 0, Forecast({"p": Work(1, (60.0, 0.0), COMPILE)}), now=time) as display:
        display.begin(cell, "p", True)
        time.pass_by(40.0)
        display.tick()
    display.end(cell, "accuracy 0.9", 40.0)  # by a lane that ends late
    drawn = screen.getvalue().split("\r")
    assert any("about 60 s left; rounds=10: starting" in line for line in drawn)
    assert not any("accuracy" in line for line in drawn)
