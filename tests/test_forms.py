"""Forms of execution: rules that follow from shapes and from the abilities of a chip."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from ddjax import forms

MLP = 101_770  # parameters


def test_on_cpu_a_sparse_product_is_a_sum_over_links():
    assert forms.mixing_product("cpu", 512, 2, MLP, 1, True) == "gather"


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_few_hops_are_shifted_and_many_multiplied(platform):
    """A ring reads its values a few times; an exponential graph of 512 devices is one fast product."""
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


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize(("precision", "bits"), [("float32", 24), ("tf32", 11), ("bfloat16", 8)])
def test_jax_multiplies_in_the_precision_that_is_named(platform, precision, bits):
    """Compared with JAX's description of a product: on a GPU the algorithm gives the bits of a factor."""
    with jax.default_matmul_precision(forms.matmul_precision(platform, precision)):
        (product,) = jax.make_jaxpr(jnp.matmul)(jnp.ones((2, 2)), jnp.ones((2, 2))).eqns
    algorithm = product.params["precision"]
    if platform == "gpu" and precision != "float32":
        assert {"TF32": 11, "BF16": 8}[algorithm.name.split("_")[0]] == bits
        assert algorithm.accumulation_type == jnp.float32
    else:
        assert set(algorithm) == {{24: lax.Precision.HIGHEST, 11: lax.Precision.HIGH, 8: lax.Precision.DEFAULT}[bits]}
