"""Settings are picked on validation data, and the test set is opened only for the winners."""

import math

import numpy as np
import pandas as pd
import pytest
from commands import cells as planned
from commands import sweep as call

from ddjax import data
from ddjax.data.problem import prepare
from ddjax.errors import InputError
from ddjax.experiments.sweeps import selection
from ddjax.experiments.sweeps.frontier import frontier
from ddjax.experiments.sweeps.plan import SweepSettings
from ddjax.networks import build_topology

TINY = ["--devices=4", "--models=linear", "--rounds=6", "--eval_every=2", "--validation_examples=100"]
BY = "--select=accuracy_mean@validation"


@pytest.mark.parametrize(
    "more", [{}, {"partition": "dirichlet", "feature_shift": "noise:0.0001", "reference_known": 0.5}]
)
def test_validation_examples_are_held_by_nobody(more):
    """Every example has a different input, to tell rows apart; devices' data do not depend on the test set."""
    x = np.arange(60.0)[:, None]
    dataset = data.Dataset(x[:50], np.arange(50, dtype=np.int32) % 2, x[50:], np.zeros(10, np.int32), 2, scaled=True)
    network = build_topology("ring", 3).network
    choices = {"reference_size": 8, "validation_examples": 12, "partition": "iid"} | more
    tested = prepare(dataset, network, **choices).problem
    tried = prepare(dataset, network, **choices, evaluate_on="validation").problem
    for name in ("x", "y", "private_indices", "private_counts", "reference", "known"):
        if getattr(tested, name) is not None:
            np.testing.assert_array_equal(getattr(tried, name), getattr(tested, name))
    sets = [
        {float(value) for value in part.ravel()} for part in (tested.x, tested.reference, tried.x_test, tested.x_test)
    ]
    assert [len(part) for part in sets] == [30, 8, 12, 10]
    assert len(set.union(*sets)) == 60
    np.testing.assert_array_equal(np.asarray(tried.x_test)[:, 0].round().astype(int) % 2, tried.y_test)


def results(cells, values):
    """A table in which every cell sends 10 bytes until round 3 and 100 until round 6, with these accuracies there."""
    rows = []
    for cell in cells:
        early, late = values(cell)
        for round, sent, value in ((0, 0, 0.1), (3, 10, early), (6, 100, late)):
            rows.append((cell.name, "done", round, sent if cell.settings.algorithm != "local" else 0, value))
    return pd.DataFrame(rows, columns=["cell", "status", "round", "bytes_sent_total", "accuracy_mean"])


def test_the_best_on_average_over_seeds_is_picked_at_each_number_of_bytes():
    """0.2 is better early, 0.1 late; 0.4 is best with one seed and diverges with the other."""
    cells = planned(*TINY, "--algorithm=dsgd,local", "--learning_rate=0.1,0.2,0.4", "--seeds=2")
    table = results(
        cells,
        lambda cell: {0.1: (0.3, 0.9 - 0.2 * cell.settings.seed), 0.2: (0.5, 0.7), 0.4: (0.99, 0.99)}[
            cell.settings.learning_rate
        ],
    )
    lost = [cell.name for cell in cells if cell.settings.learning_rate == 0.4 and cell.settings.seed == 1]
    table = table[~(table.cell.isin(lost) & (table["round"] == 6))]
    sweep = SweepSettings(select="accuracy_mean@validation")
    found = selection.choose(cells, table, "accuracy_mean", sweep)
    dsgd = [(one.budget, one.picked["learning_rate"]) for one in found if one.system["algorithm"] == "dsgd"]
    assert dsgd == [(10, 0.2), (20, 0.2), (50, 0.2), (math.inf, 0.1)]
    assert [(one.budget, one.value) for one in found if one.system["algorithm"] == "local"] == [(math.inf, 0.8)]
    assert all((one.trials, one.lost) == (3, 1) for one in found)
    tests = selection.finals(found, [0, 1, 2])
    assert {(c.settings.algorithm, c.settings.learning_rate, c.settings.seed) for c in tests} == {
        (name, rate, seed) for name, rate in (("dsgd", 0.1), ("dsgd", 0.2), ("local", 0.1)) for seed in range(3)
    }
    assert {cell.settings.evaluate_on for cell in tests} == {"test"}


def test_every_system_gets_as_many_trials():
    sweep = SweepSettings(trials=2, trial_seeds=1)
    lists = ["--algorithm=dsgd,distillation", "--distillation_weight=1,3", "--learning_rate=0.1,0.2,0.4", "--seeds=2"]
    tried = selection.trials(planned(*TINY, *lists), sweep)
    assert [cell.settings.algorithm for cell in tried].count("dsgd") == 2
    assert len(tried) == 4
    assert {(cell.settings.evaluate_on, cell.settings.seed) for cell in tried} == {("validation", 0)}
    apart = SweepSettings(trials=2, select_per="distillation_weight")
    assert len(selection.trials(planned(*TINY, *lists), apart)) == (2 + 2 * 2) * 2


def test_the_least_error_is_picked():
    flags = ["--dataset=synthetic_regression", "--algorithm=local", "--learning_rate=0.1,0.2"]
    cells = planned(*TINY, *flags)
    table = results(cells, lambda cell: (3.0, 10 * cell.settings.learning_rate)).rename(
        columns={"accuracy_mean": "mse_mean"}
    )
    sweep = SweepSettings(select="mse_mean@validation")
    (found,) = selection.choose(cells, table, "mse_mean", sweep)
    assert (found.picked["learning_rate"], found.value) == (0.1, 1.0)
    with pytest.raises(InputError, match="measured no accuracy_mean"):
        selection.choose(cells, table, "accuracy_mean", sweep)
    with pytest.raises(InputError, match="no trial ran to its end"):
        selection.choose(cells, table.assign(status="diverged"), "mse_mean", sweep)


def test_what_is_lost_on_the_test_set_is_in_no_mean():
    """Three seeds: one finishes, one diverges, and one sends three times as much, which exceeds 20 bytes."""
    cells = planned(*TINY, "--algorithm=dsgd", "--seeds=3")
    table = results(cells, lambda cell: (0.3, 0.6 + 0.1 * cell.settings.seed)).assign(accuracy_min=0.2)
    table = table[~((table.cell == cells[1].name) & (table["round"] == 6))]
    table.loc[table.cell == cells[2].name, "bytes_sent_total"] *= 3
    sweep = SweepSettings(select="accuracy_mean@validation")
    (whole,) = [one for one in selection.choose(cells[:1], table, "accuracy_mean", sweep) if one.budget == math.inf]
    tests = selection.finals([whole], [0, 1, 2])
    table["cell"] = table["cell"].map({cell.name: test.name for cell, test in zip(cells, tests, strict=True)})
    rows = selection.test_table([whole, whole._replace(budget=20)], [0, 1, 2], table, "accuracy_mean").to_dict(
        "records"
    )
    assert [(row["seeds"], row["lost"]) for row in rows] == [(2, 1), (1, 1)]
    assert [row["accuracy_mean"] for row in rows] == [pytest.approx((0.6 + 0.8) / 2), 0.3]


def test_every_place_has_a_figure():
    """Systems without alpha have their own figure; systems without a graph are in the figure of every graph."""
    names = ["algorithm", "partition", "dirichlet_alpha", "topology", "bytes_budget"]
    rows = [
        ("dsgd", "iid", math.nan, "ring", 10),
        ("dsgd", "dirichlet", 0.1, "ring", 10),
        ("local", "dirichlet", 0.1, math.nan, 10),
    ]
    tested = pd.DataFrame(rows, columns=names).assign(bytes_sent_total=10.0)
    tested = tested.assign(**dict.fromkeys(("accuracy_mean", "accuracy_min"), 0.5))
    made = frontier(tested.assign(**{"± accuracy_mean": 0.1, "± accuracy_min": 0.1}), "accuracy")
    assert {name for name in made if name.endswith("png") and "worst" not in name} == {
        "frontier-partition=iid-topology=ring.png",
        "frontier-partition=dirichlet-dirichlet_alpha=0_1-topology=ring.png",
    }


@pytest.mark.slow
def test_what_is_picked_is_trained_as_it_was_tried(tmp_path, capsys):
    out = tmp_path / "sweep"
    flags = ["--algorithm=local,dsgd", "--learning_rate=0.01,0.5", "--seeds=2", "--trial_seeds=1", BY]
    assert call(*TINY, *flags, f"--sweep_dir={out}") == 0
    printed = capsys.readouterr().out
    assert "100 validation; the test set is not used" in printed
    tried, opened = pd.read_csv(tmp_path / "sweep-trials" / "results.csv"), pd.read_csv(out / "results.csv")
    assert (set(tried.evaluate_on), set(opened.evaluate_on)) == ({"validation"}, {"test"})
    picked = pd.read_csv(out / "selection.csv").set_index("algorithm")
    for name in ("local", "dsgd"):
        ends = tried[(tried.algorithm == name) & (tried["round"] == 6)].sort_values("accuracy_mean")
        whole = picked.loc[[name]].query("bytes_budget == inf").iloc[0]
        assert (whole.learning_rate, whole.validation) == (ends.learning_rate.iloc[-1], ends.accuracy_mean.iloc[-1])
        chosen = [table[table.learning_rate == whole.learning_rate] for table in (tried, opened)]
        same = [table[table.algorithm == name] for table in chosen]
        losses = [table[(table.seed == 0) & (table["round"] == 6)].loss.item() for table in same]
        assert losses[0] == losses[1]
        rows = same[1][same[1]["round"] == 6].accuracy_mean
        tested = pd.read_csv(out / "tested.csv").query(f"algorithm == '{name}' and bytes_budget == inf").iloc[0]
        assert tested.accuracy_mean == pytest.approx(rows.mean(), rel=1e-12)
        # Half of a 95 % t-interval over two seeds: 12.706 standard errors.
        assert tested["± accuracy_mean"] == pytest.approx(12.7062 * rows.std() / math.sqrt(2), rel=1e-4)
    assert (out / "frontier.png").stat().st_size > 0
    assert call(*TINY, *flags, f"--sweep_dir={out}") == 0
    assert "4 cells; 4 are done" in capsys.readouterr().out
    flags[1] = "--learning_rate=0.01,0.1,0.5"
    assert call(*TINY, *flags, f"--sweep_dir={out}") == 2
    assert "2 of these trials were not run before them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--select=accuracy_mean"], "must end with @validation"),
        (["--select=accuracy@validation"], "accuracy_mean"),
        ([BY, "--evaluate_on=validation"], "leave --evaluate_on out"),
        ([BY, "--shard=0/2"], "instead of --shard"),
        ([BY, "--trials=-1"], "at least 0"),
        ([BY, "--select_per=topologie"], "topology"),
        ([BY, "--select_per=seed"], "averaged, not compared"),
        ([BY, "--eval_examples=200"], "must be between 0 and 100"),
        (["--trials=3"], "give --select, too"),
        ([BY, "--validation_examples=0"], "--validation_examples"),
    ],
)
def test_mistakes_get_one_line(flags, message, tmp_path, capsys):
    out = tmp_path / "sweep"
    assert call(*TINY, *flags, f"--sweep_dir={out}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"evaluate_on": "tests"}, "accepted: test, validation"),
        ({"evaluate_on": "validation"}, "needs validation examples; set validation_examples"),
        ({"validation_examples": 50}, "must be between 0 and 49"),
    ],
)
def test_validation_that_cannot_be_is_refused(choices, message):
    x = np.arange(60.0)[:, None]
    dataset = data.Dataset(x[:50], np.arange(50, dtype=np.int32) % 2, x[50:], np.zeros(10, np.int32), 2)
    with pytest.raises(InputError, match=message):
        prepare(dataset, build_topology("ring", 3).network, **choices)
