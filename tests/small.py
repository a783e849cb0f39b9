"""Small problems, populations and algorithms that the tests share."""

import jax
import numpy as np
import optax

import ddjax
from ddjax.data.synthetic import synthetic_classification
from ddjax.mixing import COMPRESSORS
from ddjax.models import build_model
from ddjax.networks import NetworkRound, as_network, build_topology

# Fixed graphs of every kind.
SPECS = [
    "ring",
    "complete",
    "star",
    "torus",
    "hypercube",
    "exponential",
    "directed_ring",
    "directed_exponential",
    "erdos_renyi:0.5",
    "watts_strogatz:4:0.3",
    "random_regular:3",
    "barabasi_albert:2",
]

DEVICES, CLASSES, DIMENSIONS = 6, 3, 5


def small_problem(spec="ring", partition="quantity", devices=DEVICES, product="", **kwargs):
    dataset = synthetic_classification(0, devices, 120, 60, CLASSES, DIMENSIONS, heterogeneity=0.5)
    matrix = build_topology(spec, devices, product=product).network
    return ddjax.make_problem(dataset, matrix, partition=partition, reference_size=20, **kwargs)


def image_problem(devices=4, side=8):
    """Random images, on which every architecture can run but learn nothing."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (100, side, side), dtype=np.uint8)
    y = rng.integers(0, CLASSES, 100).astype(np.int32)
    dataset = ddjax.data.Dataset(x[:80], y[:80], x[80:], y[80:], CLASSES)
    return ddjax.make_problem(dataset, build_topology("ring", devices).network, partition="iid", reference_size=20)


BATCH, REFERENCE_BATCH, RATE, WEIGHT, STEP = 4, 5, 0.2, 3.0, 0.4


def make_learners(
    names=("linear",), size=DEVICES, shape=(DIMENSIONS,), batch_size=BATCH, local_steps=1, chunk=None, **kwargs
):
    kwargs = {"distillation_weight": WEIGHT} | kwargs
    optimizer = kwargs.pop("optimizer", None) or optax.sgd(RATE)
    groups = [
        ddjax.Group(
            ddjax.supervised_learner(build_model(name, shape, CLASSES), optimizer, **kwargs), size // len(names), chunk
        )
        for name in names
    ]
    return ddjax.Population(tuple(groups), batch_size, local_steps)


def make_distillation(population, consensus="gradient", step=STEP, reference_batch_size=REFERENCE_BATCH):
    return ddjax.distillation(
        population,
        ddjax.weighted_average(),
        reference_batch_size=reference_batch_size,
        consensus=consensus,
        consensus_step_size=step,
    )


def rounds(algorithm, problem, count, state=None, key=None):
    """State after `count` rounds, and the states before; round t has the key `fold_in(key, t)`."""
    key = jax.random.key(7) if key is None else key
    state = algorithm.init(jax.random.key(3), problem) if state is None else state
    step = jax.jit(algorithm.round)
    states = [state]
    for _ in range(count):
        state, _info = step(jax.random.fold_in(key, state.round), state, problem)
        states.append(state)
    return states[-1], states


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def compressor(spec):
    """The compressor of a specification."""
    return COMPRESSORS.parse(spec).build()


def matrix_of(network):
    """The mixing matrix of a fixed network in double precision."""
    return network.sample_matrices()[0].toarray()


def one_round(network):
    """The only round of a fixed network."""
    fixed = as_network(network)
    return NetworkRound(fixed, fixed)


def server_distillation(population, reference_batch_size):
    """Server distillation, the combination that `--algorithm=server_distillation` names."""
    return ddjax.distillation(
        population, ddjax.server(), reference_batch_size=reference_batch_size, consensus="neighbors"
    )
