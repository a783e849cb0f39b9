"""The flags of an experiment, which scripts share, and how a script is started."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from absl import flags

import ddjax
from ddjax import data, schedules
from ddjax.algorithms.distillation import CONSENSUS
from ddjax.errors import InputError
from ddjax.experiments import execution
from ddjax.learning import losses
from ddjax.mixing import compression
from ddjax.mixing.registry import MIXERS
from ddjax.models import architectures
from ddjax.networks.graphs import GRAPHS
from ddjax.networks.topology import CHANGING, MIXING_WEIGHTS

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
BELONGS = {
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
SECTIONS: dict[str, dict[str, tuple]] = {
    "What is run": {
        "algorithm": ("distillation", f"One of {', '.join(ALGORITHMS)}."),
        "rounds": (3000, "Communication rounds."),
        "seed": (0, "Seed of data split, graph, starts and minibatches."),
    },
    "Data": {
        "dataset": (
            "digits",
            "digits; synthetic_classification[:CLASSES[:DIMENSIONS[:HETEROGENEITY]]] (10:60:1 if left out); "
            "synthetic_regression[:DIMENSIONS[:NOISE[:HETEROGENEITY]]] (10:0.1:0.5); or the path of a .csv, or of a "
            ".npz with x_train, y_train, x_test, y_test (integer x are standardized, others not; integer y are labels, "
            "others numbers to predict).",
        ),
        "target_column": (
            "",
            "Of a .csv, the column that is learned: to be predicted if it holds numbers, else labels. The others are "
            "inputs.",
        ),
        "partition": (
            "",
            f"How examples are shared out: {', '.join(data.PARTITIONS)}, or natural (synthetic data). Default "
            "dirichlet, or iid for numbers to predict: dirichlet and shards are by label.",
        ),
        "dirichlet_alpha": (0.5, "Concentration of dirichlet (labels) and quantity (sizes); small is uneven."),
        "examples_per_device": (0, "Mean number of private examples of a device; 0 for all there are."),
        "reference_size": (0, "Examples of the reference set; 0 for a quarter of the training data, at most 2000."),
        "eval_examples": (0, "Test examples of an evaluation; 0 for all."),
    },
    "Devices and network": {
        "devices": (32, "Number of devices."),
        "models": ("mlp", f"{', '.join(architectures.MODELS)}, or groups with counts as in linear:8+mlp:16+cnn:8."),
        "activation": ("gelu", f"One of {', '.join(architectures.ACTIVATIONS)}; the theory asks for a smooth one."),
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
        "consensus": ("gradient", f"Form of the consensus step: {', '.join(CONSENSUS)}."),
        "consensus_step_size": (
            0.0,
            "zeta, step size of the gradient form; 0 for 0.5, or less where the graph asks for it.",
        ),
        "consensus_step_size_schedule": ("constant", "Schedule of zeta, as for --learning_rate_schedule."),
        "distillation_weight": (10.0, "rho, weight of the divergence beside the private loss."),
        "divergence": (
            "squared_euclidean",
            f"Between soft decision and target: {', '.join(losses.DIVERGENCES)}; of numbers the first.",
        ),
        "temperature": (1.0, "Softmax temperature of the soft decisions over classes."),
        "reference_batch_size": (64, "Reference examples drawn, and sent, each round; 0 for all."),
    },
    "Local training": {
        "optimizer": ("sgd", "Optax name, such as sgd, momentum (0.9), adam, adamw."),
        "learning_rate": (0.05, "eta, step size of the optimizer."),
        "learning_rate_schedule": (
            "constant",
            f"One of {schedules.SCHEDULES.usage()}; TAU in rounds, a tenth of the run if left out.",
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
        "tensorboard": (False, "Also write scalars for TensorBoard: pip install -e '.[tensorboard]'."),
    },
    "Execution": execution.SECTION,
}


def define(sections: Mapping[str, Mapping[str, tuple]], flag_values: flags.FlagValues) -> None:
    """Defines the flags of `sections` (title → flag → (default, help)).

    A flag has the type of its default; where that is a list, it may be repeated.
    """
    kinds: dict[type, Callable] = {
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean,
        list: flags.DEFINE_multi_string,
    }
    for section in sections.values():
        for name, (default, text) in section.items():
            kinds[type(default)](name, default, text, flag_values=flag_values)


define(SECTIONS, FLAGS)


def parse(arguments: Sequence[str]) -> flags.FlagValues:
    """Flags of their own, apart from those of the process, from arguments such as `--devices=8`.

    Raises:
      InputError: a flag that there is not, or a value that it does not take.
    """
    given = flags.FlagValues()
    define(SECTIONS, given)
    try:
        given(["", *arguments])
    except flags.Error as error:
        raise InputError(str(error)) from None
    return given


def values(given: flags.FlagValues) -> dict[str, object]:
    """Every flag as run."""
    return {name: given[name].value for section in SECTIONS.values() for name in section}


def meets(given: flags.FlagValues) -> bool:
    """Whether devices exchange anything with neighbours on the graph."""
    return given.algorithm in ("gossip", *AVERAGING) or (given.algorithm == "distillation" and given.mixing != "server")


def unused(given: flags.FlagValues) -> set[str]:
    """Flags that what is run does not look at: other values give the same numbers."""
    algorithm = given.algorithm
    used = {name: algorithm in users for name, users in BELONGS.items()}
    used |= dict.fromkeys(("topology", "mixing_weights", "mixing_product"), meets(given))
    gradient = algorithm == "distillation" and given.consensus == "gradient"
    used |= dict.fromkeys(("consensus_step_size", "consensus_step_size_schedule"), gradient)
    used["distillation_weight"] = algorithm in ("distillation", "fedmd", "co_regularization")
    used["reference_batch_size"] = algorithm in ("distillation", "fedmd")
    used["choco_step_size"] = algorithm == "choco" or (algorithm == "distillation" and given.mixing == "choco")
    used["dirichlet_alpha"] = given.partition in ("", "dirichlet", "quantity")
    used["target_column"] = given.dataset.endswith(".csv")
    used["local_steps"] = not given.local_epochs
    if algorithm == "co_regularization":  # nothing is trained
        used |= dict.fromkeys((*SECTIONS["Local training"], "activation", "micro_batch"), False)
    return {name for name, looked_at in used.items() if not looked_at}


def _help(summary: str, sections: Mapping[str, Mapping[str, tuple]]) -> str:
    lines = [summary, "", "Flags may also be read from a file: --flagfile=FILE."]
    for title, section in sections.items():
        lines += ["", f"{title}:"]
        for name, (default, text) in section.items():
            shown = (
                f" (default {str(default).lower() if isinstance(default, bool) else default})"
                if default not in ("", [])
                else ""
            )
            lines += [f"  --{name}", flags.text_wrap(text + shown, 100, "      ")]
    return "\n".join(lines)


def main(
    body: Callable[..., int | None],
    summary: str,
    argv: Sequence[str] | None = None,
    sections: Mapping[str, Mapping[str, tuple]] = SECTIONS,
    flag_values: flags.FlagValues = FLAGS,
    arguments: str = "",
) -> int:
    """Parses flags and runs `body`; returns the exit code: 0 done, 2 a user's mistake, 3 a loss that is not finite.

    A script with flags of its own names their `sections` and the `flag_values` they are defined in. One that takes
    `arguments` beside flags names them, and its `body` is called with their list.
    """
    argv = argv or sys.argv
    script = Path(argv[0]).name
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(argv[1:]):
        print(_help(summary, sections))
        return 0
    try:
        rest = flag_values(argv)[1:]
        if rest and not arguments:
            raise InputError(f"unexpected argument {rest[0]!r}; flags are written --name=value")
        return (body(rest) if arguments else body()) or 0
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


def _say(script: str, message: object, code: int) -> int:
    print(f"{script}: {' '.join(str(message).split())}", file=sys.stderr)
    return code
