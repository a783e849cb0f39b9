"""Description of the forms of execution that were picked for a run."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from ddjax import forms, sharding
from ddjax.models import MODELS, micro_batch_for
from ddjax.networks import Cycle, Dense, Links
from ddjax.simulation import Simulation
from ddjax.types import PyTree

_PRODUCTS = {"dense": "as a matrix", "gather": "link by link", "shift": "hop by hop"}


class ModelForm(NamedTuple):
    """Form of execution of the devices of one model.

    Attributes:
      devices: number of devices that an accelerator trains at a time; `None` for as many as fit into its memory.
      examples: number of examples of a minibatch that go forward and backward at a time; `None` for all.
      convolution: form of the convolutions, `products` or `native`; `None` if the model has no convolution.
    """

    devices: int | None
    examples: int | None
    convolution: str | None


def model_form(
    simulation: Simulation, model: str, size: int, chunk: int | None, micro_batch: int, convolution: str
) -> ModelForm:
    """Return the form of execution of a model's devices on the mesh of a simulation.

    Args:
      simulation: simulation that holds the mesh.
      model: name in `MODELS`.
      size: number of devices with this model.
      chunk: number of devices that are vectorized at a time, as in `Group`.
      micro_batch: requested number of examples at a time; 0 picks one.
      convolution: requested form of convolution; an empty text picks one.
    """
    with jax.set_mesh(simulation.mesh):
        examples = micro_batch or micro_batch_for(model)
        platform = sharding.platform()
    convolved = convolution or forms.convolution(platform) if MODELS[model].convolutional else None
    here = math.ceil(size / simulation.mesh.size)  # devices per accelerator
    some = min(chunk or here, here) if chunk or platform == "cpu" else None
    return ModelForm(some, examples or None, convolved)


def describe(simulation: Simulation, models: Sequence[tuple[str, ModelForm]], messages: PyTree) -> dict[str, Any]:
    """Describe the picked forms in types that JSON supports.

    Args:
      simulation: simulation of the run.
      models: models with their forms.
      messages: messages that are mixed over the graph, leaves `[N, …]` or their shapes; `None` if nothing is mixed.

    Returns:
      `forms` by model, the form of the `product` with `W`, and `forms_picked`, a sentence that describes both.
    """
    product = None if messages is None else _product(simulation, messages)
    return {
        "forms": {name: form._asdict() for name, form in models},
        "product": product,
        "forms_picked": _sentence(simulation, models, product),
    }


def _product(simulation: Simulation, messages: PyTree) -> str | None:
    """Return the forms of the product with `W`, joined by `+`; `None` for graphs that are drawn each round."""
    network = simulation.problem.network
    network = network.matrices if isinstance(network, Cycle) else network
    if isinstance(network, Dense):
        return "dense"
    if not isinstance(network, Links):
        return None
    with jax.set_mesh(simulation.mesh):
        return "+".join(sorted({network.picked(leaf) for leaf in jax.tree.leaves(messages)}))


def _sentence(simulation: Simulation, models: Sequence[tuple[str, ModelForm]], product: str | None) -> str:
    mesh = simulation.mesh
    parts = []
    for name, form in dict.fromkeys(models):
        devices = "as many devices at a time as fit" if form.devices is None else _some(form.devices, "device")
        some = f", {_some(form.examples, 'example')}" if form.examples else ""
        convolved = f", convolutions {_convolved(form.convolution)}" if form.convolution else ""
        parts.append(f"{name}: {devices}{some}{convolved}")
    if product:
        parts.append(f"W multiplied {' or '.join(_PRODUCTS[way] for way in product.split('+'))}")
    return f"for {mesh.size} × {mesh.devices.flat[0].device_kind}: " + "; ".join(parts)


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)} at a time"


def _convolved(form: str) -> str:
    return "by matrix products" if form == "products" else "native"
