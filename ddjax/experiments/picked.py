"""Which forms of execution were picked for a run."""

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
    """How the devices of a model are executed.

    Attributes:
      devices: how many an accelerator takes at a time; `None` for as many as fit in its memory.
      examples: how many of a minibatch go forward and backward at a time; `None` for all.
      convolution: `products` or `native`; `None` where nothing is convolved.
    """

    devices: int | None
    examples: int | None
    convolution: str | None


def model_form(
    simulation: Simulation, model: str, size: int, chunk: int | None, micro_batch: int, convolution: str
) -> ModelForm:
    """The form of a model's devices on the mesh of a simulation.

    Args:
      simulation: with the mesh.
      model: a name of `MODELS`.
      size: how many devices have it.
      chunk: how many are vectorized at a time, as in `Group`.
      micro_batch: examples at a time, as asked for; 0 picks.
      convolution: as asked for; empty picks.
    """
    with jax.set_mesh(simulation.mesh):
        examples = micro_batch or micro_batch_for(model)
        platform = sharding.platform()
    convolved = convolution or forms.convolution(platform) if MODELS[model].convolutional else None
    here = math.ceil(size / simulation.mesh.size)  # on one accelerator
    some = min(chunk or here, here) if chunk or platform == "cpu" else None
    return ModelForm(some, examples or None, convolved)


def describe(simulation: Simulation, models: Sequence[tuple[str, ModelForm]], messages: PyTree) -> dict[str, Any]:
    """What was picked, as JSON takes it.

    Args:
      simulation: of the run.
      models: with their forms.
      messages: what is mixed over the graph, leaves `[N, …]` or their shapes; `None` where nothing is.

    Returns:
      `forms` by model, the `product` with `W`, and both in the words of `forms_picked`.
    """
    product = None if messages is None else _product(simulation, messages)
    return {
        "forms": {name: form._asdict() for name, form in models},
        "product": product,
        "forms_picked": _sentence(simulation, models, product),
    }


def _product(simulation: Simulation, messages: PyTree) -> str | None:
    """How `W` is multiplied with messages, joined by `+` where leaves differ; `None` for graphs drawn each round."""
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
