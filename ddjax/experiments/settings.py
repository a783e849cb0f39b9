"""Settings of an experiment, one field per flag."""

import dataclasses
import math
from functools import partial
from typing import Any

from ddjax.algorithms import CONSENSUS, DETECTORS
from ddjax.algorithms.dynamic_averaging import BALANCING
from ddjax.errors import InputError
from ddjax.experiments.accuracies import parse_accuracies
from ddjax.experiments.fields import Role, Sweep, fields, setting
from ddjax.experiments.problem_settings import ProblemSettings
from ddjax.learning import DIVERGENCES, LEAST_TEMPERATURE, OPTIMIZERS
from ddjax.mixing import COMPRESSORS, MIXERS
from ddjax.models import ACTIVATIONS, MODELS
from ddjax.networks import MIXING_WEIGHTS, TOPOLOGIES
from ddjax.schedules import SCHEDULES

_network = partial(setting, section="Devices and network", role=Role.PROGRAM)
_mixing = partial(setting, section="Mixing and other algorithms", role=Role.PROGRAM)
_weight = partial(_mixing, role=Role.HYPERPARAMETER, minimum=0)
_distillation = partial(setting, section="Distillation", role=Role.PROGRAM)
_training = partial(setting, section="Local training", role=Role.PROGRAM)
_output = partial(setting, section="Output", role=Role.OUTPUT)
_execution = partial(setting, section="Execution", role=Role.EXECUTION)


@dataclasses.dataclass(frozen=True)
class Settings(ProblemSettings):
    """Settings of one experiment; each is a flag of `train.py` with the same name.

    Where the help says so, an empty text or 0 means a default that follows from other settings. `experiments.build`
    calls `check`, which refuses values that no experiment can have.
    """

    devices: int = _network(32, "N: number of devices.", minimum=0, positive=True)
    models: str = _network(
        "mlp", "Model of every device, or groups with counts, as in linear:8+mlp:16+cnn:8.", registry=MODELS
    )
    feature_views: int = _network(
        1,
        "Number of parts into which the input columns are split. Each device sees one part; devices with the same "
        "model are divided among the parts.",
        minimum=0,
        positive=True,
    )
    activation: str = _network(
        "gelu",
        "Activation function; the theory requires a smooth one.",
        registry=ACTIVATIONS,
        shared=True,
    )
    topology: str = _network(
        "ring",
        "Communication graph. An edge file has one line `i j` per link; in directed_edges, the link goes from i to j. "
        "alternating uses fixed graphs in turn, as in alternating:ring+edges:a.txt.",
        registry=TOPOLOGIES,
        shared=True,
    )
    mixing_weights: str = _network(
        "",
        "Weights of the mixing matrix W. Default: metropolis_hastings; on directed graphs uniform, or column_uniform "
        "or row_uniform if the algorithm allows these.",
        registry=MIXING_WEIGHTS,
        shared=True,
    )

    mixing: str = _mixing(
        "average",
        "Mixer of the values that devices send: soft decisions (distillation) or parameters (dsgd, local_dsgd, "
        "exact_diffusion, gradient_tracking, idkd, quasi_global_momentum).",
        registry=MIXERS,
    )
    compressor: str = _mixing(
        "",
        "Compressor of messages (server_distillation, choco, push_sum, the systems of --mixing). K is a number or, "
        "below 1, a fraction of entries. Default: none; choco has top_k:0.01 (parameters), top_k:0.1 (soft decisions).",
        registry=COMPRESSORS,
    )
    choco_step_size: float = _mixing(
        0.0,
        "γ: consensus step size of choco, at most 1; with --consensus=gradient, it should be of the order of ζ. 0 "
        "means 0.04 for parameters and 0.4 for soft decisions, which suit the default compressors.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        maximum=1,
    )
    momentum: float = _mixing(0.9, "β in quasi_global_momentum.", role=Role.HYPERPARAMETER, minimum=0, maximum=1)
    message_fraction: float = _mixing(
        1.0, "Fraction of the parameters in each message of gossip.", minimum=0, maximum=1, positive=True
    )
    schedule_by_age: bool = _mixing(
        False, "Whether the learning rate schedule of gossip depends on the age of the model instead of the round."
    )
    push_period: int = _mixing(
        1,
        "Rounds between two pushes of a device in gossip; the first push of each device is in a random round.",
        unit="rounds",
        minimum=0,
        positive=True,
    )
    message_delay: int = _mixing(
        0,
        "Longest delay of a message in gossip; each delay is drawn uniformly from 0 to this number.",
        unit="rounds",
        minimum=0,
    )
    client_fraction: float = _mixing(
        1.0,
        "C: fraction of the devices that take part in a round of fedavg, fedprox or scaffold.",
        minimum=0,
        maximum=1,
        positive=True,
    )
    proximal_weight: float = _weight(
        0.1, "μ: strength with which fedprox pulls devices back to the server's parameters."
    )
    server_step_size: float = _weight(1.0, "η_g: server's step size in scaffold.")
    divergence_threshold: float = _mixing(
        1.0,
        "Δ: squared distance from the last common parameters beyond which a device of dynamic_averaging reports a "
        "violation.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        maximum=math.inf,
    )
    balancing: str = _mixing("one", "Devices that dynamic_averaging polls after a violation.", registry=BALANCING)
    check_every: int = _mixing(
        10, "Rounds between two checks of dynamic_averaging.", unit="rounds", minimum=0, positive=True
    )
    ridge: float = _weight(0.0, "ν: weight of the squared coefficients of each device in co_regularization and corlsr.")

    consensus: str = _distillation("gradient", "Form of the consensus step in distillation.", registry=CONSENSUS)
    consensus_step_size: float = _distillation(
        0.0,
        "ζ: step size of --consensus=gradient; 0 means 0.5, or less if the graph requires it.",
        role=Role.HYPERPARAMETER,
        minimum=0,
    )
    consensus_step_size_schedule: str = _distillation(
        "constant", "How ζ falls over the rounds; TAU, in rounds, defaults to a tenth of the run.", registry=SCHEDULES
    )
    distillation_weight: float = _distillation(
        10.0,
        "ρ: weight of the divergence relative to the private loss (distillation, server_distillation, "
        "co_regularization, corlsr).",
        role=Role.HYPERPARAMETER,
        minimum=0,
        shared=True,
    )
    divergence: str = _distillation(
        "squared_euclidean",
        "Divergence between soft decision and target in distillation and server_distillation; regression allows only "
        "squared_euclidean.",
        registry=DIVERGENCES,
    )
    temperature: float = _distillation(
        1.0,
        "Softmax temperature of the soft decisions (classification only).",
        role=Role.HYPERPARAMETER,
        minimum=LEAST_TEMPERATURE,
    )
    distillation_epochs: int = _distillation(
        1, "Passes over the reference examples of a round in fedmd, ds_fl and kt_pfl.", minimum=0, positive=True
    )
    pretraining_steps: int = _distillation(
        0,
        "Steps of fedmd on the labelled reference set, before everything else. The reference set must be drawn from "
        "the training data; only these steps see its labels.",
        unit="steps",
        minimum=0,
    )
    warmup_steps: int = _distillation(
        0,
        "Steps of fedmd on each device's own examples, after the pretraining and before the first exchange.",
        unit="steps",
        minimum=0,
    )
    sharpening_temperature: float = _distillation(
        0.1,
        "Softmax temperature with which ds_fl sharpens the mean soft decision.",
        role=Role.HYPERPARAMETER,
        minimum=LEAST_TEMPERATURE,
    )
    knowledge_step_size: float = _distillation(
        0.1, "Step size of kt_pfl for its knowledge coefficients.", role=Role.HYPERPARAMETER, minimum=0
    )
    knowledge_penalty: float = _distillation(
        0.5,
        "Weight of the penalty that keeps the knowledge coefficients of kt_pfl near 1 / N.",
        role=Role.HYPERPARAMETER,
        minimum=0,
    )
    homogenize_after: int = _distillation(
        500, "Rounds after which idkd labels the reference set.", unit="rounds", minimum=0, positive=True
    )
    detector: str = _distillation(
        "msp",
        "How a device of idkd picks the reference examples that it labels: by their largest probability (msp, "
        "msp_roc) or energy (energy_roc). The threshold is --confidence_threshold for msp; otherwise, it is the value "
        "that best separates the device's own examples from the reference examples.",
        registry=DETECTORS,
    )
    confidence_threshold: float = _distillation(
        0.98,
        "Threshold of --detector=msp: idkd labels an example if its largest probability is above this number.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        maximum=1,
    )
    reference_batch_size: int = _distillation(
        64,
        "b: reference examples drawn and sent per round (distillation, server_distillation, fedmd, ds_fl, kt_pfl), at "
        "most the whole reference set; 0 means all.",
        unit="examples",
        minimum=0,
        shared=True,
    )

    optimizer: str = _training("sgd", "Optimizer, by its Optax name.", registry=OPTIMIZERS, shared=True)
    learning_rate: float = _training(
        0.0,
        "η: step size of the optimizer; 0 means 0.05, or less for regression if the data require it.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        shared=True,
    )
    learning_rate_schedule: str = _training(
        "constant",
        "How η falls over the rounds; TAU, in rounds, defaults to a tenth of the run.",
        registry=SCHEDULES,
        shared=True,
    )
    prior_adjustment: float = _training(
        0.0,
        "τ: the private loss adds τ times the logarithms of a device's class shares to the logits, so that the device "
        "does not learn that a class that it lacks is rare; 1 gives the balanced softmax.",
        minimum=0,
        shared=True,
    )
    batch_size: int = _training(
        16, "Private examples per step; 0 means all examples of the device.", unit="examples", minimum=0, shared=True
    )
    local_steps: int = _training(1, "Optimizer steps per round.", minimum=0, positive=True, shared=True)
    local_epochs: int = _training(
        0,
        "Passes over the device's own examples per round, instead of --local_steps; 0 means to use --local_steps.",
        minimum=0,
        shared=True,
    )

    output_dir: str = _output(
        "", "New or empty folder for the results; default runs/<algorithm>-<dataset>-<time>.", sweep=Sweep.NEVER
    )
    eval_every: int = _output(
        100, "Rounds between two evaluations.", role=Role.EVALUATION, unit="rounds", minimum=0, positive=True
    )
    target_accuracy: str = _output(
        "",
        "Comma-separated mean accuracies, as in 0.6,0.7; the summary says when each was reached and after how many "
        "bytes.",
        sweep=Sweep.WHOLE,
    )
    checkpoint_every: int = _output(
        0,
        "Rounds between two checkpoints, a multiple of --eval_every; 0 means no checkpoints.",
        unit="rounds",
        minimum=0,
        sweep=Sweep.NEVER,
    )
    resume: bool = _output(False, "Whether to continue from the last checkpoint in --output_dir.", sweep=Sweep.NEVER)
    tensorboard: bool = _output(
        False,
        "Whether to also write scalars, settings, scores of devices and figures for TensorBoard; needs "
        "pip install -e '.[tensorboard]'.",
        sweep=Sweep.WHOLE,
    )

    device_chunk: int = _execution(
        0,
        "Devices that one accelerator trains at the same time, vectorized; 0 picks a number for the model and backend.",
        unit="devices",
        minimum=0,
    )
    mixing_product: str = _execution(
        "",
        "How to multiply by W: dense (as a matrix), gather (link by link) or, on a ring and similar graphs, shift "
        "(hop by hop). Default: the fastest for the graph, message, backend and mesh.",
        role=Role.PROGRAM,
        shared=True,
    )
    convolution: str = _execution(
        "",
        "How to compute convolutions: products (as matrix products) or native (by the backend). Default: products on "
        "CPU, otherwise native.",
        role=Role.PROGRAM,
    )
    micro_batch: int = _execution(
        0,
        "Examples in one forward and backward pass; 0 picks a number for the model and backend.",
        role=Role.PROGRAM,
        unit="examples",
        minimum=0,
        shared=True,
    )
    precision: str = _execution(
        "float32",
        "Precision of matrix products in training: float32, tf32 or bfloat16, with the consensus in float32; or "
        "float64 for everything.",
        role=Role.PROGRAM,
    )
    host_devices: int = _execution(
        0, "Number of parts into which a CPU is divided; 0 means one per core.", minimum=0, sweep=Sweep.WHOLE
    )
    coordinator_address: str = _execution(
        "",
        "Address host:port of process 0, if several processes share a run; auto if JAX finds the address by itself "
        "(Slurm, Open MPI, …).",
        sweep=Sweep.NEVER,
    )
    num_processes: int = _execution(0, "Number of processes that share the run.", sweep=Sweep.NEVER)
    process_id: int = _execution(
        -1, "Number of this process, from 0; process 0 writes the files, and the others are silent.", sweep=Sweep.NEVER
    )

    def check(self) -> None:
        """Refuse values that no experiment can have.

        Raises:
          InputError: a value has the wrong type or is out of bounds, or two settings contradict each other.
        """
        for name, field in fields(self).items():
            field.check(getattr(self, name))
        if self.checkpoint_every % self.eval_every:
            raise InputError(
                f"checkpoint_every {self.checkpoint_every} is not a multiple of eval_every {self.eval_every}"
            )
        if self.local_steps != 1 and self.local_epochs:
            raise InputError("give --local_steps or --local_epochs, not both")
        self.target_accuracies()

    def target_accuracies(self) -> list[float]:
        """Parse the mean accuracies of `target_accuracy`; raise `InputError` for any other text."""
        return parse_accuracies(self.target_accuracy)

    def values(self) -> dict[str, Any]:
        """Return every setting by its name, in types that JSON supports."""
        kinds = {name: field.kind for name, field in fields(self).items()}
        return {name: list(value) if kinds[name] is tuple else kinds[name](value) for name, value in vars(self).items()}
