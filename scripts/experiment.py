"""The flags that every script shares, and the experiment they describe."""

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import execution
import jax
from absl import flags

import ddjax
from ddjax import algorithms, compression, data, losses, mixing, models, schedules, supervised
from ddjax.graphs import GRAPHS
from ddjax.learners import chunk_for
from ddjax.mixers import MIXERS
from ddjax.topology import CHANGING, MIXING_WEIGHTS, Topology, topology
from ddjax.types import InputError, suggest

FLAGS = flags.FLAGS
# name → the mixer of the systems that are `dsgd` over one.
AVERAGING = {"dsgd": "average", "choco": "choco", "push_sum": "push_sum"}
ALGORITHMS = (
    "distillation",
    *AVERAGING,
    "gossip",
    "fedavg",
    "dynamic_averaging",
    "fedmd",
    "co_regularization",
    "local",
    "centralized",
)
# Flags of some systems only: given to another, they are a mistake.
_BELONGS = {
    "consensus": ("distillation",),
    "consensus_step_size": ("distillation",),
    "consensus_step_size_schedule": ("distillation",),
    "divergence": ("distillation", "fedmd"),
    "temperature": tuple(name for name in ALGORITHMS if name != "co_regularization"),
    "mixing": ("distillation",),
    "compressor": ("distillation", "fedmd", *AVERAGING),
    "choco_step_size": ("distillation", "choco"),
    "message_fraction": ("gossip",),
    "client_fraction": ("fedavg",),
    "divergence_threshold": ("dynamic_averaging",),
    "check_every": ("dynamic_averaging",),
}


def _usage(names: Mapping[str, str]) -> str:
    return ", ".join(f"{name}:{usage}" if usage else name for name, usage in names.items())


_GRAPH_USAGE = _usage({name: spec[0] for name, spec in GRAPHS.items()} | CHANGING)


# Section of `--help` → flag → (default, help).
_SECTIONS: dict[str, dict[str, tuple]] = {
    "What is run": {
        "algorithm": ("distillation", f"One of {', '.join(ALGORITHMS)}."),
        "rounds": (3000, "Communication rounds."),
        "seed": (0, "Seed of data split, graph, starts and minibatches."),
    },
    "Data": {
        "dataset": (
            "digits",
            "digits, synthetic_classification[:CLASSES[:DIMENSIONS[:HETEROGENEITY]]] (10:60:1 if left out), or the "
            "path of a .npz with x_train, y_train, x_test, y_test (integer inputs are standardized, others not).",
        ),
        "partition": (
            "dirichlet",
            f"How examples are shared out: {', '.join(data.PARTITIONS)}, or natural (synthetic data).",
        ),
        "dirichlet_alpha": (0.5, "Concentration of dirichlet (labels) and quantity (sizes); small is uneven."),
        "examples_per_device": (0, "Mean number of private examples of a device; 0 for all there are."),
        "reference_size": (0, "Examples of the reference set; 0 for a quarter of the training data, at most 2000."),
        "eval_examples": (0, "Test examples of an evaluation; 0 for all."),
    },
    "Devices and network": {
        "devices": (32, "Number of devices."),
        "models": ("mlp", f"{', '.join(models.MODELS)}, or groups with counts as in linear:8+mlp:16+cnn:8."),
        "activation": ("gelu", f"One of {', '.join(models.ACTIVATIONS)}; the theory asks for a smooth one."),
        "topology": (
            "ring",
            f"One of {_GRAPH_USAGE}. An edge file has a line `i j` a link, directed from i to j; alternating takes "
            "fixed graphs by turns, as in ring+edges:a.txt.",
        ),
        "mixing_weights": (
            "",
            f"One of {', '.join(MIXING_WEIGHTS)}; default metropolis_hastings, on directed graphs uniform or, if the "
            "system can do with it, column_uniform or row_uniform.",
        ),
    },
    "Other systems and ways to mix": {
        "mixing": ("average", f"What distillation mixes soft decisions by: {', '.join(MIXERS)}."),
        "compressor": (
            "",
            "How messages are compressed: "
            + _usage({name: spec[0] for name, spec in compression.COMPRESSORS.items()})
            + "; K is a number, or a fraction below 1. Default none, of choco top_k:0.01, of distillation over it "
            "top_k:0.1.",
        ),
        "choco_step_size": (
            0.0,
            "gamma, consensus step size of choco, in (0, 1]; 0 for 0.04, of distillation 0.4, which suit the default "
            "compressors. The gradient form wants it of the order of zeta.",
        ),
        "message_fraction": (1.0, "Part of the parameters in a message of gossip, in (0, 1]."),
        "client_fraction": (1.0, "C, part of the devices in a round of fedavg, in (0, 1]."),
        "divergence_threshold": (1.0, "Delta of dynamic_averaging, a squared distance of parameters."),
        "check_every": (10, "Rounds between checks of dynamic_averaging."),
    },
    "Distillation": {
        "consensus": ("gradient", f"Form of the consensus step: {', '.join(algorithms.CONSENSUS)}."),
        "consensus_step_size": (
            0.0,
            "zeta, step size of the gradient form; 0 for 0.5, or less where the graph asks for it.",
        ),
        "consensus_step_size_schedule": ("constant", "Schedule of zeta, as for --learning_rate_schedule."),
        "distillation_weight": (10.0, "rho, weight of the divergence beside the private loss."),
        "divergence": ("squared_euclidean", f"Between soft decision and target: {', '.join(losses.DIVERGENCES)}."),
        "temperature": (1.0, "Softmax temperature of the soft decisions."),
        "reference_batch_size": (64, "Reference examples drawn, and sent, each round; 0 for all."),
    },
    "Local training": {
        "optimizer": ("sgd", "Optax name, such as sgd, momentum (0.9), adam, adamw."),
        "learning_rate": (0.05, "eta, step size of the optimizer."),
        "learning_rate_schedule": (
            "constant",
            f"{', '.join(schedules.SCHEDULES)}, or inverse_time:TAU with TAU in rounds.",
        ),
        "batch_size": (16, "Private examples of a step; 0 for all that a device holds."),
        "local_steps": (1, "Optimizer steps of a round."),
        "local_epochs": (0, "Passes over a device's own examples in a round, instead of --local_steps."),
    },
    "Output": {
        "output_dir": ("", "Folder to write into, new or empty; default runs/<algorithm>-<dataset>-<time>."),
        "eval_every": (100, "Rounds between evaluations."),
        "target_accuracy": (
            "",
            "Mean accuracies, as in 0.6,0.7; the summary says when and after what bytes each was met.",
        ),
        "checkpoint_every": (0, "Rounds between checkpoints, a multiple of --eval_every; 0 for none."),
        "resume": (False, "Go on from the last checkpoint in --output_dir."),
    },
    "Execution": execution.SECTION,
}


def define(sections: Mapping[str, Mapping[str, tuple]], flag_values: flags.FlagValues) -> None:
    """Defines the flags of `sections` (title → flag → (default, help)); a flag has the type of its default."""
    kinds: dict[type, Callable] = {
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean,
    }
    for section in sections.values():
        for name, (default, text) in section.items():
            kinds[type(default)](name, default, text, flag_values=flag_values)


define(_SECTIONS, FLAGS)


def values() -> dict[str, object]:
    """Every flag as run."""
    return {name: FLAGS[name].value for section in _SECTIONS.values() for name in section}


def _help(summary: str, sections: Mapping[str, Mapping[str, tuple]]) -> str:
    lines = [summary, "", "Flags may also be read from a file: --flagfile=FILE."]
    for title, section in sections.items():
        lines += ["", f"{title}:"]
        for name, (default, text) in section.items():
            shown = (
                f" (default {str(default).lower() if isinstance(default, bool) else default})" if default != "" else ""
            )
            lines += [f"  --{name}", flags.text_wrap(text + shown, 100, "      ")]
    return "\n".join(lines)


def main(
    body: Callable[[], None],
    summary: str,
    argv: Sequence[str] | None = None,
    sections: Mapping[str, Mapping[str, tuple]] = _SECTIONS,
    flag_values: flags.FlagValues = FLAGS,
) -> int:
    """Parses flags and runs `body`; returns the exit code: 0 done, 2 a user's mistake, 3 a loss that is not finite.

    A script with flags of its own names their `sections` and the `flag_values` they are defined in.
    """
    argv = argv or sys.argv
    script = Path(argv[0]).name
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(argv[1:]):
        print(_help(summary, sections))
        return 0
    try:
        rest = flag_values(argv)[1:]
        if rest:
            raise InputError(f"unexpected argument {rest[0]!r}; flags are written --name=value")
        body()
    except ddjax.NonFiniteError as error:
        return _say(script, error, 3)
    except (flags.Error, InputError, OSError, UnicodeError, MemoryError) as error:
        return _say(script, error, 2)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _say(script, "out of memory; take fewer devices, a smaller model or a smaller reference set", 2)
    except KeyboardInterrupt:
        return _say(script, "interrupted; what was written is kept", 130)
    return 0


def _say(script: str, message: object, code: int) -> int:
    print(f"{script}: {' '.join(str(message).split())}", file=sys.stderr)
    return code


class Experiment(NamedTuple):
    """What the flags describe, built."""

    algorithm: ddjax.Algorithm
    problem: ddjax.Problem
    simulation: ddjax.Simulation
    learners: ddjax.Learners
    topology: Topology
    consensus_step_size: float | None


def build() -> Experiment:
    """Builds the experiment of the flags.

    Raises:
      InputError: flags that are wrong, or do not go together.
    """
    _check_numbers()
    if FLAGS.algorithm not in ALGORITHMS:
        raise suggest("algorithm", FLAGS.algorithm, ALGORITHMS)
    for name, users in _BELONGS.items():
        if FLAGS[name].present and FLAGS.algorithm not in users:
            raise InputError(f"--{name} is not used by {FLAGS.algorithm}; it belongs to {', '.join(users)}")
    if FLAGS["local_steps"].present and FLAGS["local_epochs"].present:
        raise InputError("give --local_steps or --local_epochs, not both")
    target_accuracies()
    mixer = _mixer()
    meets = FLAGS.algorithm in ("gossip", *AVERAGING) or (
        FLAGS.algorithm == "distillation" and FLAGS.mixing != "server"
    )
    # What a system without neighbours does not use cannot be wrong.
    spec, weights = (FLAGS.topology, FLAGS.mixing_weights) if meets else ("ring", "")
    network = topology(spec, FLAGS.devices, weights, FLAGS.seed, _weights_needed(mixer), FLAGS.mixing_product)
    if mixer and mixer.fixed_graph and network.changes:
        raise InputError(
            f"choco needs a fixed graph, since neighbours keep copies of one another; {FLAGS.topology!r} changes"
        )
    groups = models.parse_models(FLAGS.models, FLAGS.devices)
    private = FLAGS.devices * (FLAGS.examples_per_device or 100)
    dataset = data.load(
        FLAGS.dataset,
        devices=FLAGS.devices,
        train=private + FLAGS.reference_size if FLAGS.reference_size else private * 4 // 3 + 1,
        seed=FLAGS.seed,
    )
    problem = data.make_problem(
        dataset,
        network.mixing_matrix,
        partition=FLAGS.partition,
        dirichlet_alpha=FLAGS.dirichlet_alpha,
        examples_per_device=FLAGS.examples_per_device,
        reference_size=FLAGS.reference_size,
        eval_examples=FLAGS.eval_examples,
        seed=FLAGS.seed,
    )
    if FLAGS.algorithm == "centralized":
        if len(groups) > 1:
            raise InputError(f"centralized trains one model, but --models={FLAGS.models} names {len(groups)} groups")
        problem, groups = ddjax.centralized(problem), [(groups[0][0], 1)]
    make = _learner_factory(problem, dataset.classes)
    made = [(name, make(name), size) for name, size in groups]
    learners = _learners(
        tuple(
            ddjax.Group(learner, size, FLAGS.device_chunk or chunk_for(name, learner)) for name, learner, size in made
        )
    )
    step_size = _consensus_step_size(network)
    algorithm = _algorithm(learners, problem, step_size, mixer)
    # What does not fit together shows here, before a file is written.
    simulation = ddjax.Simulation(algorithm, problem)
    return Experiment(algorithm, problem, simulation, learners, network, step_size)


def target_accuracies() -> list[float]:
    """What `--target_accuracy` lists."""
    try:
        targets = [float(target) for target in FLAGS.target_accuracy.split(",") if target]
    except ValueError:
        targets = [math.nan]
    if not all(0 < target <= 1 for target in targets):
        raise InputError(f"target_accuracy takes numbers in (0, 1] joined by commas, got {FLAGS.target_accuracy!r}")
    return targets


def _consensus_step_size(network: Topology) -> float | None:
    """`ζ` as given, or picked for the graph: 0.5, or three quarters of the largest stable one where that is less."""
    if FLAGS.algorithm != "distillation" or FLAGS.consensus != "gradient":
        return None
    limit = network.largest_consensus_step_size() if FLAGS.mixing in ("average", "push_sum") else 1.0
    step_size = FLAGS.consensus_step_size or min(0.5, 0.75 * limit)
    if step_size >= limit:
        raise InputError(
            f"consensus_step_size {step_size:g} is unstable here, it must be below {limit:.3g}; take a smaller one"
            + (", or lazy mixing weights" if FLAGS.mixing == "average" else "")
        )
    return step_size


def _mixer() -> ddjax.Mixer | None:
    """What the system mixes by, if it mixes at all."""
    names = AVERAGING | {"distillation": FLAGS.mixing, "fedmd": "server"}
    if FLAGS.algorithm not in names:
        return None
    name = names[FLAGS.algorithm]
    if name not in MIXERS:
        raise suggest("mixing", name, MIXERS)
    if FLAGS["choco_step_size"].present and name != "choco":
        raise InputError("--choco_step_size is of choco; use --algorithm=choco or --mixing=choco")
    if not 0 <= FLAGS.choco_step_size <= 1:
        raise InputError(f"choco_step_size must lie in (0, 1], got {FLAGS.choco_step_size:g}")
    factory = MIXERS[name]
    # A hundredth of the parameters is much, of soft decisions little.
    usual = ("top_k:0.01", 0.04) if FLAGS.algorithm == "choco" else ("top_k:0.1", 0.4)
    known: dict[str, Any] = {
        "compressor": compression.compressor(FLAGS.compressor or usual[0]),
        "step_size": FLAGS.choco_step_size or usual[1],
    }
    wanted = inspect.signature(factory).parameters
    mixer = factory(**{parameter: known[parameter] for parameter in wanted if parameter in known})
    return mixing.encoded(mixer, known["compressor"]) if FLAGS.compressor and "compressor" not in wanted else mixer


def _weights_needed(mixer: ddjax.Mixer | None) -> str:
    """Which sums of the mixing matrix must be 1."""
    if mixer is None:
        return "links"
    fresh = FLAGS.algorithm == "distillation" and FLAGS.consensus == "neighbors" and not mixer.running
    return "row" if fresh else mixer.weights


def _learners(groups: tuple[ddjax.Group, ...]) -> ddjax.Learners:
    batch_size = FLAGS.batch_size * (FLAGS.devices if FLAGS.algorithm == "centralized" else 1)
    return ddjax.Learners(groups, batch_size, FLAGS.local_steps, FLAGS.local_epochs)


def _algorithm(
    learners: ddjax.Learners, problem: ddjax.Problem, step_size: float | None, mixer: ddjax.Mixer | None
) -> ddjax.Algorithm:
    reference_batch_size = FLAGS.reference_batch_size or problem.reference.shape[0]
    match FLAGS.algorithm:
        case "dsgd" | "choco" | "push_sum" if mixer:
            return ddjax.dsgd(learners, mixer)
        case "gossip":
            return ddjax.gossip(learners, message_fraction=FLAGS.message_fraction)
        case "fedavg":
            return ddjax.fedavg(learners, fraction=FLAGS.client_fraction)
        case "dynamic_averaging":
            return ddjax.dynamic_averaging(
                learners, threshold=FLAGS.divergence_threshold, check_every=FLAGS.check_every
            )
        case "fedmd":
            return ddjax.fedmd(learners, reference_batch_size=reference_batch_size, mixer=mixer)
        case "co_regularization":
            if {name for name, _ in models.parse_models(FLAGS.models, FLAGS.devices)} != {"linear"}:
                raise InputError("co_regularization is a closed form for linear models; give --models=linear")
            return ddjax.co_regularization(learners, distillation_weight=FLAGS.distillation_weight)
        case "distillation" if mixer:
            return ddjax.distillation(
                learners,
                mixer,
                reference_batch_size=reference_batch_size,
                consensus=FLAGS.consensus,
                consensus_step_size=schedules.schedule(
                    FLAGS.consensus_step_size_schedule, step_size or 0.0, FLAGS.rounds
                ),
            )
    return ddjax.local(learners)


def _learner_factory(problem: ddjax.Problem, classes: int) -> Callable[[str], ddjax.Learner]:
    if FLAGS.divergence not in losses.DIVERGENCES:
        raise suggest("divergence", FLAGS.divergence, losses.DIVERGENCES)
    rate = schedules.schedule(FLAGS.learning_rate_schedule, FLAGS.learning_rate, FLAGS.rounds)
    steps = _learners(()).steps_per_round(problem.private.shape[1])
    if FLAGS.rounds * steps >= 2**31:
        raise InputError(f"{FLAGS.rounds} rounds of {steps} steps are more than can be counted; take fewer")
    # Optax counts steps; a schedule is over rounds.
    optimizer = supervised.optimizer(FLAGS.optimizer, lambda count: rate(count // steps))
    return lambda name: ddjax.learner(
        models.model(name, problem.x.shape[1:], classes, FLAGS.activation, FLAGS.convolution),
        optimizer,
        distillation_weight=FLAGS.distillation_weight,
        divergence=losses.DIVERGENCES[FLAGS.divergence],
        temperature=FLAGS.temperature,
        micro_batch=FLAGS.micro_batch or models.micro_batch_for(name),
    )


def _check_numbers() -> None:
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
    )
    for name in positive + non_negative:
        value = getattr(FLAGS, name)
        largest = 2**31 - 1 if isinstance(value, int) else sys.float_info.max
        if name == "divergence_threshold" and value == math.inf:
            continue
        if not 0 <= value <= largest or (name in positive and value == 0):
            raise InputError(f"{name} must be {'positive' if name in positive else 'at least 0'}, got {value}")
    if FLAGS.checkpoint_every % FLAGS.eval_every:
        raise InputError(
            f"checkpoint_every {FLAGS.checkpoint_every} is not a multiple of eval_every {FLAGS.eval_every}"
        )
