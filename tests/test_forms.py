"""Forms of execution: rules that follow from shapes and from what a chip can do."""

import pytest

from ddjax import forms

MLP = 101_770  # parameters


def test_on_cpu_a_sparse_product_is_a_sum_over_links():
    assert forms.mixing_product("cpu", 512, 2, MLP, 1, True) == "gather"


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_few_hops_are_shifted_and_many_multiplied(platform):
    """A ring reads what it holds a few times; an exponential graph of 512 devices is one quick product."""
    assert forms.mixing_product(platform, 512, 2, MLP, 1, True) == "shift"
    assert forms.mixing_product(platform, 512, 17, MLP, 1, True) == "dense"
    assert forms.mixing_product(platform, 10_000, 26, MLP, 1, True) == "shift"  # a product grows with N squared


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_a_graph_without_hops_is_never_shifted(platform):
    assert forms.mixing_product(platform, 100_000, 2, MLP, 1, False) == "gather"
    assert forms.mixing_product(platform, 64, 8, MLP, 1, False) == "dense"


def test_an_accelerator_takes_what_fits_and_whole_tiles_of_it():
    assert forms.at_a_time("tpu", 1000, 1) == 1000
    some = forms.at_a_time("tpu", 1000, 2**22)
    assert 0 < some < 1000
    assert some % 8 == 0
    assert forms.at_a_time("tpu", 1000, 2**40) == 1
    assert forms.at_a_time("gpu", 1000, 2**22) >= some


def test_options_of_the_loop_are_for_gpus_and_give_way_to_the_user(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert forms.loop_options("cpu") == forms.loop_options("tpu") == {}
    assert "WHILE" in forms.loop_options("gpu")["xla_gpu_enable_command_buffer"].split(",")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer=")
    assert forms.loop_options("gpu") == {}


def test_precisions_are_named_as_a_backend_understands_them():
    assert forms.matmul_precision("gpu", "tf32") == "TF32_TF32_F32"
    assert forms.matmul_precision("gpu", "bfloat16") == "BF16_BF16_F32"
    assert forms.matmul_precision("tpu", "bfloat16") == "bfloat16"
    assert {forms.matmul_precision(platform, "float32") for platform in ("cpu", "gpu", "tpu")} == {"highest"}
