"""Sparse mixing matrices against dense ones, and that their cost grows with the links."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import FAST, call, rows
from small import CLASSES, close, compressor, make_learners, one_round, small_problem

import ddjax
from ddjax.errors import InputError
from ddjax.mixing import MIXERS
from ddjax.networks import Links, NetworkRound, as_network, build_graph, build_topology, mixing_matrix
from ddjax.networks.topology import is_sparse
from ddjax.simulation import accounting
from ddjax.types import Traffic

DEVICES = 48
SPECS = (
    "ring",
    "exponential",
    "star",
    "barabasi_albert:2",
    "directed_exponential",
    "one_peer_exponential",
    "alternating:star+ring",
)
ROUND = 3


CIRCULANT = ("ring", "exponential", "directed_exponential", "one_peer_exponential")


def in_form(spec, product):
    """The matrix of one round in a form."""
    return small_problem(spec, devices=DEVICES, product=product).network.at_round(jax.random.key(0), ROUND).sent


def both(spec):
    """The matrix of one round by all pairs, and by its links."""
    return in_form(spec, "dense"), in_form(spec, "gather")


def by_link(matrix, values):
    """Values by the links of a sparse matrix, as `[N, N]`."""
    found = np.zeros((matrix.devices, matrix.devices), np.asarray(values).dtype)
    found[matrix.receivers, matrix.senders] = values
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_products_and_links_are_those_of_the_dense_matrix(spec):
    dense, sparse = both(spec)
    np.testing.assert_array_equal(sparse.dense(), dense.dense())
    np.testing.assert_array_equal(by_link(sparse, sparse.links()), dense.links())
    np.testing.assert_array_equal(sparse.own_weights, dense.own_weights)
    x = jax.random.normal(jax.random.key(0), (DEVICES, 7))
    expected = np.asarray(dense.dense(), float) @ np.asarray(x, float)
    for matrix in (dense, sparse, *(in_form(spec, "shift") for _ in range(spec in CIRCULANT))):
        close(jax.jit(lambda matrix, x: matrix.product(x))(matrix, x), expected, 1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_thinned_and_weighted_matrices_are_those_of_numpy(spec):
    """A link that is taken out gives its weight to its receiver; weights are divided by their sum in a row."""
    dense, sparse = both(spec)
    kept = np.random.default_rng(0).random((DEVICES, DEVICES)) < 0.6
    w = np.asarray(dense.dense(), float)
    expected = np.where(kept | np.eye(DEVICES, dtype=bool), w, 0)
    expected += np.diag(1 - expected.sum(1))
    close(dense.thinned(jnp.asarray(kept)).dense(), expected, 1e-6)
    by_links = jnp.asarray(kept[sparse.receivers, sparse.senders])
    close(sparse.thinned(by_links).dense(), expected, 1e-6)
    own, links = np.linspace(1, 2, DEVICES), np.asarray(dense.links())
    rows = links + np.diag(own)
    close(dense.weighted(jnp.asarray(own), dense.links()).dense(), rows / rows.sum(1, keepdims=True), 1e-6)
    close(sparse.weighted(jnp.asarray(own), sparse.links()).dense(), rows / rows.sum(1, keepdims=True), 1e-6)
    np.testing.assert_allclose(sparse.sample_matrices()[0].toarray(), w, atol=1e-7)


def test_hubs_do_not_widen_all_rows():
    devices = 3000
    star = build_topology("star", devices).network
    assert [slots.shape for slots in star.slots] == [(devices - 1, 1), (1, 3008)]
    regular = build_topology("random_regular:5", devices).network
    assert [slots.shape for slots in regular.slots] == [(devices, 5)]
    assert regular.place is None
    free = build_topology("barabasi_albert:4", devices).network
    assert sum(slots.size for slots in free.slots) < 4 * len(free.weights)


@pytest.mark.parametrize("spec", ["star", "directed_exponential", "alternating:star+ring"])
@pytest.mark.parametrize("name", ["average", "choco", "push_sum", "gossip", "adaptive", "encoded"])
def test_every_mixer_does_the_same_on_either_form(name, spec):
    """Three mixings of parameters of two leaves: values to 1e-5, traffic exactly."""
    compress = compressor("top_k:0.5")
    made = {
        "choco": lambda: ddjax.choco(compress, 0.3),
        "encoded": lambda: ddjax.encoded(ddjax.weighted_average(), compress),
    }
    mixer = (made[name] if name in made else MIXERS[name].build)()
    one, two = jax.random.split(jax.random.key(1))
    start = {"a": jax.random.normal(one, (DEVICES, 3, 2)), "b": jax.random.normal(two, (DEVICES, 4))}
    dense, sparse = both(spec)
    found, mix = [], jax.jit(mixer.mix)
    for matrix in (dense, sparse):
        x, state = start, mixer.init(start, 1)
        for number in range(3):
            x, state, sent = mix(jax.random.key(number), x, state, NetworkRound(matrix, matrix))
        found.append((x, state, sent))
    (x, state, sent), (sparse_x, sparse_state, sparse_sent) = found
    close(sparse_x, x, 1e-5)
    close(sparse_state, state, 1e-5)
    assert sent.peer.keys() == sparse_sent.peer.keys()
    for kind, counts in sent.peer.items():
        np.testing.assert_array_equal(by_link(sparse, sparse_sent.peer[kind]), counts)
    if mixer.keeps_mean and name != "push_sum":
        close(jax.tree.map(lambda leaf: leaf.mean(0), sparse_x), jax.tree.map(lambda leaf: leaf.mean(0), start), 1e-5)


def test_push_sum_averages_where_only_columns_sum_to_one(tmp_path):
    path = tmp_path / "graph.txt"
    path.write_text("0 1\n1 2\n2 0\n0 2\n2 3\n3 0\n")
    built = build_topology(f"directed_edges:{path}", 4, stochastic="column", product="gather")
    x = jnp.arange(8.0).reshape(4, 2)
    mixed, mixer = x, ddjax.push_sum()
    state, mix = mixer.init(x, 1), jax.jit(mixer.mix)
    for _ in range(60):
        mixed, state, _ = mix(None, mixed, state, one_round(built.network))
    close(mixed, jnp.broadcast_to(x.mean(0), x.shape), 1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_pushes_go_to_the_same_out_neighbours_in_either_form(spec):
    dense, sparse = both(spec)
    draw = jax.jit(lambda key, matrix: matrix.push_targets(key))
    for number in range(5):
        key = jax.random.key(number)
        targets = draw(key, dense)
        np.testing.assert_array_equal(draw(key, sparse), targets)
        pushed = by_link(sparse, sparse.pushes(targets))
        np.testing.assert_array_equal(pushed, dense.pushes(targets))
        assert (pushed <= dense.links()).all()
        assert (pushed.sum(0) == (np.asarray(dense.links()).sum(0) > 0)).all()


ALGORITHMS = {
    "dsgd": lambda population: ddjax.dsgd(population, ddjax.weighted_average()),
    "choco": lambda population: ddjax.dsgd(population, ddjax.choco(compressor("qsgd:16"), 0.3)),
    "push_sum": lambda population: ddjax.dsgd(population, ddjax.push_sum()),
    "gossip": lambda population: ddjax.gossip(population),
    "distillation": lambda population: ddjax.distillation(population, ddjax.weighted_average(), reference_batch_size=8),
    "tracking": lambda population: ddjax.distillation(
        population,
        ddjax.encoded(ddjax.weighted_average(), compressor("qsgd:16")),
        reference_batch_size=8,
        consensus="tracking",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        *((name, "star") for name in ALGORITHMS),
        ("push_sum", "one_peer_exponential"),
        ("gossip", "one_peer_exponential"),
    ],
)
def test_whole_runs_are_equal_in_either_form(name, spec):
    """Twelve rounds: states to 1e-4, bytes and rows of links exactly."""
    devices, found = 12, []
    algorithm = ALGORITHMS[name](make_learners(size=devices))
    for product in ("dense", "gather"):
        problem = small_problem(spec, devices=devices, product=product)
        simulation = ddjax.Simulation(algorithm, problem)
        history = ddjax.iterate(simulation, key=jax.random.key(0), rounds=12, eval_every=12)
        *_, (snapshot, last) = history
        rows = list(accounting.by_link(snapshot.messages, algorithm.message_bytes(problem), problem.network))
        found.append((snapshot.state, last.bytes, rows))
    (state, sent, links), (sparse_state, sparse_sent, sparse_links) = found
    close(sparse_state, state, 1e-4)
    assert sparse_sent == sent
    assert sparse_sent.total > 0
    assert sparse_links == links


def test_the_flag_picks_the_form_and_changes_no_number(tmp_path):
    tables = []
    for product in ("dense", "gather"):
        out = tmp_path / product
        assert call(*FAST, f"--mixing_product={product}", f"--output_dir={out}") == 0
        tables.append([{k: v for k, v in row.items() if "second" not in k} for row in rows(out)])
        links = (out / "links.csv").read_text()
    assert tables[0][-1]["bytes_sent_total"] == tables[1][-1]["bytes_sent_total"]
    assert float(tables[0][-1]["accuracy_mean"]) == pytest.approx(float(tables[1][-1]["accuracy_mean"]), abs=0.01)
    assert links == (tmp_path / "dense" / "links.csv").read_text()


def test_bytes_by_link_are_exact():
    """Counts and sizes beyond what a double holds."""
    sparse = both("barabasi_albert:2")[1]
    counts = np.random.default_rng(0).integers(2**53, 2**54, len(sparse.senders))
    counts[::3] = 0
    sizes = Traffic(peer={"model": 10**12 + 1})
    by_matrix = Traffic(peer={"model": by_link(sparse, counts)})
    found = accounting.count(Traffic(peer={"model": counts}), sizes, sparse)
    assert found == accounting.count(by_matrix, sizes, both("barabasi_albert:2")[0])
    assert found.total == sum(map(int, counts)) * (10**12 + 1)
    rows = accounting.by_link(Traffic(peer={"model": counts}), sizes, sparse)
    assert list(rows) == list(accounting.by_link(by_matrix, sizes, both("barabasi_albert:2")[0]))


def sizes(jaxpr):
    """Of every array in a traced function."""
    for equation in jaxpr.eqns:
        yield from (math.prod(variable.aval.shape) for variable in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from sizes(inner)


@pytest.mark.parametrize("name", ["dsgd", "choco", "push_sum", "gossip", "distillation"])
def test_a_round_of_ten_thousand_devices_makes_no_array_of_their_pairs(name):
    """On a ring nothing is larger than 60 numbers a device, the soft decisions on the reference set."""
    devices = 10_000
    problem = small_problem(devices=2)
    problem = problem._replace(
        private_indices=jnp.zeros((devices, 2), jnp.int32),
        private_counts=jnp.full(devices, 2),
        network=as_network(build_topology("ring", devices).network),
    )
    algorithm = ALGORITHMS[name](make_learners(size=devices))
    state = jax.eval_shape(algorithm.init, jax.random.key(0), problem)
    traced = jax.make_jaxpr(algorithm.round)(jax.random.key(0), state, problem)
    assert devices * CLASSES * 5 < max(sizes(traced.jaxpr)) <= 200 * devices


def test_the_sparser_form_is_picked_where_it_is_quicker():
    sparse = {
        (spec, devices): is_sparse(mixing_matrix(build_graph(spec, devices)))
        for spec in ("ring", "exponential", "complete")
        for devices in (32, 64, 512)
    }
    assert [place for place, found in sparse.items() if found] == [
        ("ring", 64),
        ("ring", 512),
        ("exponential", 512),
    ]
    assert isinstance(build_topology("ring", 64).network, Links)
    assert build_topology("ring", 64, product="dense").network.weights.shape == (64, 64)


@pytest.mark.parametrize(
    ("spec", "product", "message"),
    [
        ("ring", "gahter", "did you mean 'gather'"),
        ("random_matching", "gather", "drawn in each round needs mixing product"),
        ("star", "shift", "every device n hears n"),
    ],
)
def test_products_that_do_not_exist_are_named(spec, product, message):
    with pytest.raises(InputError, match=message):
        build_topology(spec, 8, product=product)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_smallest_networks(devices):
    matrix = build_topology("ring", devices, product="gather").network
    assert matrix.devices == devices
    x = jnp.arange(3.0 * devices).reshape(devices, 3)
    close(matrix.product(x), jnp.broadcast_to(x.mean(0), x.shape))
    if devices == 1:
        assert matrix.push_targets(jax.random.key(0)).tolist() == [1]
