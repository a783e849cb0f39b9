"""Experiments from Python: settings, refusals, and no change of global state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import FAST, call, rows

from ddjax.errors import InputError
from ddjax.experiments import Settings, build
from ddjax.experiments.fields import Role, Sweep, fields
from ddjax.experiments.usage import used

SMALL = Settings(devices=4, models="linear", rounds=6, eval_every=3)


def test_a_run_from_python_is_that_of_the_command(tmp_path):
    """To the bit, on one shard."""
    out = tmp_path / "run"
    assert call(*FAST, "--host_devices=1", "--algorithm=dsgd", f"--output_dir={out}") == 0
    history = build(dataclasses.replace(SMALL, algorithm="dsgd")).run()
    table = rows(out)
    assert [evaluation.round for evaluation in history] == [0, 3, 6]
    assert [str(evaluation.score.mean()) for evaluation in history] == [row["accuracy_mean"] for row in table]


def test_double_precision_lasts_as_long_as_the_experiment_has_its_turn():
    wide = dataclasses.replace(SMALL, dataset="synthetic_regression", precision="float64", learning_rate=0.01)
    for snapshot, _ in build(wide).iterate():
        assert jnp.ones(1).dtype == np.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(snapshot.state.devices[0].params)} == {np.dtype(np.float64)}
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 0}, "devices must be positive"),
        ({"devices": "8"}, "devices takes a value of type int, got '8'"),
        ({"devices": True}, "devices takes a value of type int, got True"),
        ({"include": "mine.py"}, "include takes several texts"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, got nan"),
        ({"choco_step_size": 2.0}, r"choco_step_size must lie in \[0, 1\], got 2.0"),
        ({"algorithm": "dsgd", "consensus": "tracking"}, "--consensus is not used by dsgd; it belongs to distillation"),
        ({"mixing": "averge"}, "did you mean 'average'"),
        ({"include": ("nowhere.py",)}, "there is no such file"),
        ({"consensus_step_size": 0.9, "topology": "hypercube"}, "unstable here: it must be below"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        build(dataclasses.replace(SMALL, **changes))


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.devices = 5


def test_what_is_used_follows_from_the_entries():
    assert "consensus_step_size" in used(SMALL)
    assert "consensus_step_size" not in used(dataclasses.replace(SMALL, consensus="tracking"))
    assert "mixing" in used(dataclasses.replace(SMALL, algorithm="dsgd"))
    assert "mixing" not in used(dataclasses.replace(SMALL, algorithm="choco"))
    assert "choco_step_size" in used(dataclasses.replace(SMALL, algorithm="choco"))
    assert "topology" not in used(dataclasses.replace(SMALL, algorithm="server_distillation"))
    assert "target_column" in used(dataclasses.replace(SMALL, dataset="mine.csv"))


def test_every_setting_has_a_role_a_section_and_a_sentence():
    for name, field in fields(Settings).items():
        assert isinstance(field.role, Role), name
        assert isinstance(field.sweep, Sweep), name
        assert field.section, name
        assert field.help.endswith("."), name
        field.check(field.default)


def test_mixing_is_a_choice_for_parameters_too():
    """`choco` is `dsgd` over the mixer of that name."""
    named = build(dataclasses.replace(SMALL, algorithm="choco")).run()
    chosen = build(dataclasses.replace(SMALL, algorithm="dsgd", mixing="choco")).run()
    np.testing.assert_array_equal(named[-1].score, chosen[-1].score)
    assert named[-1].bytes == chosen[-1].bytes


def test_numbers_of_numpy_are_numbers():
    settings = dataclasses.replace(SMALL, devices=np.int64(4), learning_rate=np.float32(0.1))
    assert len(build(settings).run()) == 3
    assert type(settings.values()["devices"]) is int
