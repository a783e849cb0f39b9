"""Where examples lie: flat, and private ones with the devices that hold them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import image_problem, make_learners, small_problem

import ddjax
from ddjax import sharding
from ddjax.examples import Examples, flat, place_problem, spread_rows
from ddjax.stacked import shapes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 3, 2)])
def test_flat_examples_are_read_as_the_array_is(shape):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    lying = flat(jnp.asarray(x))
    assert (lying.shape, lying.ndim, lying.dtype, len(lying)) == (x.shape, x.ndim, x.dtype, len(x))
    assert lying.rows.ndim == min(2, x.ndim)
    for index in (3, slice(2, 5), np.array([[6, 0], [1, 1]])):
        np.testing.assert_array_equal(lying[index], x[index])
    np.testing.assert_array_equal(np.asarray(lying), x)
    rows = jnp.array([[0, 1], [2, 3]])
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda rows: lying[rows]))(rows), x[rows])


@pytest.mark.parametrize("shards", [2, 3, 4])
@pytest.mark.parametrize("groups", [[7], [3, 4], [1, 1, 5]])
def test_each_shard_holds_the_rows_of_its_devices_and_no_others(shards, groups):
    """Against a plain loop over devices; a device's examples keep their order, and may be another's too."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 7).astype(np.int32)
    indices = rng.integers(0, 50, (7, 5)).astype(np.int32)
    layout = spread_rows(indices, counts, shards, groups)
    assert layout.total % shards == 0
    part, start, held = layout.total // shards, 0, np.zeros(shards, int)
    for size in groups:
        each = -(-size // shards)
        for place in range(size):
            n, shard = start + place, place // each
            rows = layout.indices[n, : counts[n]]
            assert ((rows >= shard * part) & (rows < (shard + 1) * part)).all()
            np.testing.assert_array_equal(layout.source[rows], indices[n, : counts[n]])
            held[shard] += counts[n]
        start += size
    assert part == held.max()


def test_shapes_are_laid_out_as_arrays_are():
    problem = small_problem(devices=8, partition="iid")
    described = shapes(problem)._replace(network=problem.network)
    mesh = sharding.mesh()
    placed = place_problem(described, mesh, [8])
    assert isinstance(placed.x, Examples)
    assert jax.tree.map(lambda leaf: leaf.shape, place_problem(problem, mesh, [8])) == jax.tree.map(
        lambda leaf: leaf.shape, placed
    )


def test_examples_end_where_they_end():
    x = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(list(flat(x)), x)


def test_programs_are_lowered_by_shape():
    problem = image_problem()
    algorithm = ddjax.dsgd(make_learners(("mlp",), 4, (8, 8)), ddjax.weighted_average())
    there = ddjax.Simulation(algorithm, problem)
    described = shapes(problem)._replace(network=problem.network)
    planned = ddjax.Simulation(algorithm, described, mesh=sharding.mesh())
    for what in ("advance", "measure"):
        texts = [simulation.lower(what).as_text() for simulation in (there, planned)]
        assert texts[0] == texts[1]
        assert "while" in texts[0]


# A large data set on four shards: what a shard holds, what the loop over rounds and start-up exchange.
PROGRAM = """
import re
import jax, numpy as np
import ddjax
from ddjax import sharding
from ddjax.networks import as_network, build_topology
from ddjax.types import Problem
from small import make_learners

devices, held, features = 8, 500, 64
rng = np.random.default_rng(0)
x = rng.standard_normal((devices * held, features), np.float32)
problem = Problem(
    x, rng.integers(3, size=len(x), dtype=np.int32), np.arange(len(x), dtype=np.int32).reshape(devices, held),
    np.full(devices, held, np.int32), x[:8], as_network(build_topology("ring", devices).network), x[:4],
    np.zeros(4, np.int32))
simulation = ddjax.Simulation(
    ddjax.dsgd(make_learners(size=devices, shape=(features,)), ddjax.weighted_average()), problem)
parts = simulation.problem.x.rows.addressable_shards
assert [part.data.nbytes for part in parts] == [x.nbytes // 4] * 4
for number, part in enumerate(parts):
    np.testing.assert_array_equal(part.data, x[number * len(x) // 4 : (number + 1) * len(x) // 4])
text = simulation.lower().compile().as_text()
moved = re.findall(r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute)\\(", text)
sizes = [np.prod([int(size) for size in shape.split(",") if size])
         for result in moved for shape in re.findall(r"\\w+\\[([\\d,]*)\\]", result)]
assert 0 < max(sizes) <= devices * 3 * features < x.size / 100, sizes  # at most all parameters
print("spread")
"""


def _run(program, hosts=4):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={hosts}"
    variables = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | variables, capture_output=True, text=True, timeout=600
    )


def test_private_examples_lie_with_their_devices_and_no_round_moves_them():
    done = _run(PROGRAM)
    assert done.stdout.strip() == "spread", done.stderr


SHIFTED = """
import jax, numpy as np
from ddjax import sharding
from ddjax.networks import as_network, build_topology

for spec, devices in (("ring", 8), ("exponential", 16), ("directed_exponential", 12), ("directed_ring", 7)):
    stochastic = "column" if spec.startswith("directed") else "doubly"
    network = as_network(build_topology(spec, devices, product="shift", stochastic=stochastic).network)
    x = jax.random.normal(jax.random.key(0), (devices, 3, 2))
    expected = np.einsum("nm,mab->nab", np.asarray(network.dense(), float), np.asarray(x, float))
    for shards in (1, 2, 4):
        mesh = sharding.mesh(jax.devices()[:shards])
        with jax.set_mesh(mesh):
            found = jax.jit(lambda network, x: network.product(x))(
                *sharding.place((network, x), sharding.replicated(mesh)))
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5, err_msg=f"{spec} {devices} {shards}")
print("the same")
"""


def test_sums_over_hops_are_those_of_the_matrix_on_one_two_and_four_shards():
    done = _run(SHIFTED)
    assert done.stdout.strip() == "the same", done.stderr


# A mixed network that predicts numbers: labels of other devices would show.
MIXED = """
import jax, numpy as np, optax
import ddjax
from ddjax.data.synthetic import synthetic_regression
from ddjax.examples import place_problem
from ddjax import sharding
from ddjax.learning import REGRESSION
from ddjax.models import build_model
from ddjax.networks import build_topology
from ddjax.types import Traffic

problem = ddjax.make_problem(
    synthetic_regression(0, 7, 200, 20), build_topology("ring", 7).network, partition="natural", reference_size=20)
groups = [
    ddjax.Group(ddjax.supervised_learner(build_model(name, (10,), 1), optax.sgd(0.01), task=REGRESSION), size)
    for name, size in (("linear", 3), ("mlp", 4))]
algorithm = ddjax.local(ddjax.Population(groups, 4))
found, again = [], problem
for shards in (1, 2, 3):
    mesh = sharding.mesh(jax.devices()[:shards])
    simulation = ddjax.Simulation(algorithm, problem, mesh=mesh)
    state = simulation.init(jax.random.key(0))
    found.append(jax.tree.map(np.asarray, (simulation.begin(state).watch, simulation.measure(state))))
    # What lies on one mesh can be laid on another, and for other groups.
    for layout in ([7], [3, 4]):
        again = place_problem(again, mesh, layout)
    for n in range(7):
        rows = [np.asarray(one.private_indices)[n, : problem.private_counts[n]] for one in (problem, again)]
        np.testing.assert_array_equal(np.asarray(again.x)[rows[1]], np.asarray(problem.x)[rows[0]])
for other in found[1:]:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found[0], other)

unnamed = algorithm._replace(
    init=lambda key, problem: {"round": np.int32(0), "models": algorithm.init(key, problem).devices},
    round=lambda key, state, problem: algorithm.round(
        key, algorithm.init(key, problem)._replace(devices=state["models"]), problem),
    message_bytes=lambda problem: Traffic())
try:
    ddjax.Simulation(unnamed, problem, mesh=mesh)
except ValueError as error:
    assert "for groups of (7,) devices" in str(error), error
    print("the same")
"""


def test_mixed_networks_find_their_own_examples_on_one_two_and_three_shards():
    done = _run(MIXED)
    assert done.stdout.strip() == "the same", done.stderr
