"""Which forms of execution were picked for a run."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax

from ddjax import forms, sharding
from ddjax.learning import Group
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


def model_form(simulation: Simulation, model: str, group: Group, micro_batch: int, convolution: str) -> ModelForm:
    """The form of a model's devices on the mesh of a simulation.

    Args:
      simulation: with the mesh.
      model: a name of `MODELS`.
      group: its devices.
      micro_batch: as asked for; 0 picks.
      convolution: likewise; empty picks.
    """
    with jax.set_mesh(simulation.mesh):
        examples = micro_batch or micro_batch_for(model)
        platform = sharding.platform()
    convolved = convolution or forms.convolution(platform) if MODELS[model].convolutional else None
    here = math.ceil(group.size / simulation.mesh.size)  # on one accelerator
    some = min(group.chunk or here, here) if group.chunk or platform == "cpu" else None
    return ModelForm(some, examples or None, convolved)


def products(simulation: Simulation, messages: PyTree) -> str | None:
    """How `W` is multiplied with messages (leaves `[N, …]`, or their shapes), joined by `+` where leaves differ; `None`
    for graphs that are drawn each round."""
    network = simulation.problem.network
    network = network.matrices if isinstance(network, Cycle) else network
    if isinstance(network, Dense):
        return "dense"
    if not isinstance(network, Links):
        return None
    with jax.set_mesh(simulation.mesh):
        return "+".join(sorted({network.picked(leaf) for leaf in jax.tree.leaves(messages)}))


def sentence(simulation: Simulation, models: Iterable[tuple[str, ModelForm]], product: str | None) -> str:
    """One line that says what was picked, and for what."""
    mesh = simulation.mesh
    parts = []
    for name, form in dict.fromkeys(models):
        devices = "as many devices at a time as fit" if form.devices is None else _some(form.devices, "device")
        some = f", {_some(form.examples, 'example')}" if form.examples else ""
        convolved = f", convolutions {_convolved(form.convolution)}" if form.convolution else ""
        parts.append(f"{name}: {devices}{some}{convolved}")
    if product:
        ways: Sequence[Any] = [_PRODUCTS[way] for way in product.split("+")]
        parts.append(f"W multiplied {' or '.join(ways)}")
    return f"for {mesh.size} × {mesh.devices.flat[0].device_kind}: " + "; ".join(parts)


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)} at a time"


def _convolved(form: str) -> str:
    return "by matrix products" if form == "products" else "native"
