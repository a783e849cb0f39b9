"""Settings of the system to run and of its data."""

import dataclasses
from functools import partial

from ddjax.algorithms import ALGORITHMS
from ddjax.data import DATASETS, PARTITIONS, SHIFTS
from ddjax.experiments.fields import Role, Sweep, setting

_run = partial(setting, section="Run", role=Role.PROGRAM)
_data = partial(setting, section="Data", role=Role.PROGRAM)


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """Settings of the system to run and of its data; see `Settings`."""

    algorithm: str = _run("distillation", "System to run.", registry=ALGORITHMS)
    rounds: int = _run(3000, "Number of communication rounds.", minimum=0)
    seed: int = _run(
        0, "Seed of the data split, the graph, the initial parameters and the minibatches.", role=Role.SEED, minimum=0
    )
    include: tuple[str, ...] = _run(
        (),
        "Python file that registers your own algorithms, mixers, topologies, models, …; may be repeated.",
        role=Role.EXECUTION,  # a run is identified by the contents of the file, not by its path
        sweep=Sweep.WHOLE,
    )

    dataset: str = _data(
        "digits",
        "Data set: a name, or the path of a file or folder. A .npz holds x_train, y_train, x_test and y_test; IDX "
        "is the format of MNIST's files.",
        registry=DATASETS,
    )
    target_column: str = _data("", "Column of a .csv that holds the targets; the other columns are inputs.")
    ignore_columns: str = _data("", "Columns of a .csv that are not inputs, joined by +, as in id+name.")
    input_key: str = _data(
        "",
        "Input feature of a tfds data set, or several features joined by +; or the .csv column whose texts are the "
        "inputs.",
    )
    target_key: str = _data("", "Feature of a tfds data set that holds the targets.")
    data_dir: str = _data("", "Folder of tfds data sets; default ~/tensorflow_datasets.")
    encoding: str = _data("", "Text encoding of a .csv, such as cp1252; default UTF-8.")
    comment: str = _data("", "Text, such as #; lines of a .csv that begin with this text are skipped.")
    sample_rate: int = _data(
        0,
        "Sample rate of the sounds in a .npz or a tfds data set, which become log-mel spectrograms; 0 uses the rate "
        "that is stored with the data, if there is one.",
        unit="hertz",
        minimum=0,
    )
    task: str = _data(
        "",
        "classification or regression. By default, texts and integers are classes. Floating-point numbers and the "
        "numbers of a table are classes if they are 0 to K - 1, 1 to K, or -1 and 1; otherwise, they are regression "
        "targets.",
    )
    standardize: str = _data(
        "",
        "How inputs are brought to unit scale: columns (each column by itself), whole (one mean and deviation for all) "
        "or none. By default, tables are scaled by column and pixels as a whole; other floating-point inputs are "
        "scaled only if they are far from unit scale.",
        role=Role.DATA,
    )
    partition: str = _data(
        "",
        "How training examples are divided among the devices; dirichlet and shards divide them by label. Default: "
        "dirichlet for classes, iid for regression.",
        role=Role.DATA,
        registry=PARTITIONS,
    )
    dirichlet_alpha: float = _data(
        0.5,
        "Concentration of the partitions dirichlet (labels) and quantity (sizes); smaller values divide more unevenly.",
        role=Role.DATA,
        shared=True,
    )
    feature_shift: str = _data(
        "",
        "Shift of the inputs that differs from device to device; each test and reference example gets the shift of a "
        "random device.",
        role=Role.DATA,
        registry=SHIFTS,
    )
    examples_per_device: int = _data(
        0, "Mean number of private examples per device; 0 means all.", unit="examples", minimum=0
    )
    reference_size: int = _data(
        0,
        "Number of reference examples; 0 means a quarter of the training data, at most 2000.",
        unit="examples",
        minimum=0,
    )
    reference_dataset: str = _data(
        "",
        "Source of the reference set: noise, or another data set with inputs of the same kind; default: the training "
        "data.",
    )
    reference_classes: str = _data(
        "", "Classes to which the reference set is limited, joined by +; default: all.", role=Role.DATA
    )
    reference_alpha: float = _data(
        0.0,
        "Dirichlet concentration of the class shares in the reference set; smaller values make the shares "
        "more uneven, and 0 keeps the shares of the data.",
        role=Role.DATA,
        minimum=0,
    )
    reference_known: float = _data(
        1.0,
        "Share of the reference set that each device knows, drawn separately per device (distillation, "
        "server_distillation); for other examples, a device only passes on what it receives.",
        role=Role.DATA,
        minimum=0,
        maximum=1,
        positive=True,
        shared=True,
    )
    validation_examples: int = _data(
        0,
        "Number of training examples held out, so that settings can be chosen without the test set.",
        unit="examples",
        minimum=0,
    )
    evaluate_on: str = _data(
        "test",
        "Examples on which devices are evaluated: test, or validation (those of --validation_examples).",
        role=Role.EVALUATION,
    )
    eval_examples: int = _data(
        0,
        "Number of examples that each evaluation uses; 0 means all.",
        role=Role.EVALUATION,
        unit="examples",
        minimum=0,
    )
