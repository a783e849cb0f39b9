"""`scripts/convergence.py` as users see it, and its fits."""

import csv
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import cells

from ddjax.experiments.studies import laws as laws_of
from ddjax.experiments.studies import study

ROOT = Path(__file__).parents[2]


def call(*flags):
    """The exit code of convergence.py with these flags."""
    return study.main(["convergence.py", *flags])


def start(*flags):
    """convergence.py in its own process, because float64 holds for a whole process."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/convergence.py", *flags], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def curves_of(folder):
    return {curve["label"]: curve for curve in summary_of(folder)["curves"]}


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_least_squares_ends_where_theory_says(tmp_path):
    """Tracking ends at the solution, as fast as theory predicts; the other forms end at the predicted bias."""
    out = tmp_path / "study"
    flags = ["--topology=ring,exponential,complete", "--consensus=tracking,gradient,neighbors", "--precision=float64"]
    printed = start("--devices=8", *flags, "--endpoints=1", f"--output_dir={out}").stdout.splitlines()
    found = curves_of(out)
    assert len(found) == 9
    assert sum("relative distance to the solution" in line for line in printed) == 9
    assert max(len(line) for line in printed if not line.startswith("written")) <= 120
    for label, curve in found.items():
        end = "reaches the solution (to float64)" if curve["reached"] else "rests at the predicted distance"
        assert f"{label}: {end}, after {curve['flags']['rounds']:,} rounds" in printed
        (distance,), (bias,) = curve["final"]["distance_to_solution"], curve["predicted_distance"]
        if "tracking" in label or ("complete" in label and "neighbors" in label):
            assert distance < 1e-8
            assert bias < 1e-8
            assert curve["endpoints"][0]["verdict"] == "minimum"
        else:
            assert distance == pytest.approx(bias, rel=1e-6)
            assert bias > 0.005
        if "tracking" in label:
            theory = curve["theory"]["distance_to_solution"]["value"]
            assert curve["slopes"]["distance_to_solution"]["semi-log"]["value"] == pytest.approx(theory, rel=0.05)
    promised = "seed round gradient_norm_sq_mean gradient_norm_sq_max consensus_error distance_to_solution"
    rows = table(out / "convergence.csv")
    assert set(promised.split()) <= set(rows[0])
    assert all(
        curve["reached"] == ("tracking" in label or ("neighbors" in label and "complete" in label))
        for label, curve in found.items()
    )
    each = table(out / "devices.csv")
    assert len(each) == 8 * len(rows)
    largest = max(float(row["gradient_norm_sq"]) for row in each[:8])
    assert largest == float(rows[0]["gradient_norm_sq_max"])
    assert len({path.stem for path in out.glob("*.png")}) == len({path.stem for path in out.glob("*.pdf")}) > 5
    page = (out / "summary.md").read_text()
    assert "scripts/convergence.py --devices=8" in page
    assert all((out / name).exists() for name in re.findall(r"\]\((.*?)\)", page))
    (over,) = (group for group in summary_of(out)["dependence"] if "gradient" in group["label"])
    gaps, left = np.log(over["at"]), np.log(over["final"]["consensus_error"][0])
    assert over["slopes"]["consensus_error"]["value"] == pytest.approx(np.polyfit(gaps, left, 1)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_the_directed_ring_needs_and_gets_a_smaller_step(tmp_path):
    """The promised command: 16 devices, relative 1e-8 with the default step size and rounds."""
    flags = ["--devices=16", "--topology=directed_ring", "--consensus=tracking", "--precision=float64"]
    start(*flags, f"--output_dir={tmp_path / 'study'}")
    (curve,) = curves_of(tmp_path / "study").values()
    assert curve["final"]["distance_to_solution"][0] < 1e-8


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_diminishing_steps_remove_the_bias_of_the_gradient_form(tmp_path):
    """ζ falls like 1/t; so do bias and distance, on any graph; squares fall like 1/t²."""
    flags = ["--devices=8", "--precision=float64", "--rounds=30000", "--learning_rate=0.05", "--points=30"]
    flags += ["--consensus_step_size_schedule=inverse_time:200", "--consensus_step_size=0.4"]
    start(*flags, "--topology=ring,directed_ring,one_peer_exponential", f"--output_dir={tmp_path / 'study'}")
    found = curves_of(tmp_path / "study")
    assert len(found) == 3
    for curve in found.values():
        assert curve["final"]["distance_to_solution"][0] < 1e-3
        for name, law in curve["theory"].items():
            power = 1 if name == "distance_to_solution" else 2
            assert law["value"] == pytest.approx(-power, abs=0.1 * power)
            assert curve["slopes"][name]["log-log"]["value"] == pytest.approx(law["value"], abs=0.1 * power)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_stochastic_mlps_come_to_rest_on_every_device(tmp_path):
    """Digits, GELU, falling steps, three seeds: the gradient of every device falls by far, the worst as the mean."""
    out = tmp_path / "study"
    flags = ["--dataset=digits", "--models=mlp", "--devices=6", "--batch_size=16", "--reference_batch_size=64"]
    flags += ["--partition=dirichlet", "--reference_size=200", "--learning_rate=0.2", "--rounds=4000", "--seeds=3"]
    flags += [f"--{name}_schedule=inverse_power:0.75:500" for name in ("learning_rate", "consensus_step_size")]
    start(*flags, "--points=20", "--endpoints=1", "--algorithm=distillation,dsgd", f"--output_dir={out}")
    rows = table(out / "convergence.csv")
    for label, curve in curves_of(out).items():
        for seed in ("0", "1", "2"):
            worst = [float(row["gradient_norm_sq_max"]) for row in rows if (row["curve"], row["seed"]) == (label, seed)]
            assert worst[-1] < 1e-3 * max(worst)
        assert curve["slopes"]["gradient_norm_sq_max"]["log-log"]["high"] < -0.5
        assert len(curve["endpoints"]) == 3
    assert (
        curve["slopes"]["gradient_norm_sq_running"]["log-log"]["high"]
        < curve["theory"]["gradient_norm_sq_running"]["value"]
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--algorithm=fedavg"], "convergence of 'fedavg' is not measured"),
        (["--algorithm=dsgd"], "can be derived only for distillation or local"),
        (["--models=mlp"], "can be derived only for distillation or local"),
        (["--batch_size=4"], "can be derived only for distillation or local"),
        (["--topology=random_matching"], "a graph that does not change; give numbers"),
        (["--local_steps=2"], "one sgd step of constant size"),
        (["--compressor=sign"], "uncompressed averaging"),
        (
            ["--consensus_step_size_schedule=cosine"],
            "cannot be derived if --consensus_step_size_schedule is not constant",
        ),
        (["--learning_rate=1e-9"], "rounds at step size 1e-09"),
        (["--precision=float64,float32"], "must use float64 if one of them does"),
        (["--window=5"], "1 ≤ FIRST < LAST"),
        (["--window=1000000:2000000"], "fits need two measured rounds"),
        (["--consensus=gradient,trakking", "--learning_rate=0.1", "--rounds=10"], "trakking"),
        (["--dataset=synthetic_regression:2000"], "at most 4000 coefficients"),
        (["--window=9:5"], "1 ≤ FIRST < LAST"),
        (["--points=1"], "points must be at least 2"),
        (["--endpoints=-1"], "endpoints must be at least 0"),
        (["--topologie=ring"], "topologie"),
        (["--learning_rate_schedule=inverse_power"], "expected 'inverse_power:A[:TAU]'"),
        (["--learning_rate_schedule=inverse_power:x"], "A must be a positive number, got 'x'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, flags, message):
    out = tmp_path / "study"
    assert call("--devices=4", f"--output_dir={out}", *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_algorithms_side_by_side(tmp_path):
    """Each system has its own measures: one model of all data, isolated devices, a server; no graph if none is used."""
    out = tmp_path / "study"
    flags = ["--devices=4", "--rounds=20", "--learning_rate=0.05", "--points=6", "--seeds=2", "--endpoints=1"]
    algorithms = "--algorithm=centralized,local,server_distillation,dsgd,distillation"
    assert call(*flags, algorithms, "--topology=random_regular:3", f"--output_dir={out}") == 0
    found = curves_of(out)
    assert (
        found["centralized"]["final"]["gradient_norm_sq_mean"] == found["centralized"]["final"]["gradient_norm_sq_max"]
    )
    for name in ("centralized", "local", "server_distillation"):
        assert found[name]["spectral_gap"] == found[name]["neighbors"] == []
    assert found["dsgd"]["neighbors"] == [[3] * 4] * 2
    assert found["server_distillation"]["final"]["consensus_error"] == pytest.approx([0, 0], abs=1e-12)
    assert found["local"]["final"]["consensus_error"] == [None, None]
    assert [len(curve["endpoints"]) for curve in found.values()] == [2] * 5
    page = (out / "summary.md").read_text()
    assert all(f"| {name} |" in page for name in found)


def test_devices_alone_have_a_derived_step_too(tmp_path):
    out = tmp_path / "study"
    assert call("--devices=4", "--algorithm=local", "--points=5", f"--output_dir={out}") == 0
    (curve,) = curves_of(out).values()
    assert curve["reached"]


def test_an_interrupted_study_keeps_the_curves_that_are_done(tmp_path, monkeypatch):
    out, run = tmp_path / "study", study.run_curve

    def second_is_interrupted(cells, *arguments):
        if cells[0].settings.algorithm == "dsgd":
            raise KeyboardInterrupt
        return run(cells, *arguments)

    monkeypatch.setattr(study, "run_curve", second_is_interrupted)
    flags = ["--devices=4", "--rounds=20", "--learning_rate=0.05", "--points=5", "--algorithm=distillation,dsgd"]
    assert call(*flags, f"--output_dir={out}") == 130
    assert list(curves_of(out)) == ["distillation"]
    assert len(table(out / "convergence.csv")) == 5


def test_laws_hold_where_their_conditions_do():
    """Theory's slopes, by hand; there are none if the sum of ζ_t is finite or too small, or for other mixings."""
    rounds = np.unique(np.geomspace(1, 100_000, 60).astype(int))

    def laws(*flags, solved=False, zeta=0.5):
        (cell,) = cells("--rounds=100000", *flags)
        facts = {"solved": solved, "consensus_step_size": zeta}
        return {
            name: (law["value"], law["bound"])
            for name, law in laws_of.theory(cell, facts, rounds, (10_000, 100_000)).items()
        }

    whole = ["--batch_size=0", "--reference_batch_size=0"]
    falling = "--consensus_step_size_schedule=inverse_power:0.5:10"
    close = partial(pytest.approx, abs=0.02)
    assert laws(*whole, falling, solved=True)["distance_to_solution"] == (close(-0.5), False)
    assert laws(*whole, falling, solved=True)["consensus_error"] == (close(-1), False)
    assert laws(*whole, falling)["consensus_error"] == (close(-1), True)
    both = "--learning_rate_schedule=inverse_power:0.75:10", "--consensus_step_size_schedule=inverse_power:0.75:10"
    assert laws(*both)["consensus_error"] == (close(-0.75), True)
    assert laws(*both, "--mixing=gossip") == laws(*both, "--compressor=sign") == {}
    for schedule in ("inverse_power:1.5:10", "cosine", "inverse_time:2"):
        assert laws(*whole, f"--consensus_step_size_schedule={schedule}") == {}
    averaging = laws("--algorithm=dsgd", "--learning_rate_schedule=inverse_power:0.75:10")
    assert averaging["consensus_error"] == (close(-1.5), True)
    assert averaging["gradient_norm_sq_running"] == (pytest.approx(-0.25, abs=0.1), True)
    for schedule, slope in (("constant", 0.0), ("inverse_power:3:10", 0.0)):
        value, _ = laws("--algorithm=dsgd", f"--learning_rate_schedule={schedule}")["gradient_norm_sq_running"]
        assert value == close(slope)


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert call("--devices=4", f"--output_dir={tmp_path}") == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_study_that_diverges_says_so(tmp_path, capsys):
    flags = ["--devices=4", "--learning_rate=9", "--rounds=2000", "--points=5", f"--output_dir={tmp_path / 'study'}"]
    assert call(*flags) == 3
    assert "these curves diverged; try a smaller step size: distillation" in capsys.readouterr().err
    assert (tmp_path / "study" / "summary.md").exists()
