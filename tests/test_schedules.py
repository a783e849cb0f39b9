"""Schedules: their values, whether they stretch with the rounds, and refusal to resume a run that they would change."""

import numpy as np
import pytest
from commands import FAST, call, rows

from ddjax.errors import InputError
from ddjax.schedules import SCHEDULES, schedule


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("constant", [2, 2, 2]),
        ("inverse_time:4", [2, 1, 2 / 3.5]),
        ("inverse_time", [2, 2 / 5, 2 / 11]),
        ("cosine", [2, 1.309017, 0]),
    ],
)
def test_schedules(spec, expected):
    built = schedule(spec).step_sizes(2.0, 10)
    np.testing.assert_allclose([built(t) for t in (0, 4, 10)], expected, atol=1e-6)


@pytest.mark.parametrize("spec", ["consine", "inverse_time:-1", "inverse_time:x", "cosine:3"])
def test_bad_schedules_are_refused(spec):
    with pytest.raises(InputError, match="schedule"):
        schedule(spec)


SPECS = ["constant", "inverse_time", "inverse_time:4", "inverse_power:0.5", "inverse_power:0.5:3", "cosine"]


def test_every_schedule_is_among_the_specs():
    assert {spec.split(":")[0] for spec in SPECS} == set(SCHEDULES)


@pytest.mark.parametrize("spec", SPECS)
def test_a_schedule_stretches_if_and_only_if_its_values_depend_on_the_rounds(spec):
    known = schedule(spec)
    short, long = known.step_sizes(1.0, 40), known.step_sizes(1.0, 80)
    same = all(float(short(t)) == float(long(t)) for t in range(40))
    assert same != known.stretches


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learning_rate_schedule", "consensus_step_size_schedule"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_resume_with_other_rounds_is_refused_or_equals_an_undisturbed_run(tmp_path, capsys, spec, name):
    """A run of 6 rounds may continue to 9 only if that gives the numbers of one run of 9 rounds."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = [*FAST, f"--{name}={spec}", "--checkpoint_every=3"]
    assert call(*flags, f"--output_dir={cut}") == 0
    code = call(*flags, "--rounds=9", f"--output_dir={cut}", "--resume")
    if schedule(spec).stretches:
        assert code == 2
        assert "is stretched" in capsys.readouterr().err
        return
    assert code == 0
    assert call(*flags, "--rounds=9", f"--output_dir={whole}") == 0
    assert rows(cut) == rows(whole)
