"""Measured rates against known laws, eigenvalues and loops."""

import math

import numpy as np
import pytest
from small import SPECS

from ddjax.errors import InputError
from ddjax.networks import TOPOLOGIES, build_topology
from ddjax.theory import rates


def test_slopes_of_known_laws():
    rounds = np.unique(np.geomspace(1, 1000, 30).astype(int))
    powers = np.array([[c * rounds**-p for c, p in ((2.0, 0.4), (5.0, 0.5), (1.0, 0.6))]])[0]
    found = rates.slope(rounds, powers, (10, 1000))
    assert found.value == pytest.approx(-0.5)
    assert -0.6 - 1e-9 <= found.low < -0.5 < found.high <= -0.4 + 1e-9
    decaying = np.exp(-0.01 * rounds)[None]
    found = rates.slope(rounds, decaying, (1, 1000), "semi-log")
    assert found.value == pytest.approx(-0.01)
    assert math.isnan(found.low)
    broken = np.where(rounds < 500, powers[0], np.nan)[None]
    assert rates.slope(rounds, broken, (10, 1000)).value == pytest.approx(-0.4)
    with pytest.raises(InputError, match="needs two points"):
        rates.slope(rounds, powers, (2000, 3000))


def test_running_averages_are_weighted_sums():
    rounds = np.arange(1, 50)
    values, weights = np.random.default_rng(0).uniform(1, 2, (2, 49)), 1 / rounds
    found = rates.running_average(rounds, values, weights)
    steps = np.linspace(1, 49, 48_001)  # of the piecewise linear interpolation, finely
    for seed, average in zip(values, found, strict=True):
        product, weight = np.interp(steps, rounds, seed * weights), np.interp(steps, rounds, weights)
        expected = (np.trapezoid(product, steps) + seed[0]) / (np.trapezoid(weight, steps) + 1)
        assert average[-1] == pytest.approx(expected, rel=1e-6)
        assert average[0] == seed[0]
    assert rates.running_average(rounds, np.full(49, 3.0), weights) == pytest.approx(3.0)


STATIC = [*(spec for spec in SPECS if spec != "complete"), "path", "binary_tree"]  # complete agrees in one round


@pytest.mark.parametrize("spec", STATIC)
def test_pure_mixing_decays_at_the_second_eigenvalue(spec):
    """Within 1 %, with λ₂ from NumPy's dense eigenvalues."""
    network = build_topology(spec, 16)
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(network.matrices[0].toarray())))
    assert rates.mixing_decay(network.matrices) == pytest.approx(eigenvalues[-2], rel=0.01)


def test_the_complete_graph_agrees_in_one_round():
    assert rates.mixing_decay(build_topology("complete", 16).matrices) == 0


def test_all_static_graphs_are_covered():
    named = {spec.split(":")[0] for spec in STATIC} | {"complete"}
    fixed = {entry.name for entry in TOPOLOGIES.entries() if not entry.whole}
    assert named == fixed - {"edges", "directed_edges"}


@pytest.mark.parametrize("consensus", ["tracking", "gradient", "neighbors"])
@pytest.mark.parametrize("eigenvalue", [0.9, -0.5, 1.0])
def test_modes_shrink_as_predicted(consensus, eigenvalue):
    """The recursion of one mode as a loop: `θ ← θ − η (h θ + c (θ − z))`, with `z` as each form has it."""
    h, c, eta, zeta = 0.3, 1.5, 0.2, 0.4
    theta, z, previous, sizes = 1.0, 0.0, 0.0, []
    for _ in range(400):
        s = theta
        target = eigenvalue * s if consensus == "neighbors" else z
        theta -= eta * (h * theta + c * (s - target))
        if consensus == "gradient":
            z = eigenvalue * z + zeta * (s - z)
        elif consensus == "tracking":
            z, previous = eigenvalue * (z + s - previous), s
        sizes.append(abs(theta) + abs(z))
    measured = (sizes[-1] / sizes[-101]) ** (1 / 100)
    assert np.log(rates.radius(eta, h, c, eigenvalue, consensus, zeta)) == pytest.approx(np.log(measured), rel=0.02)


def test_a_step_that_suits_a_ring_diverges_on_a_directed_ring():
    scale, pull = (0.1, 2.0), 2.0
    modes = {
        name: np.linalg.eigvals(build_topology(name, 16).matrices[0].toarray()) for name in ("ring", "directed_ring")
    }
    steps = {name: rates.step_size(scale, pull, values, "tracking") for name, values in modes.items()}
    assert steps["directed_ring"] < steps["ring"] / 5

    def worst(step, values):
        return max(rates.radius(step, h, c, v, "tracking", 0) for h in scale for c in (0, pull) for v in values)

    assert worst(steps["ring"], modes["ring"]) < 1
    assert worst(steps["directed_ring"], modes["directed_ring"]) < 1
    assert worst(steps["ring"], modes["directed_ring"]) > 1
