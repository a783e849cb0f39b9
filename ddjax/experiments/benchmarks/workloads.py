"""Work that `benchmark.py` measures: algorithms on random data, and the useful operations and bytes of a round."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddjax.algorithms.distillation import distillation
from ddjax.algorithms.dsgd import dsgd
from ddjax.algorithms.local import State, local
from ddjax.experiments import picked
from ddjax.learning import Group, Population, chunk_for, supervised_learner
from ddjax.learning.supervised import in_parts
from ddjax.mixing.average import weighted_average
from ddjax.models import build_model, micro_batch_for, parse_models
from ddjax.networks import Topology, as_network, build_topology
from ddjax.simulation import Simulation
from ddjax.simulation.operations import products
from ddjax.types import Algorithm, Device, Info, Learner, Problem, StepInfo, Traffic

WORK = ("local_sgd", "distillation", "dsgd", "evaluation")
CLASSES, PRIVATE_EXAMPLES, REFERENCE_SIZE = 10, 100, 2000
LEARNING_RATE, DISTILLATION_WEIGHT, CONSENSUS_STEP_SIZE = 0.01, 1.0, 0.05


class Case(NamedTuple):
    """Work of one row; fields that the work does not use are `None`; forms that ddjax picks are 0 or an empty text."""

    work: str
    models: str
    devices: int
    batch_size: int
    topology: str | None
    reference_batch_size: int | None
    device_chunk: int = 0
    micro_batch: int = 0
    convolution: str = ""
    mixing_product: str = ""
    precision: str = "float32"
    examples_per_device: int = PRIVATE_EXAMPLES
    test_examples: int | None = None

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Models, each with its number of devices."""
        return parse_models(self.models, self.devices)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: that of CIFAR-10 if a device has a `resnet14`, otherwise that of MNIST."""
        return (32, 32, 3) if "resnet14" in self.models else (28, 28)

    def network(self) -> Topology:
        """Build the graph over which messages are mixed; a ring if the work mixes nothing."""
        return build_topology(self.topology or "ring", self.devices, product=self.mixing_product)

    def graph(self) -> Topology:
        """Build the graph of `network`, but always from links, so that no `[N, N]` array is made."""
        by_links = self.mixing_product if self.mixing_product not in ("", "dense") else "gather"
        return build_topology(self.topology or "ring", self.devices, product=by_links)


def problem(case: Case) -> Problem:
    """Make random data, which costs as much work as real data."""
    rng, total = np.random.default_rng(0), case.devices * case.examples_per_device

    def inputs(count: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal((count, *case.input_shape), np.float32))

    def labels(count: int) -> jax.Array:
        return jnp.asarray(rng.integers(CLASSES, size=count, dtype=np.int32))

    return Problem(
        x=inputs(total),
        y=labels(total),
        private_indices=jnp.arange(total, dtype=jnp.int32).reshape(case.devices, -1),
        private_counts=jnp.full(case.devices, case.examples_per_device, jnp.int32),
        reference=inputs(REFERENCE_SIZE),
        network=as_network(case.network().network),
        x_test=inputs(case.test_examples or 1),
        y_test=labels(case.test_examples or 1),
    )


def learner(name: str, input_shape: tuple[int, ...], convolution: str = "", micro_batch: int = 0) -> Learner:
    """Build the learner of a device."""
    return supervised_learner(
        build_model(name, input_shape, CLASSES, convolution=convolution),
        optax.sgd(LEARNING_RATE),
        distillation_weight=DISTILLATION_WEIGHT,
        micro_batch=micro_batch,
    )


def reference_pass(inner: Learner, micro_batch: int) -> Learner:
    """Build a learner whose step is only the forward and backward pass over the reference minibatch.

    The parameters move by a tiny part of the gradient; if they stayed the same, XLA would move work out of the loop.
    """

    def gradient(key, params, batch, reference, targets):
        def distance(params, x, z):
            s = inner.predict(Device(params, ()), x)
            return ((s - z) ** 2).sum() / len(reference), s

        (loss, s), found = in_parts(distance, micro_batch, params, reference, targets)
        return found, StepInfo(loss, loss, s)

    def update(device, gradient):
        return device._replace(params=jax.tree.map(lambda p, g: p - 1e-9 * g, device.params, gradient))

    return inner._replace(gradient=gradient, update=update)


def reference_passes(population: Population, reference_batch_size: int) -> Algorithm:
    """Build an algorithm in which, in each round, every device only takes the step of a `reference_pass`."""

    def init(key: jax.Array, problem: Problem) -> State:
        return State(jnp.zeros((), jnp.int32), population.init(key))

    def round(key: jax.Array, state: State, problem: Problem) -> tuple[State, Info]:
        # A moving window needs no draw, and gives the compiler nothing constant to move out of the loop.
        start = state.round % (REFERENCE_SIZE - reference_batch_size + 1)
        reference = problem.reference[start + jnp.arange(reference_batch_size)]
        targets = jnp.full((population.size, reference_batch_size, CLASSES), 1 / CLASSES)
        devices, phase = population.train(key, state.round, state.devices, problem, reference, targets)
        info = Info(phase.loss, phase.distillation_loss, phase.steps, Traffic())
        return State(state.round + 1, devices), info

    return Algorithm(init, round, lambda state, x: population.predict(state.devices, x), lambda problem: Traffic())


def algorithm(work: str, case: Case) -> Algorithm:
    """Build the algorithm that does `work`: one of `WORK`, or `reference_pass`, a part of distillation.

    `evaluation` uses the devices of `local`, because devices predict alike in all algorithms. Forms are picked for the
    ambient mesh.
    """
    groups = []
    for name, size in case.groups:
        micro_batch = case.micro_batch or micro_batch_for(name)
        one = learner(name, case.input_shape, case.convolution, micro_batch)
        measured = reference_pass(one, micro_batch) if work == "reference_pass" else one
        groups.append(Group(measured, size, case.device_chunk or chunk_for(name, one)))
    population = Population(groups, case.batch_size)
    if work == "reference_pass":
        return reference_passes(population, case.reference_batch_size or 0)
    if work == "distillation":
        return distillation(
            population,
            weighted_average(),
            reference_batch_size=case.reference_batch_size or 0,
            consensus_step_size=CONSENSUS_STEP_SIZE,
        )
    return dsgd(population, weighted_average()) if work == "dsgd" else local(population)


def picked_forms(simulation: Simulation, case: Case) -> dict[str, Any]:
    """Describe the forms of execution for a row (see `picked.describe`)."""
    models = []
    with jax.set_mesh(simulation.mesh):
        for name, size in case.groups:
            chunk = case.device_chunk or chunk_for(name, learner(name, case.input_shape))
            models.append((name, picked.model_form(simulation, name, size, chunk, case.micro_batch, case.convolution)))
    messages: Any = jax.ShapeDtypeStruct((case.devices, case.reference_batch_size or 0, CLASSES), jnp.float32)
    if case.work == "dsgd":
        messages = simulation.shapes.state.devices[0].params
    return picked.describe(simulation, models, messages if case.topology else None)


def device_step(case: Case) -> tuple[float, float]:
    """Count the useful operations and the least possible memory traffic in bytes, per device and round (or evaluation).

    Both are means over the devices. A multiply-add counts as two operations. The operations are the products and
    convolutions of a plain forward pass, the gradients of their weights, the gradients of their inputs (except in the
    first layer), and the mixing over the existing links. Elementwise work is left out, and so is the extra work of
    another formulation of a layer.

    Traffic includes parameters and gradients, each read and written once; minibatches, read once (the reference
    minibatch once for all devices); and, in the mixing, the messages of a device and its neighbours, read once, and the
    result, written once. Activations are left out, because they may stay in cache. An evaluation is a forward pass over
    the test set and the reference set; it reads parameters once, and inputs once for all devices.
    """
    b = case.reference_batch_size or 0
    evaluated = (case.test_examples or 0) + REFERENCE_SIZE
    examples = evaluated if case.work == "evaluation" else case.batch_size + b
    inputs = jax.ShapeDtypeStruct((examples, *case.input_shape), jnp.float32)
    flops = parameters = 0.0
    for name, size in case.groups:
        one = learner(name, case.input_shape, "native")
        device = jax.eval_shape(one.init, jax.random.key(0))
        forward = list(products(jax.make_jaxpr(one.predict)(device, inputs)))
        once = case.work == "evaluation"
        flops += size / case.devices * (sum(forward) if once else 3 * sum(forward) - forward[0])
        parameters += size / case.devices * sum(leaf.size for leaf in jax.tree.leaves(device.params))
    if case.work == "evaluation":
        return float(flops), float(4 * (parameters + math.prod(case.input_shape) * evaluated / case.devices))
    message = {"local_sgd": 0, "distillation": b * CLASSES, "dsgd": parameters}[case.work]
    heard = 1 + case.network().directed_edges / case.devices  # the device itself and its neighbours
    read = math.prod(case.input_shape) * (case.batch_size + b / case.devices)
    return float(flops + 2 * heard * message), float(4 * (4 * parameters + read + (heard + 1) * message))
