"""Devices of a source domain learn a target domain by agreeing on unlabelled target data (Kumar, Saha, Daumé 2010)."""

import numpy as np
import pytest

import ddjax
from ddjax.experiments import Settings, build


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_target_inputs_as_reference_set_carry_the_target_domain_to_devices_of_the_source(tmp_path):
    """Digits: seven devices hold upright ones, one holds 60 turned by 90°; all are tested on turned ones."""
    digits = ddjax.load_dataset("digits")

    def turned(x):
        return np.rot90(x, axes=(1, 2))

    x, y = digits.x_train, digits.y_train
    np.savez(
        tmp_path / "domains.npz",
        x_train=np.concatenate([x[:700], turned(x[700:760])]),
        y_train=y[:760],
        x_test=turned(digits.x_test),
        y_test=digits.y_test,
        owner=["source"] * 700 + ["target"] * 60,
    )
    np.savez(tmp_path / "upright.npz", x_train=x[760:])
    np.savez(tmp_path / "turned.npz", x_train=turned(x[760:]))

    def of_source_devices(reference, **choices):
        settings = Settings(
            dataset=f"{tmp_path}/domains.npz",
            partition="natural",
            devices=8,
            topology="exponential",
            reference_size=640,
            reference_dataset=f"{tmp_path}/{reference}.npz",
            rounds=1000,
            eval_every=1000,
            **choices,
        )
        return build(settings).run()[-1].score[:7]

    assert of_source_devices("upright", algorithm="local").max() < 0.25
    assert of_source_devices("upright").max() < 0.3
    assert of_source_devices("turned").min() > 0.55
