"""Build the experiment that settings describe."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddjax import data, schedules, sharding
from ddjax.algorithms import ALGORITHMS, AlgorithmEntry
from ddjax.errors import InputError
from ddjax.experiments import execution, inputs, usage
from ddjax.experiments.extensions import include
from ddjax.experiments.fields import Role, fields
from ddjax.experiments.inputs import DeviceGroup, device_groups
from ddjax.experiments.settings import Settings
from ddjax.learning import (
    CLASSIFICATION,
    OPTIMIZERS,
    Group,
    Population,
    chunk_for,
    infer_task,
    stable_step_size,
    supervised_learner,
)
from ddjax.mixing import COMPRESSORS, MIXERS
from ddjax.mixing.encoded import encoded
from ddjax.models import build_model, micro_batch_for
from ddjax.networks import Topology, build_topology
from ddjax.simulation import Evaluation, Progress, Simulation, Snapshot, iterate
from ddjax.stacked import shapes
from ddjax.types import Algorithm, Mixer, Problem

Hyperparameters = Mapping[str, Any]
_STEP = 0.05  # the default learning rate


class Experiment(NamedTuple):
    """An experiment that is ready to run.

    Attributes:
      settings: settings as given.
      algorithm: algorithm to run.
      problem: data and network, with all arrays on the accelerators.
      simulation: compiled simulation of the algorithm on the problem.
      population: simulated devices.
      topology: network of the devices.
      consensus_step_size: step size `ζ` of the consensus, as given or picked; `None` if the algorithm has none.
      learning_rate: learning rate `η`, as given or picked.
      facts: description of the data (see `data.Prepared`), a `digest` of the data and the graph, and digests of the
        `files` that hold the data and the graph.
    """

    settings: Settings
    algorithm: Algorithm
    problem: Problem
    simulation: Simulation
    population: Population
    topology: Topology
    consensus_step_size: float | None
    learning_rate: float
    facts: dict[str, Any]

    def run(self) -> list[Evaluation]:
        """Run all rounds and return the evaluations, the first of which precedes round 1.

        Raises:
          DivergedError: a device diverged (see `simulation.iterate`).
        """
        return [evaluation for _, evaluation in self.iterate()]

    def iterate(
        self,
        resume: tuple[Snapshot, Evaluation] | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[Snapshot, Evaluation]]:
        """Yield a snapshot and its evaluation at the start, every `eval_every` rounds and after the last round.

        See `simulation.iterate` for the arguments and errors.
        """
        settings = self.settings
        steps = iterate(
            self.simulation,
            key=jax.random.key(settings.seed),
            rounds=settings.rounds,
            eval_every=settings.eval_every,
            resume=resume,
            progress=progress,
            interrupted=interrupted,
        )
        while True:
            with execution.precision(settings):  # only here, so that the caller keeps its own precision
                step = next(steps, None)
            if step is None:
                return
            yield step


def build(
    settings: Settings,
    mesh: jax.sharding.Mesh | None = None,
    like: Simulation | None = None,
    entering: Callable[[str], None] = lambda phase: None,
) -> Experiment:
    """Build an experiment without writing any files; only the commands use the output settings.

    Args:
      settings: settings of the experiment.
      mesh: mesh on which to run; all accelerators if `None`.
      like: simulation, on the same mesh, of an experiment that differs only in seed, hyperparameters and data.
        If the shapes agree, the new experiment reuses the compiled programs of this simulation.
      entering: function called with `data` before data are read, and with `compiling` before programs are built.

    Raises:
      InputError: a setting is wrong, or two settings are incompatible.

    Examples:
      >>> [evaluation.round for evaluation in build(settings).run()]
      [0, 5, 10]
    """
    settings.check()
    include(settings.include)
    usage.check_entries()
    usage.check_used(settings)
    execution.check_backend(settings)
    with execution.precision(settings):
        return _build(settings, mesh, like, entering)


def _build(
    settings: Settings, mesh: jax.sharding.Mesh | None, like: Simulation | None, entering: Callable[[str], None]
) -> Experiment:
    entry, effective = usage.algorithm(settings), usage.resolve(settings)
    hyperparameters = _hyperparameters(entry, effective)
    mixer = _mixer(entry, effective, hyperparameters)
    topology = _topology(settings, entry.weights(mixer, effective))
    groups = device_groups(settings)
    mesh = mesh or sharding.mesh()
    entering("data")
    dataset, reference = inputs.load(settings), inputs.load_reference(settings)
    problem, facts = data.prepare(
        dataset,
        topology.network,
        partition=settings.partition,
        dirichlet_alpha=settings.dirichlet_alpha,
        examples_per_device=settings.examples_per_device,
        reference_size=settings.reference_size,
        eval_examples=settings.eval_examples,
        standardize=settings.standardize,
        seed=settings.seed,
        feature_shift=settings.feature_shift,
        reference_source=settings.reference_dataset,
        reference_dataset=reference,
        reference_classes=tuple(filter(None, settings.reference_classes.split("+"))),
        reference_alpha=settings.reference_alpha,
        reference_known=settings.reference_known,
        reference_labels=settings.pretraining_steps > 0,
        validation_examples=settings.validation_examples,
        evaluate_on=settings.evaluate_on,
        shards=mesh.size,
    )
    facts |= {"digest": inputs.digest(dataset, reference, topology), "files": inputs.file_digests(settings)}
    entering("compiling")
    outputs = dataset.outputs
    del dataset, reference  # so that only the problem holds the data
    inputs.check_task(settings, problem)
    if entry.pooled:
        if len(groups) > 1:
            raise InputError(
                f"{settings.algorithm} trains one model, but --models={settings.models} and "
                f"--feature_views={settings.feature_views} make {len(groups)} groups of devices"
            )
        problem, groups = data.pool(problem), [groups[0]._replace(size=1)]
    step_size = _consensus_step_size(settings, mixer, topology)
    # The compiled program gets only shapes, so that it does not keep the data in memory.
    described = shapes(problem)
    rate = settings.learning_rate or _learning_rate(effective, entry, problem, outputs, groups, hyperparameters)
    hyperparameters |= {"consensus_step_size": step_size or 0.0, "learning_rate": rate}

    def population(values: Hyperparameters) -> Population:
        return _population(effective, entry, described, outputs, groups, values)

    def make(values: Hyperparameters) -> Algorithm:
        return _algorithm(effective, entry, population(values), described, values)

    if like and like.fits(problem):
        simulation = like.with_problem(problem, hyperparameters)
    else:  # raises errors for a wrong combination of settings before any file is written
        simulation = Simulation(make, problem, mesh, hyperparameters)
    algorithm, devices = make(hyperparameters), population(hyperparameters)
    placed = simulation.problem  # on the accelerators, so that the copy on the host can be freed
    return Experiment(settings, algorithm, placed, simulation, devices, topology, step_size, rate, facts)


def digest(settings: Settings) -> str:
    """Compute the current digest of the data and the graph (see `Experiment.facts`).

    Raises:
      InputError: a setting or a file is wrong.
    """
    settings.check()
    include(settings.include)
    with execution.precision(settings):
        entry, effective = usage.algorithm(settings), usage.resolve(settings)
        mixer = _mixer(entry, effective, _hyperparameters(entry, effective))
        topology = _topology(settings, entry.weights(mixer, effective))
        return inputs.digest(inputs.load(settings), inputs.load_reference(settings), topology)


def _hyperparameters(entry: AlgorithmEntry, settings: Settings) -> dict[str, float]:
    """Return the settings that are inputs of the compiled program, with the mixer's defaults in place of zeros."""
    names = [name for name, field in fields(Settings).items() if field.role is Role.HYPERPARAMETER]
    usual = _usual(entry, settings)
    return {name: getattr(settings, name) or usual.get(name, getattr(settings, name)) for name in names}


def _usual(entry: AlgorithmEntry, settings: Settings) -> Mapping[str, Any]:
    if not entry.mixes:
        return {}
    return MIXERS.parse(settings.mixing).entry.usual.get(entry.mixes, {})


def _mixer(entry: AlgorithmEntry, settings: Settings, hyperparameters: Hyperparameters) -> Mixer | None:
    """Build the algorithm's mixer; `None` if the algorithm does not mix."""
    if not entry.mixes:
        return None
    choice, usual = MIXERS.parse(settings.mixing), _usual(entry, settings)
    compressor = settings.compressor or usual.get("compressor", "")
    own: dict[str, Any] = {}
    for parameter, name in choice.entry.settings.items():
        if name == "compressor":
            own[parameter] = COMPRESSORS.parse(compressor).build()
        else:
            own[parameter] = hyperparameters.get(name, getattr(settings, name))
    mixer = choice.build(**own)
    takes = "compressor" in choice.entry.settings.values()
    return encoded(mixer, COMPRESSORS.parse(compressor).build()) if compressor and not takes else mixer


def _topology(settings: Settings, stochastic: str) -> Topology:
    """Build the network; `stochastic` says which sums of its mixing matrix must be 1 (see `build_topology`)."""
    # An algorithm without neighbours ignores these settings, so they must not raise errors.
    uses = usage.used(settings)
    spec = settings.topology if "topology" in uses else "ring"
    weights = settings.mixing_weights if "mixing_weights" in uses else ""
    return build_topology(spec, settings.devices, weights, settings.seed, stochastic, settings.mixing_product)


def _consensus_step_size(settings: Settings, mixer: Mixer | None, topology: Topology) -> float | None:
    """Return `ζ`: the given value or, by default, the smaller of 0.5 and three quarters of the largest stable value."""
    if "consensus_step_size" not in usage.used(settings):
        return None
    if settings.consensus_step_size:
        return settings.consensus_step_size
    limit = topology.largest_consensus_step_size() if mixer and mixer.linear else 1.0
    return min(0.5, 0.75 * limit)


def _learning_rate(
    settings: Settings,
    entry: AlgorithmEntry,
    problem: Problem,
    outputs: int,
    groups: list[DeviceGroup],
    hyperparameters: Hyperparameters,
) -> float:
    """Pick `η`: 0.05, or less for regression if the curvature requires it.

    The value does not depend on the algorithm, so that runs of different algorithms differ only in the algorithm.
    """
    if infer_task(problem.y) is CLASSIFICATION:
        return _STEP
    values = {**hyperparameters, "learning_rate": _STEP}
    population = _population(settings, entry, problem, outputs, groups, values)
    largest = min(
        stable_step_size(
            group.learner, problem, settings.distillation_weight, settings.batch_size, settings.reference_batch_size
        )
        for group in population.groups
    )
    return min(_STEP, float(f"{largest:.2g}"))


def _population(
    settings: Settings,
    entry: AlgorithmEntry,
    problem: Problem,
    outputs: int,
    groups: list[DeviceGroup],
    hyperparameters: Hyperparameters,
) -> Population:
    """Build all devices for the shapes of a problem."""
    task = infer_task(problem.y)
    # One device that holds all data sees as many examples per round as the whole network.
    batch_size = settings.batch_size * (settings.devices if entry.pooled else 1)
    population = Population((), batch_size, settings.local_steps, settings.local_epochs)
    rate = schedules.schedule(settings.learning_rate_schedule).step_sizes(
        hyperparameters["learning_rate"], settings.rounds
    )
    steps = population.steps_per_round(problem.private_indices.shape[1])
    if settings.rounds * steps >= 2**31:
        raise InputError(
            f"{settings.rounds} rounds of {steps} steps exceed the largest step count, 2^31 - 1; run fewer rounds"
        )
    # Optax counts steps, but a schedule counts rounds.
    optimizer = OPTIMIZERS.parse(settings.optimizer).build(lambda count: rate(count // steps))

    tokens = jnp.issubdtype(problem.x.dtype, jnp.integer)

    def group(name: str, size: int, view: tuple[int, int]) -> Group:
        shape = problem.x.shape[1:]
        learner = supervised_learner(
            build_model(name, shape, outputs, settings.activation, settings.convolution, tokens, view),
            optimizer,
            task=task,
            distillation_weight=hyperparameters["distillation_weight"],
            divergence=task.divergence(settings.divergence),
            temperature=hyperparameters["temperature"],
            prior_adjustment=settings.prior_adjustment,
            micro_batch=settings.micro_batch or micro_batch_for(name),
        )
        return Group(learner, size, settings.device_chunk or chunk_for(name, learner))

    return dataclasses.replace(population, groups=tuple(group(*each) for each in groups))


def _algorithm(
    settings: Settings,
    entry: AlgorithmEntry,
    population: Population,
    problem: Problem,
    hyperparameters: Hyperparameters,
) -> Algorithm:
    """Build the algorithm on these devices, with the settings that its factory takes."""
    own: dict[str, Any] = {}
    for parameter, name in usage.taken(entry, settings).items():
        value = hyperparameters.get(name, getattr(settings, name))
        if name == "reference_batch_size":
            value = min(value or math.inf, problem.reference.shape[0])
        elif name in ("consensus_step_size", "learning_rate"):
            value = schedules.schedule(getattr(settings, f"{name}_schedule")).step_sizes(value, settings.rounds)
        own[parameter] = value
    mixer = _mixer(entry, settings, hyperparameters)
    return ALGORITHMS.parse(settings.algorithm).build(population, *([mixer] if mixer else []), **own)
