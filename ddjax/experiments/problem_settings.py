"""What is run, and on what data."""

import dataclasses
from functools import partial

from ddjax.algorithms import ALGORITHMS
from ddjax.data import DATASETS, PARTITIONS, SHIFTS
from ddjax.experiments.fields import Role, Sweep, setting

_run = partial(setting, section="What is run", role=Role.PROGRAM)
_data = partial(setting, section="Data", role=Role.PROGRAM)


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """The settings of what is run and of its data; see `Settings`."""

    algorithm: str = _run("distillation", "What is run.", registry=ALGORITHMS)
    rounds: int = _run(3000, "Communication rounds.", minimum=0)
    seed: int = _run(0, "Seed of data split, graph, starts and minibatches.", role=Role.SEED, minimum=0)
    include: tuple[str, ...] = _run(
        (),
        "A Python file of yours that registers algorithms, mixers, topologies, models, …; may be repeated.",
        role=Role.EXECUTION,  # a run is known by the contents of the file, not by its path
        sweep=Sweep.WHOLE,
    )

    dataset: str = _data(
        "digits",
        "A name, or the path of a file or folder: .npz with x_train, y_train, x_test, y_test; .csv; LIBSVM; IDX files "
        "as of MNIST; a folder of images for each class.",
        registry=DATASETS,
    )
    target_column: str = _data("", "The column of a .csv that is learned. The others are inputs.")
    ignore_columns: str = _data("", "Columns of a .csv that are no inputs, joined by +, as in id+name.")
    input_key: str = _data(
        "",
        "The feature of tfds that is the input, or several joined by +; the column of a .csv with texts to learn from.",
    )
    target_key: str = _data("", "The feature of tfds that is learned.")
    data_dir: str = _data("", "The folder of tfds; default ~/tensorflow_datasets.")
    encoding: str = _data("", "Of a .csv, such as cp1252; default UTF-8.")
    comment: str = _data("", "What begins a line of a .csv that is skipped, such as #.")
    sample_rate: int = _data(
        0, "In hertz, where inputs are sounds; they become log-mel spectrograms.", unit="hertz", minimum=0
    )
    task: str = _data(
        "",
        "classification or regression; by default texts, integers, and floating-point numbers 0 to K - 1 or 1 to K are "
        "classes (of a .csv, too), and other numbers are predicted.",
    )
    standardize: str = _data(
        "",
        "How inputs are brought to unit scale: columns, whole (one mean and deviation) or none. By default tables by "
        "column and pixels as a whole; other floating-point inputs only where they are far from unit scale.",
        role=Role.DATA,
    )
    partition: str = _data(
        "",
        "How examples are shared out. The default is dirichlet, or iid where there are numbers to predict: dirichlet "
        "and shards are by label.",
        role=Role.DATA,
        registry=PARTITIONS,
    )
    dirichlet_alpha: float = _data(
        0.5,
        "Concentration of dirichlet (labels) and quantity (sizes); a small one is uneven.",
        role=Role.DATA,
        shared=True,
    )
    feature_shift: str = _data(
        "",
        "How each device sees its inputs differently; test and reference examples are seen as by random devices.",
        role=Role.DATA,
        registry=SHIFTS,
    )
    examples_per_device: int = _data(
        0, "Mean number of private examples per device; 0 for all there are.", unit="examples", minimum=0
    )
    reference_size: int = _data(
        0,
        "Examples of the reference set; 0 for a quarter of the training data, at most 2000.",
        unit="examples",
        minimum=0,
    )
    reference_dataset: str = _data(
        "",
        "Where the reference set comes from: noise, or another data set with such inputs; default the training data.",
    )
    reference_classes: str = _data("", "The only classes of the reference set, joined by +.", role=Role.DATA)
    reference_alpha: float = _data(
        0.0,
        "Dirichlet concentration of class shares in the reference set, small is uneven; 0 for those of the data.",
        role=Role.DATA,
        minimum=0,
    )
    reference_known: float = _data(
        1.0,
        "Share of the reference set that a device knows, drawn for each; the others pass on what they do not know.",
        role=Role.DATA,
        minimum=0,
        maximum=1,
        positive=True,
        shared=True,
    )
    validation_examples: int = _data(
        0,
        "Examples held out of the training data, to choose settings by without the test set.",
        unit="examples",
        minimum=0,
    )
    evaluate_on: str = _data("test", "test, or validation: the --validation_examples.", role=Role.EVALUATION)
    eval_examples: int = _data(
        0, "Test examples of an evaluation; 0 for all.", role=Role.EVALUATION, unit="examples", minimum=0
    )
