"""Builds the experiment that flags describe."""

import dataclasses
import inspect
import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from absl import flags

import ddjax
from ddjax import data, schedules
from ddjax.errors import InputError, suggest
from ddjax.experiments.options import ALGORITHMS, AVERAGING, BELONGS, meets
from ddjax.learning import losses, supervised, tasks
from ddjax.learning.population import chunk_for
from ddjax.mixing import compression, mixers
from ddjax.mixing.registry import MIXERS
from ddjax.models import architectures
from ddjax.networks.topology import Topology, topology

# Flags that are numbers in a compiled program, not part of it: others can take their place without compiling anew.
NUMBERS = (
    "learning_rate",
    "distillation_weight",
    "temperature",
    "consensus_step_size",
    "choco_step_size",
    "divergence_threshold",
)
Numbers = Mapping[str, Any]


class Experiment(NamedTuple):
    """What the flags describe, built."""

    algorithm: ddjax.Algorithm
    problem: ddjax.Problem
    simulation: ddjax.Simulation
    population: ddjax.Population
    topology: Topology
    consensus_step_size: float | None


def build(
    given: flags.FlagValues, mesh: jax.sharding.Mesh | None = None, like: ddjax.Simulation | None = None
) -> Experiment:
    """Builds an experiment.

    Args:
      given: the flags of `options`.
      mesh: where it will run; all accelerators if `None`.
      like: of another experiment there, whose flags differ in seed, `NUMBERS` and data alone: its compiled programs
        serve this one too, if shapes are the same.

    Raises:
      InputError: flags that are wrong, or do not go together.
    """
    check_numbers(given)
    if given.algorithm not in ALGORITHMS:
        raise suggest("algorithm", given.algorithm, ALGORITHMS)
    for name, users in BELONGS.items():
        if given[name].present and given.algorithm not in users:
            raise InputError(f"--{name} is not used by {given.algorithm}; it belongs to {', '.join(users)}")
    if given["local_steps"].present and given.local_epochs:
        raise InputError("give --local_steps or --local_epochs, not both")
    target_accuracies(given)
    mixer = _mixer(given, _numbers(given))
    # What a system without neighbours does not use cannot be wrong.
    spec, weights = (given.topology, given.mixing_weights) if meets(given) else ("ring", "")
    network = topology(spec, given.devices, weights, given.seed, _weights_needed(given, mixer), given.mixing_product)
    if mixer and mixer.fixed_graph and network.changes:
        raise InputError(
            f"choco needs a fixed graph, since neighbours keep copies of one another; {given.topology!r} changes"
        )
    groups = architectures.parse_models(given.models, given.devices)
    private = given.devices * (given.examples_per_device or 100)
    dataset = data.load(
        given.dataset,
        devices=given.devices,
        train=private + given.reference_size if given.reference_size else private * 4 // 3 + 1,
        seed=given.seed,
        target_column=given.target_column,
    )
    problem = data.make_problem(
        dataset,
        network.network,
        partition=given.partition,
        dirichlet_alpha=given.dirichlet_alpha,
        examples_per_device=given.examples_per_device,
        reference_size=given.reference_size,
        eval_examples=given.eval_examples,
        seed=given.seed,
    )
    task = tasks.of(problem.y)
    _check_task(given, task)
    if given.algorithm == "centralized":
        if len(groups) > 1:
            raise InputError(f"centralized trains one model, but --models={given.models} names {len(groups)} groups")
        problem, groups = ddjax.centralized(problem), [(groups[0][0], 1)]
    step_size = _consensus_step_size(given, network)
    numbers = _numbers(given) | {"consensus_step_size": step_size or 0.0}
    # The program must not keep the data alive.
    shapes, outputs = jax.eval_shape(lambda: problem), dataset.outputs

    def make(numbers: Numbers) -> ddjax.Algorithm:
        return _algorithm(given, _learners(given, shapes, outputs, groups, numbers), shapes, numbers)

    population, algorithm = _learners(given, shapes, outputs, groups, numbers), make(numbers)
    if like and like.fits(problem):
        simulation = like.on(problem, numbers)
    else:  # what does not fit together shows here, before a file is written
        simulation = ddjax.Simulation(make, problem, mesh, numbers)
    return Experiment(algorithm, problem, simulation, population, network, step_size)


def _numbers(given: flags.FlagValues) -> dict[str, float]:
    numbers = {name: given[name].value for name in NUMBERS}
    return numbers | {"choco_step_size": given.choco_step_size or _usual(given)[1]}


def target_accuracies(given: flags.FlagValues) -> list[float]:
    """What `--target_accuracy` lists."""
    try:
        targets = [float(target) for target in given.target_accuracy.split(",") if target]
    except ValueError:
        targets = [math.nan]
    if not all(0 < target <= 1 for target in targets):
        raise InputError(f"target_accuracy takes numbers in (0, 1] joined by commas, got {given.target_accuracy!r}")
    return targets


def _check_task(given: flags.FlagValues, task: tasks.Task) -> None:
    """Refuses flags that are of classes where numbers are to be predicted."""
    if given.divergence not in losses.DIVERGENCES:
        raise suggest("divergence", given.divergence, losses.DIVERGENCES)
    names = ["temperature", "target_accuracy"] if task is tasks.REGRESSION else []
    if given.divergence not in task.divergences:
        names.append("divergence")
    for name in names:
        if given[name].value != given[name].default:
            raise InputError(
                f"--{name}={given[name].value} is of classes, but {given.dataset} has numbers to predict; leave it out"
            )


def _consensus_step_size(given: flags.FlagValues, network: Topology) -> float | None:
    """`ζ` as given, or picked for the graph: 0.5, or three quarters of the largest stable one where that is less."""
    if given.algorithm != "distillation" or given.consensus != "gradient":
        return None
    limit = network.largest_consensus_step_size() if given.mixing in ("average", "push_sum") else 1.0
    step_size = given.consensus_step_size or min(0.5, 0.75 * limit)
    if step_size >= limit:
        raise InputError(
            f"consensus_step_size {step_size:g} is unstable here, it must be below {limit:.3g}; take a smaller one"
            + (", or lazy mixing weights" if given.mixing == "average" else "")
        )
    return step_size


def _mixer(given: flags.FlagValues, numbers: Numbers) -> ddjax.Mixer | None:
    """What the system mixes by, if it mixes at all."""
    names = AVERAGING | {"distillation": given.mixing, "fedmd": "server"}
    if given.algorithm not in names:
        return None
    name = names[given.algorithm]
    if name not in MIXERS:
        raise suggest("mixing", name, MIXERS)
    if given["choco_step_size"].present and name != "choco":
        raise InputError("--choco_step_size is of choco; use --algorithm=choco or --mixing=choco")
    if not 0 <= given.choco_step_size <= 1:
        raise InputError(f"choco_step_size must lie in (0, 1], got {given.choco_step_size:g}")
    factory = MIXERS[name]
    known: dict[str, Any] = {
        "compressor": compression.compressor(given.compressor or _usual(given)[0]),
        "step_size": numbers["choco_step_size"],
    }
    wanted = inspect.signature(factory).parameters
    mixer = factory(**{parameter: known[parameter] for parameter in wanted if parameter in known})
    return mixers.encoded(mixer, known["compressor"]) if given.compressor and "compressor" not in wanted else mixer


def _usual(given: flags.FlagValues) -> tuple[str, float]:
    """Compressor and step size of choco where they are not given."""
    # A hundredth of the parameters is much, of soft decisions little.
    return ("top_k:0.01", 0.04) if given.algorithm == "choco" else ("top_k:0.1", 0.4)


def _weights_needed(given: flags.FlagValues, mixer: ddjax.Mixer | None) -> str:
    """Which sums of the mixing matrix must be 1."""
    if mixer is None:
        return "links"
    fresh = given.algorithm == "distillation" and given.consensus == "neighbors" and not mixer.running
    return "row" if fresh else mixer.weights


def _learners(
    given: flags.FlagValues, problem: ddjax.Problem, outputs: int, groups: list[tuple[str, int]], numbers: Numbers
) -> ddjax.Population:
    task = tasks.of(problem.y)
    batch_size = given.batch_size * (given.devices if given.algorithm == "centralized" else 1)
    population = ddjax.Population((), batch_size, given.local_steps, given.local_epochs)
    rate = schedules.schedule(given.learning_rate_schedule).over(numbers["learning_rate"], given.rounds)
    steps = population.steps_per_round(problem.private_indices.shape[1])
    if given.rounds * steps >= 2**31:
        raise InputError(f"{given.rounds} rounds of {steps} steps are more than can be counted; take fewer")
    # Optax counts steps; a schedule is over rounds.
    optimizer = supervised.optimizer(given.optimizer, lambda count: rate(count // steps))

    def group(name: str, size: int) -> ddjax.Group:
        learner = ddjax.learner(
            architectures.model(name, problem.x.shape[1:], outputs, given.activation, given.convolution),
            optimizer,
            task=task,
            distillation_weight=numbers["distillation_weight"],
            divergence=task.divergences[given.divergence],
            temperature=numbers["temperature"],
            micro_batch=given.micro_batch or architectures.micro_batch_for(name),
        )
        return ddjax.Group(learner, size, given.device_chunk or chunk_for(name, learner))

    return dataclasses.replace(population, groups=tuple(group(*each) for each in groups))


def _algorithm(
    given: flags.FlagValues, population: ddjax.Population, problem: ddjax.Problem, numbers: Numbers
) -> ddjax.Algorithm:
    mixer = _mixer(given, numbers)
    reference_batch_size = given.reference_batch_size or problem.reference.shape[0]
    match given.algorithm:
        case "dsgd" | "choco" | "push_sum" if mixer:
            return ddjax.dsgd(population, mixer)
        case "gossip":
            return ddjax.gossip(population, message_fraction=given.message_fraction)
        case "fedavg":
            return ddjax.fedavg(population, fraction=given.client_fraction)
        case "dynamic_averaging":
            threshold = numbers["divergence_threshold"]
            return ddjax.dynamic_averaging(population, threshold=threshold, check_every=given.check_every)
        case "fedmd":
            return ddjax.fedmd(population, reference_batch_size=reference_batch_size, mixer=mixer)
        case "co_regularization":
            if {name for name, _ in architectures.parse_models(given.models, given.devices)} != {"linear"}:
                raise InputError("co_regularization is a closed form for linear models; give --models=linear")
            return ddjax.co_regularization(population, distillation_weight=numbers["distillation_weight"])
        case "distillation" if mixer:
            return ddjax.distillation(
                population,
                mixer,
                reference_batch_size=reference_batch_size,
                consensus=given.consensus,
                consensus_step_size=schedules.schedule(given.consensus_step_size_schedule).over(
                    numbers["consensus_step_size"], given.rounds
                ),
            )
    return ddjax.local(population)


def check_numbers(given: flags.FlagValues) -> None:
    """Raises `InputError` for a number that no run can have."""
    positive = ("devices", "learning_rate", "local_steps", "check_every", "eval_every", "temperature")
    non_negative = (
        "rounds",
        "seed",
        "batch_size",
        "local_epochs",
        "reference_size",
        "reference_batch_size",
        "distillation_weight",
        "consensus_step_size",
        "checkpoint_every",
        "examples_per_device",
        "eval_examples",
        "divergence_threshold",
        "device_chunk",
        "micro_batch",
    )
    for name in positive + non_negative:
        value = getattr(given, name)
        largest = 2**31 - 1 if isinstance(value, int) else sys.float_info.max
        if name == "divergence_threshold" and value == math.inf:
            continue
        if not 0 <= value <= largest or (name in positive and value == 0):
            raise InputError(f"{name} must be {'positive' if name in positive else 'at least 0'}, got {value}")
    if given.checkpoint_every % given.eval_every:
        raise InputError(
            f"checkpoint_every {given.checkpoint_every} is not a multiple of eval_every {given.eval_every}"
        )
