"""DIGing reaches the pooled solution with a constant step size, where D-SGD does not."""

from pathlib import Path

import pytest
from pooled import distance, regression

import ddjax
from ddjax.experiments.extensions import include
from ddjax.mixing import MIXERS

FILE = Path(__file__).with_name("diging.py")


@pytest.fixture(scope="module", autouse=True)
def _included():
    include([str(FILE)])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("local_steps", [1, 3])
def test_diging_reaches_the_pooled_solution_where_dsgd_stays_biased(local_steps):
    problem = regression()
    assert distance("diging", problem, ddjax.weighted_average(), local_steps) < 1e-9
    assert distance("dsgd", problem, ddjax.weighted_average(), local_steps) > 1e-3


@pytest.mark.usefixtures("float64")
def test_any_mixer_that_keeps_the_mean_will_do():
    problem = regression()
    assert distance("diging", problem, ddjax.push_sum()) < 1e-9
    with pytest.raises(ddjax.InputError, match="keeps the mean"):
        distance("diging", problem, MIXERS["adaptive"].build())


def test_the_file_is_short():
    assert len(FILE.read_text().splitlines()) <= 60
