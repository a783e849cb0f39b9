"""Parts as a user writes them outside the package, registered with `--include` and run by flags."""

import contextlib
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from commands import FAST, call, rows, sweep
from small import DEVICES, make_distillation, make_learners, matrix_of, one_round, rounds, small_problem

import ddjax
from ddjax.algorithms import ALGORITHMS, CONSENSUS, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.experiments import Settings, build
from ddjax.experiments.extensions import include
from ddjax.experiments.usage import used
from ddjax.mixing import MIXERS
from ddjax.networks import as_network, build_topology
from ddjax.registry import ConfiguredEntry, all_or_nothing
from ddjax.testing import check_algorithm, check_mixer

HERE = Path(__file__).parent
FILES = ("diging", "trimmed_mean", "lossy", "tiny_transformer")


@pytest.fixture(scope="module", autouse=True)
def included():
    include(str(HERE / f"{name}.py") for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_part_fits_on_a_page(name):
    assert len((HERE / f"{name}.py").read_text().splitlines()) <= 60


# The trimmed mean.


def trimmed_loop(x, w, trimmed=1):
    """Device by device and number by number."""
    out = np.empty_like(x)
    for n in range(len(w)):
        heard = [x[m] for m in range(len(w)) if m == n or w[n, m]]
        for p in range(x.shape[1]):
            ranked = sorted(value[p] for value in heard)
            cut = min(trimmed, (len(ranked) - 1) // 2)
            out[n, p] = np.mean(ranked[cut : len(ranked) - cut])
    return out


@pytest.mark.parametrize("topology", ["exponential", "star"])
def test_trimmed_mean_is_the_loop(topology):
    check_mixer(MIXERS.parse("trimmed_mean:1").build, topology=topology, loop=trimmed_loop)


def test_trimmed_mean_ignores_one_liar_among_honest_devices():
    network = build_topology("complete", DEVICES).network
    x = jnp.concatenate([jnp.full((1, 3), 1e6), jnp.ones((DEVICES - 1, 3))])
    mixed, _, _ = MIXERS.parse("trimmed_mean:1").build().mix(None, x, ddjax.MixerState(), one_round(network))
    np.testing.assert_allclose(mixed, 1)


# A network that loses messages.


def lossy(probability, spec="ring", **kwargs):
    return as_network(build_topology(f"lossy:{probability}:{spec}", DEVICES, **kwargs).network)


@pytest.mark.parametrize("product", ["dense", "gather"])
def test_messages_are_lost_as_often_as_asked_and_counted_where_they_are_sent(product):
    """2,000 rounds of 12 links: within 5 standard errors (wrong once in a million). Rows still sum to 1."""
    network = lossy(0.3, product=product)
    drawn = [network.at_round(jax.random.key(number), 0) for number in range(2000)]
    sent, arrived = (sum(int(matrix.links().sum()) for matrix in kind) for kind in zip(*drawn, strict=True))
    assert sent == 2000 * 2 * DEVICES
    assert abs(arrived / sent - 0.7) < 5 * np.sqrt(0.7 * 0.3 / sent)
    np.testing.assert_allclose(drawn[0].received.dense().sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda: ddjax.dsgd(make_learners(), ddjax.weighted_average()),
    lambda: make_distillation(make_learners()),
    lambda: make_distillation(make_learners(), "neighbors"),
    lambda: ddjax.gossip(make_learners()),
])  # fmt: skip
def test_nothing_lost_is_the_network_itself_and_everything_lost_is_no_network(make):
    """Probability 0 and 1, where the graph of a round does not depend on a draw."""
    plain = small_problem()
    algorithm = make()
    none, everything = (plain._replace(network=lossy(p)) for p in (0.0, 1.0))
    alone = plain._replace(network=as_network(np.eye(DEVICES)))
    for problem, twin in ((none, plain), (everything, alone)):
        state, other = (rounds(algorithm, each, 5)[0] for each in (problem, twin))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.devices, other.devices)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"consensus": "tracking"}, "tracking needs every message to arrive"),
        ({"algorithm": "choco"}, "choco needs every message to arrive"),
        ({"algorithm": "push_sum"}, "push_sum needs every message to arrive"),
        ({"algorithm": "diging"}, "needs every message to arrive"),
    ],
)
def test_what_cannot_do_with_losses_refuses_them(settings, message):
    with pytest.raises(InputError, match=message):
        build(Settings(devices=6, models="linear", topology="lossy:0.1:ring", **settings))


# DIGing.


def test_diging_passes_the_checks():
    check_algorithm(lambda population: ALGORITHMS["diging"].build(population, ddjax.weighted_average()))


# All of them, by flags, in a sweep.


@pytest.mark.slow
def test_a_sweep_over_parts_of_a_user(tmp_path):
    out = tmp_path / "sweep"
    includes = [f"--include={HERE / name}.py" for name in FILES]
    flags = [*FAST[:-2], "--devices=6", "--models=linear", *includes, f"--sweep_dir={out}"]
    assert (
        sweep(
            *flags,
            "--algorithm=dsgd,diging,distillation",
            "--mixing=average,trimmed_mean:1",
            "--topology=ring,lossy:0.2:ring",
            "--exclude=algorithm=distillation,mixing=average",
            "--exclude=algorithm=diging,mixing=trimmed_mean:1",
            "--exclude=algorithm=diging,topology=lossy:0.2:ring",
        )
        == 0
    )
    results = pd.read_csv(out / "results.csv")
    assert results.cell.nunique() == 4 + 1 + 2
    assert (results.status == "done").all()
    tokens = [*FAST[:-2], *includes, "--devices=6", "--dataset=token_order", f"--sweep_dir={tmp_path / 'tokens'}"]
    assert sweep(*tokens, "--models=tiny_transformer:3+one_hot_mlp:3") == 0
    alone = tmp_path / "alone"
    single = ["--algorithm=dsgd", "--mixing=trimmed_mean:1", "--topology=lossy:0.2:ring", "--host_devices=1"]
    assert call(*FAST[:-2], "--devices=6", "--models=linear", *includes, *single, f"--output_dir={alone}") == 0
    cell = results[
        (results.algorithm == "dsgd") & (results.mixing == "trimmed_mean:1") & (results.topology == "lossy:0.2:ring")
    ]
    assert [float(row["loss"] or "nan") for row in rows(alone)][1:] == list(cell.loss)[1:]


# Mistakes.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("raise ValueError('out of tea')", "fails: ValueError: out of tea (line 1)"),
        ("\nx = (", "fails: SyntaxError"),
        ("import nothing_of_the_kind", "fails: ModuleNotFoundError"),
        (
            "from ddjax.mixing import MIXERS, MixerEntry\nMIXERS.add(MixerEntry('average', None))",
            "mixing 'average' is already registered; choose another name (line 2)",
        ),
    ],
)
def test_an_include_that_fails_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    assert call(f"--include={path}", f"--output_dir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mixing=trimmed_mean"], "expected 'trimmed_mean:K'"),
        (["--mixing=trimmed_mean:-1"], "K must be a whole number of at least 0, got '-1'"),
        (["--mixing=trimed_mean:1"], "did you mean 'trimmed_mean'"),
        (["--topology=lossy:2:ring"], "P must be a number from 0 to 1, got '2'"),
        (["--topology=lossy:0.1:rign"], "did you mean 'ring'"),
    ],
)
def test_arguments_of_a_users_part_are_checked_like_ours(tmp_path, capsys, flags, message):
    includes = [f"--include={HERE / name}.py" for name in ("trimmed_mean", "lossy")]
    assert call(*FAST, *includes, *flags, f"--output_dir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_an_include_by_flag_registers_in_a_fresh_process(tmp_path):
    flags = [
        *FAST,
        f"--include={HERE / 'trimmed_mean.py'}",
        "--mixing=trimmed_mean:1",
        f"--output_dir={tmp_path / 'run'}",
    ]
    script = HERE.parents[1] / "scripts/train.py"
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def registered(entry):
    """An algorithm that is registered inside only."""
    with contextlib.suppress(InterruptedError), all_or_nothing():
        ALGORITHMS.add(entry)
        yield
        raise InterruptedError


def test_an_entry_of_a_user_takes_no_setting_from_others():
    before = used(Settings(algorithm="dsgd"))
    with registered(AlgorithmEntry("hoarder", lambda population: ddjax.local(population), uses=("rounds", "models"))):
        assert used(Settings(algorithm="dsgd")) == before
    assert "hoarder" not in ALGORITHMS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"x": "learning_rte"}, "did you mean 'learning_rate'"),
        ({"x": "seed"}, "cannot take the setting 'seed'"),
        ({"x": "eval_every"}, "cannot take the setting 'eval_every'"),
    ],
)
def test_settings_that_an_entry_cannot_have_are_named(settings, message):
    entry = AlgorithmEntry("odd", lambda population, x: ddjax.local(population), settings=settings)
    with registered(entry), pytest.raises(InputError, match=message):
        build(Settings(devices=4, models="linear"))


def test_a_changed_file_is_another_run_and_another_sweep(tmp_path, capsys):
    path, out = tmp_path / "mine.py", tmp_path / "run"
    path.write_text("x = 1\n")
    flags = [*FAST, f"--include={path}", "--checkpoint_every=3"]
    assert call(*flags, f"--output_dir={out}") == 0
    assert sweep(*FAST, f"--include={path}", f"--sweep_dir={tmp_path / 'sweep'}") == 0
    path.write_text("x = 2\n")
    assert call(*flags, "--rounds=9", f"--output_dir={out}", "--resume") == 2
    assert "cannot resume with the included files mine.py" in capsys.readouterr().err
    assert sweep(*FAST, f"--include={path}", f"--sweep_dir={tmp_path / 'sweep'}") == 2
    assert "holds another sweep" in capsys.readouterr().err


def test_consensus_takes_no_further_forms():
    with pytest.raises(InputError, match="accepts no further entries"):
        CONSENSUS.add(ConfiguredEntry("mine", lambda: "mine"))


def test_help_shows_what_is_included(capsys):
    assert call(f"--include={HERE / 'trimmed_mean.py'}", "--help") == 0
    assert "trimmed_mean:K" in capsys.readouterr().out


def test_matrices_of_a_lossy_network_are_those_of_what_is_sent():
    np.testing.assert_array_equal(matrix_of(lossy(0.5)), matrix_of(as_network(build_topology("ring", DEVICES).network)))
