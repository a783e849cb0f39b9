"""Mixing matrices against closed forms and invariants."""

import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from small import SPECS

from ddjax.errors import InputError
from ddjax.networks import as_network, build_graph, build_topology, check_network, mixing_matrix


@pytest.mark.parametrize("devices", [2, 8, 16])
@pytest.mark.parametrize("spec", SPECS)
def test_every_graph_averages(spec, devices):
    if (spec, devices) in {
        ("watts_strogatz:4:0.3", 2),
        ("random_regular:3", 2),
        ("barabasi_albert:2", 2),
        ("torus", 2),
    }:
        with pytest.raises(InputError, match=spec.split(":")[0]):
            build_topology(spec, devices, seed=1)
        return
    if (spec, devices) == ("erdos_renyi:0.5", 2):
        pytest.skip("one edge, there or not")
    built = build_topology(spec, devices, seed=1)
    w = np.asarray(built.network.dense())
    np.testing.assert_allclose(w.sum(0), 1, atol=1e-12)
    np.testing.assert_allclose(w.sum(1), 1, atol=1e-12)
    assert w.min() >= 0
    # Mixing again and again reaches the average at the rate of the spectral gap.
    x = np.random.default_rng(0).normal(size=devices)
    mixed = np.linalg.matrix_power(w, 400) @ x
    bound = (1 - built.spectral_gap) ** 400 * np.linalg.norm(x) * 10 + 1e-9
    assert np.abs(mixed - x.mean()).max() <= bound
    assert built.directed_edges == sum(w[i, j] != 0 for i in range(devices) for j in range(devices) if i != j)


@pytest.mark.parametrize(
    ("spec", "devices", "gap"),
    [
        ("ring", 10, 2 / 3 * (1 - np.cos(2 * np.pi / 10))),
        ("path", 10, 2 / 3 * (1 - np.cos(np.pi / 10))),
        ("complete", 7, 1.0),
        ("hypercube", 16, 2 / 5),
        ("star", 9, 1 / 9),
        ("directed_ring", 12, 1 - np.cos(np.pi / 12)),
        ("torus", 25, 2 / 5 * (1 - np.cos(2 * np.pi / 5))),
        ("ring", 1, 1.0),
    ],
)
def test_spectral_gap_is_the_closed_form(spec, devices, gap):
    assert build_topology(spec, devices).spectral_gap == pytest.approx(gap, abs=1e-9)


@pytest.mark.parametrize(
    ("spec", "devices", "gap"),
    [
        ("ring", 10_000, 2 / 3 * (1 - np.cos(2 * np.pi / 10_000))),
        ("directed_ring", 3000, 1 - np.cos(np.pi / 3000)),
        ("one_peer_exponential", 4096, 1.0),
        ("torus", 2500, 2 / 5 * (1 - np.cos(2 * np.pi / 50))),
        ("hypercube", 4096, 2 / 13),
        ("star", 4000, 1 / 4000),
    ],
)
def test_spectral_gap_of_thousands_of_devices_is_the_closed_form(spec, devices, gap):
    assert build_topology(spec, devices).spectral_gap == pytest.approx(gap, rel=1e-6)


@pytest.mark.parametrize(
    "spec", ["barabasi_albert:2", "erdos_renyi:0.05", "alternating:torus+random_regular:3", "directed_edges"]
)
def test_iterated_eigenvalues_are_the_dense_ones(spec, tmp_path, monkeypatch):
    path = tmp_path / "graph.txt"
    path.write_text("".join(f"{i} {j % 200}\n" for i in range(200) for j in (i + 1, i * i + 3) if i != j % 200))
    spec = f"{spec}:{path}" if spec == "directed_edges" else spec
    built = build_topology(spec, 200, stochastic="row")
    gap, limit = built.spectral_gap, built.largest_consensus_step_size()
    monkeypatch.setattr("ddjax.networks.spectrum._DENSE", 50)
    assert built.spectral_gap == pytest.approx(gap, rel=1e-6)
    if spec.startswith("directed"):
        assert built.largest_consensus_step_size() == pytest.approx(2 * built.matrices[0].diagonal().min())
        assert built.largest_consensus_step_size() <= limit
    else:
        assert built.largest_consensus_step_size() == pytest.approx(limit, rel=1e-6)


def test_a_gap_that_cannot_be_found_is_unknown(tmp_path):
    """A path of 3,000 devices: Lanczos' method does not tell its eigenvalues apart in the time it has."""
    path = tmp_path / "graph.txt"
    path.write_text("".join(f"{i} {i + 1}\n" for i in range(2999)))
    built = build_topology(f"edges:{path}", 3000)
    assert built.spectral_gap is None
    assert built.largest_consensus_step_size() == pytest.approx(2 / 3, rel=1e-5)


def test_large_random_graphs_are_drawn_as_asked():
    """12.5 million pairs linked with probability 0.002: within 5 standard errors."""
    links = build_graph("erdos_renyi:0.002", 5000, seed=1).number_of_edges()
    expected = 5000 * 4999 / 2 * 0.002
    assert abs(links - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("devices", [1, 2, 7, 32])
@pytest.mark.parametrize(("spec", "most"), [("path", 2), ("binary_tree", 3)])
def test_trees_are_trees_of_few_links_each(spec, most, devices):
    graph = build_graph(spec, devices)
    assert nx.is_tree(graph)
    assert max(degree for _, degree in graph.degree) <= most


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_cycle_of_base_graphs_is_the_exact_average_of_any_number_of_devices(k):
    """Symmetric and doubly stochastic, at most `k` neighbours, and no more rounds than the paper's bound."""
    for devices in range(2, 41):
        built = build_topology(f"base_k_plus_one:{k}", devices)
        matrices = [matrix.toarray() for matrix in built.matrices]
        assert len(matrices) <= 2 * np.log(devices) / np.log(k + 1) + 2
        for matrix in matrices:
            np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
            np.testing.assert_allclose(matrix.sum(0), 1, atol=1e-14)
            assert matrix.min() >= 0
            assert ((matrix - np.diag(np.diag(matrix))) != 0).sum(1).max() <= k
        product = functools.reduce(lambda all, matrix: matrix @ all, matrices)
        np.testing.assert_allclose(product, 1 / devices, atol=1e-14)


def test_base_graphs_are_taken_by_turns():
    built = build_topology("base_k_plus_one:1", 5)
    network, x = as_network(built.network), np.arange(5.0)
    assert built.spectral_gap == pytest.approx(1)
    assert [matrix.count_nonzero(axis=1).max() for matrix in built.matrices] == [2] * len(built.matrices)
    for t in range(len(built.matrices), 2 * len(built.matrices)):
        x = network.at_round(jax.random.key(0), jnp.int32(t)).received.product(x)
    np.testing.assert_allclose(x, 2, atol=1e-6)


def test_directed_edges_point_from_sender_to_receiver():
    w = mixing_matrix(build_graph("directed_ring", 4))
    assert w[1, 0] == 0.5  # 1 receives from 0
    assert w[0, 1] == 0


@pytest.mark.parametrize(
    "spec", ["ring", "hypercube", "torus", "complete", "directed_ring", "star", "directed_exponential"]
)
def test_largest_consensus_step_size_is_where_iteration_starts_to_diverge(spec):
    built = build_topology(spec, 16)
    limit = built.largest_consensus_step_size()

    def radius(step):
        return np.abs(np.linalg.eigvals(built.network.dense() - step * np.eye(16))).max()

    assert radius(limit * 0.99) < 1
    assert radius(limit * 1.01) > 1


def test_lazy_weights_halve_the_gap():
    eager, lazy = build_topology("ring", 9), build_topology("ring", 9, "lazy_metropolis_hastings")
    assert lazy.spectral_gap == pytest.approx(eager.spectral_gap / 2)
    assert np.linalg.eigvalsh(lazy.network.dense()).min() > 0


def test_uniform_and_metropolis_hastings_agree_on_regular_graphs():
    regular = build_graph("random_regular:3", 10, seed=3)
    uniform, metropolis = (mixing_matrix(regular, name).toarray() for name in ("uniform", "metropolis_hastings"))
    np.testing.assert_allclose(uniform, metropolis)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"# a ring\n0 1\n1 2\n\n2 3 # no weight\n3 0", ""),
        (b"0 1 {}\n1 2 {}\n2 3 {}\n3 0 {}\n", ""),  # as NetworkX writes it
        (b"0,1\n1, 2\n2;3\n3\t0\n", ""),
        (b"0,1,\n1,2,\n2,3,\n3,0,\n", ""),
        (b"\xef\xbb\xbf0 1\r\n1 2\r\n2 3\r\n3 0\r\n", ""),
        (b"% a ring\n1 2\n2 3\n3 4\n4 1\n", "numbered from 1, so that 1 is device 0 and 4 is device 3"),
        (b"0 0\n0 1\n1 0\n1 2\n2 3\n3 0\n", "ignored links from a device to itself: 1; repeated links: 1"),
    ],
)
def test_an_edge_file_as_people_have_it_is_the_ring(tmp_path, content, note):
    path = tmp_path / "graph.txt"
    path.write_bytes(content)
    built = build_topology(f"edges:{path}", 4)
    np.testing.assert_array_equal(built.network.dense(), mixing_matrix(nx.cycle_graph(4)).toarray())
    assert built.note == note
    assert build_topology(f"alternating:ring+edges:{path}", 4).note == note


def test_directed_edges_may_be_numbered_from_1(tmp_path):
    path = tmp_path / "graph.txt"
    path.write_text("1 2\n2 3\n3 1\n")
    expected = mixing_matrix(build_graph("directed_ring", 3)).toarray()
    np.testing.assert_array_equal(build_topology(f"directed_edges:{path}", 3).network.dense(), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 1\n1 2 {'weight': 0.5}\n", ":2: expected only two device numbers, got .*weights come from --mixing_w"),
        (b"0 1 0.5\n", ":1: expected only two device numbers, got '0 1 0.5'; weights come from"),
        (
            b"0 1\n\n1 9\n",
            ":3: device 9 is not one of the 4 devices, which are numbered from 0 to 3, or from 1 to 4 in",
        ),
        (b"0 1\n3 4\n", ":2: device 4 is not one of the 4"),
        (b"0 1\n1 -2\n", ":2: expected two device numbers from 0 to 3, got '1 -2'"),
        (b"source,target\n0,1\n", ":1: expected two device numbers from 0 to 3, got 'source,target'"),
        (b"0.0 1.0\n", ":1: expected two device numbers"),
        (b"1" * 6000 + b" 2\n", ":1: expected two device numbers from 0 to 3, got '1{60}…'"),
        (b"0 1\n# caf\xe9\n", ":2: this is not UTF-8 text"),
        ("0 1\n".encode("utf-16"), ":1: this is not UTF-8 text"),
        (b"", "contains no links; write one line `i j` per link"),
        (b"# nothing\n\n", "contains no links"),
        (b"0 1\n2 3\n", "not connected: its 2 parts"),
        (b"1 2\n2 3\n3 1\n", r"1 of 4 devices have no link \(the first is device 0\)"),
    ],
)
def test_a_mistake_in_an_edge_file_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "graph.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        build_topology(f"edges:{path}", 4)
    assert "\n" not in str(raised.value)


def test_an_edge_file_that_is_not_there(tmp_path):
    (tmp_path / "graph.txt").symlink_to("moved.txt")
    link = "is a link to 'moved.txt', which does not exist"
    for path, message in ((tmp_path / "graph.txt", link), (tmp_path, "Is a direc")):
        with pytest.raises(InputError, match=message):
            build_topology(f"edges:{path}", 4)


@pytest.mark.parametrize(
    ("spec", "devices", "weights", "message"),
    [
        ("rign", 8, "", "did you mean 'ring'"),
        ("ring:3", 8, "", "expected 'ring'"),
        ("erdos_renyi", 8, "", "expected 'erdos_renyi:P'"),
        ("erdos_renyi:2", 8, "", r"P must be a number from 0 to 1"),
        ("erdos_renyi:0.01", 8, "", "not connected"),
        ("random_regular:3", 7, "", "random_regular"),
        ("hypercube", 12, "", "nearest are 8 and 16"),
        ("torus", 13, "", "product of two numbers"),
        ("star", 8, "uniform", "use metropolis_hastings"),
        ("ring", 8, "metropolis", "did you mean 'metropolis_hastings'"),
        ("directed_ring", 8, "metropolis_hastings", "undirected"),
        ("edges:/no/such/file", 8, "", "no file"),
        ("ring", 0, "", "at least one device"),
    ],
)
def test_mistakes_are_named(spec, devices, weights, message):
    with pytest.raises(InputError, match=message):
        build_topology(spec, devices, weights)


def test_directed_graph_without_doubly_stochastic_weights_is_refused(tmp_path):
    path = tmp_path / "graph.txt"
    path.write_text("0 1\n1 2\n2 0\n0 2\n")
    with pytest.raises(InputError, match="use column_uniform with --algorithm=push_sum"):
        build_topology(f"directed_edges:{path}", 3)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.5], [0.4, 0.5]], "row 1 sums to 0.9"),
        ([[0.5, 0.5], [1, 0]], "column 0 sums to 1.5"),
        ([[1.5, -0.5], [-0.5, 1.5]], "non-negative"),
        ([[1, 0], [0, 1]], "2 parts"),
        ([[1, 0]], "square"),
    ],
)
def test_a_matrix_that_does_not_average_is_refused(matrix, message):
    with pytest.raises(InputError, match=message):
        check_network(as_network(np.array(matrix, float)))
