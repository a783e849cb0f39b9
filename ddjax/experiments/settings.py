"""Everything that an experiment can be told."""

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
    """The settings of one experiment; each is a flag of `train.py` of the same name.

    An empty text or a 0 stands for a default that follows from the others, where the help says so. `check` refuses
    values that no experiment can have; `experiments.build` calls it.
    """

    devices: int = _network(32, "Number of devices.", minimum=0, positive=True)
    models: str = _network("mlp", "A model, or groups with counts as in linear:8+mlp:16+cnn:8.", registry=MODELS)
    feature_views: int = _network(
        1,
        "Parts of the columns; the devices of a model are shared out over them, and each sees one.",
        minimum=0,
        positive=True,
    )
    activation: str = _network(
        "gelu", "Activation function; the theory asks for a smooth one.", registry=ACTIVATIONS, shared=True
    )
    topology: str = _network(
        "ring",
        "The graph. An edge file has a line `i j` for each link, directed from i to j; alternating takes fixed graphs "
        "by turns, as in ring+edges:a.txt.",
        registry=TOPOLOGIES,
        shared=True,
    )
    mixing_weights: str = _network(
        "",
        "Weights of the mixing matrix. The default is metropolis_hastings, on directed graphs uniform or, if the "
        "algorithm can do with it, column_uniform or row_uniform.",
        registry=MIXING_WEIGHTS,
        shared=True,
    )

    mixing: str = _mixing(
        "average",
        "How what devices send is mixed: soft decisions (distillation) or parameters (dsgd).",
        registry=MIXERS,
    )
    compressor: str = _mixing(
        "",
        "How messages are compressed; K is a number, or a fraction below 1. The default is none, for choco top_k:0.01 "
        "of parameters and top_k:0.1 of soft decisions.",
        registry=COMPRESSORS,
    )
    choco_step_size: float = _mixing(
        0.0,
        "gamma, consensus step size of choco, up to 1; 0 for 0.04 of parameters and 0.4 of soft decisions, which suit "
        "the default compressors. The gradient form wants it of the order of zeta.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        maximum=1,
    )
    momentum: float = _mixing(0.9, "beta of quasi_global_momentum.", role=Role.HYPERPARAMETER, minimum=0, maximum=1)
    message_fraction: float = _mixing(
        1.0, "Part of the parameters in a message of gossip.", minimum=0, maximum=1, positive=True
    )
    schedule_by_age: bool = _mixing(False, "Whether learning rates of gossip fall over a model's age, not over rounds.")
    push_period: int = _mixing(
        1,
        "Rounds between two pushes of a device of gossip, each at its own turn.",
        unit="rounds",
        minimum=0,
        positive=True,
    )
    message_delay: int = _mixing(
        0,
        "The longest delay of a message of gossip; each is drawn uniformly from 0 to it.",
        unit="rounds",
        minimum=0,
    )
    client_fraction: float = _mixing(
        1.0, "C, part of the devices in a round of fedavg, fedprox and scaffold.", minimum=0, maximum=1, positive=True
    )
    proximal_weight: float = _weight(0.1, "mu, how strongly fedprox pulls devices back to the server's parameters.")
    server_step_size: float = _weight(1.0, "eta_g, the server's step size in scaffold.")
    divergence_threshold: float = _mixing(
        1.0,
        "Delta of dynamic_averaging, a squared distance of parameters.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        maximum=math.inf,
    )
    balancing: str = _mixing("one", "Whom dynamic_averaging polls after a violation.", registry=BALANCING)
    check_every: int = _mixing(
        10, "Rounds between checks of dynamic_averaging.", unit="rounds", minimum=0, positive=True
    )
    ridge: float = _weight(0.0, "nu, weight of a device's squared coefficients in co_regularization and corlsr.")

    consensus: str = _distillation("gradient", "Form of the consensus step.", registry=CONSENSUS)
    consensus_step_size: float = _distillation(
        0.0,
        "zeta, step size of the gradient form; 0 for 0.5, or less where the graph asks for it.",
        role=Role.HYPERPARAMETER,
        minimum=0,
    )
    consensus_step_size_schedule: str = _distillation("constant", "How zeta falls over rounds.", registry=SCHEDULES)
    distillation_weight: float = _distillation(
        10.0, "rho, weight of the divergence beside the private loss.", role=Role.HYPERPARAMETER, minimum=0, shared=True
    )
    divergence: str = _distillation(
        "squared_euclidean",
        "Divergence between soft decision and target; between predicted numbers only squared_euclidean.",
        registry=DIVERGENCES,
    )
    temperature: float = _distillation(
        1.0,
        "Softmax temperature of the soft decisions over classes.",
        role=Role.HYPERPARAMETER,
        minimum=LEAST_TEMPERATURE,
    )
    distillation_epochs: int = _distillation(
        1, "Passes over the reference examples of a round of fedmd, ds_fl and kt_pfl.", minimum=0, positive=True
    )
    pretraining_steps: int = _distillation(
        0,
        "Steps of fedmd on the reference set with its labels, before all else. It must be drawn from the training "
        "data, and only these steps see its labels.",
        unit="steps",
        minimum=0,
    )
    warmup_steps: int = _distillation(
        0,
        "Steps of fedmd on a device's own examples, after the pretraining and before the first exchange.",
        unit="steps",
        minimum=0,
    )
    sharpening_temperature: float = _distillation(
        0.1, "Softmax temperature by which ds_fl sharpens a mean.", role=Role.HYPERPARAMETER, minimum=LEAST_TEMPERATURE
    )
    knowledge_step_size: float = _distillation(
        0.1, "Step size of kt_pfl on its knowledge coefficients.", role=Role.HYPERPARAMETER, minimum=0
    )
    knowledge_penalty: float = _distillation(
        0.5, "How hard kt_pfl holds its knowledge coefficients near 1 / N.", role=Role.HYPERPARAMETER, minimum=0
    )
    homogenize_after: int = _distillation(
        500, "Rounds after which idkd labels the reference set.", unit="rounds", minimum=0, positive=True
    )
    detector: str = _distillation(
        "msp",
        "Which reference examples a device of idkd labels: by their largest probability (msp) or their energy, above a "
        "threshold that is given, or that tells its own examples best from the others (roc).",
        registry=DETECTORS,
    )
    confidence_threshold: float = _distillation(
        0.98,
        "The largest probability of an example above which msp has it labelled.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        maximum=1,
    )
    reference_batch_size: int = _distillation(
        64,
        "Reference examples drawn, and sent, each round, at most the reference set; 0 for all.",
        unit="examples",
        minimum=0,
        shared=True,
    )

    optimizer: str = _training("sgd", "The optimizer, by its Optax name.", registry=OPTIMIZERS, shared=True)
    learning_rate: float = _training(
        0.0,
        "eta, step size of the optimizer; 0 for 0.05, or where numbers are predicted for less if the data ask for it.",
        role=Role.HYPERPARAMETER,
        minimum=0,
        shared=True,
    )
    learning_rate_schedule: str = _training(
        "constant",
        "How the learning rate falls over rounds; TAU is in rounds, a tenth of the run if left out.",
        registry=SCHEDULES,
        shared=True,
    )
    prior_adjustment: float = _training(
        0.0,
        "tau: the private loss takes logits shifted by tau times the logarithms of the device's class shares, so that "
        "a device does not learn that classes it lacks are rare; 1 is the balanced softmax.",
        minimum=0,
        shared=True,
    )
    batch_size: int = _training(
        16, "Private examples of a step; 0 for all that a device holds.", unit="examples", minimum=0, shared=True
    )
    local_steps: int = _training(1, "Optimizer steps of a round.", minimum=0, positive=True, shared=True)
    local_epochs: int = _training(
        0, "Passes over a device's own examples in a round, instead of --local_steps.", minimum=0, shared=True
    )

    output_dir: str = _output(
        "", "Folder to write into, new or empty; default runs/<algorithm>-<dataset>-<time>.", sweep=Sweep.NEVER
    )
    eval_every: int = _output(
        100, "Rounds between evaluations.", role=Role.EVALUATION, unit="rounds", minimum=0, positive=True
    )
    target_accuracy: str = _output(
        "",
        "Mean accuracies, as in 0.6,0.7; the summary says when and after what bytes each was met.",
        sweep=Sweep.WHOLE,
    )
    checkpoint_every: int = _output(
        0,
        "Rounds between checkpoints, a multiple of --eval_every; 0 for none.",
        unit="rounds",
        minimum=0,
        sweep=Sweep.NEVER,
    )
    resume: bool = _output(False, "Go on from the last checkpoint in --output_dir.", sweep=Sweep.NEVER)
    tensorboard: bool = _output(
        False,
        "Also write scalars, settings, scores of devices and figures for TensorBoard: pip install -e '.[tensorboard]'.",
        sweep=Sweep.WHOLE,
    )

    device_chunk: int = _execution(
        0,
        "Devices vectorized at a time on one accelerator; 0 picks for the model and backend.",
        unit="devices",
        minimum=0,
    )
    mixing_product: str = _execution(
        "",
        "How W is multiplied by: dense, as a matrix; gather, link by link; or, on a ring and its kin, shift, hop "
        "by hop; default the quickest for graph, message, backend and mesh.",
        role=Role.PROGRAM,
        shared=True,
    )
    convolution: str = _execution(
        "",
        "products, made of matrix products, or native, the backend's own; default products on CPU, else native.",
        role=Role.PROGRAM,
    )
    micro_batch: int = _execution(
        0,
        "Examples that go forward and backward at a time; 0 picks for the model and backend.",
        role=Role.PROGRAM,
        unit="examples",
        minimum=0,
        shared=True,
    )
    precision: str = _execution(
        "float32",
        "Precision of products in training: float32, tf32 or bfloat16, with consensus in float32; or float64, of "
        "everything.",
        role=Role.PROGRAM,
    )
    host_devices: int = _execution(
        0, "Shards of the device axis on a CPU; 0 for as many as cores.", minimum=0, sweep=Sweep.WHOLE
    )
    coordinator_address: str = _execution(
        "",
        "host:port of process 0, where several run as one; auto where JAX finds it by itself (Slurm, Open MPI, …).",
        sweep=Sweep.NEVER,
    )
    num_processes: int = _execution(0, "How many processes run as one.", sweep=Sweep.NEVER)
    process_id: int = _execution(
        -1, "Which of them this is, from 0; process 0 writes the files, the others are silent.", sweep=Sweep.NEVER
    )

    def check(self) -> None:
        """Refuses values that no experiment can have.

        Raises:
          InputError: the first of them.
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
        """The mean accuracies that `target_accuracy` lists; raises `InputError` where it lists something else."""
        return parse_accuracies(self.target_accuracy)

    def values(self) -> dict[str, Any]:
        """Every setting by its name, as JSON takes it."""
        kinds = {name: field.kind for name, field in fields(self).items()}
        return {name: list(value) if kinds[name] is tuple else kinds[name](value) for name, value in vars(self).items()}
