"""Reader of data sets that TensorFlow Datasets has prepared; the reader does not need TensorFlow."""

import contextlib
import io
import logging
from typing import Any, NamedTuple

import numpy as np

from ddjax.data.dataset import Column, Dataset, unlabeled
from ddjax.data.labels import listed, read_targets
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.data.sounds import log_mel, padded
from ddjax.data.splits import note, split
from ddjax.data.tokens import tokenize
from ddjax.errors import InputError, suggest
from ddjax.registry import Argument

_CUT = 0.95  # share of the training sounds that are not cut
_HELD_OUT = ("test", "validation", "val", "dev")


class _Examples(NamedTuple):
    """Examples of one split.

    Attributes:
      inputs: name of each input feature → its values.
      targets: target of each example; empty if no target was requested.
      owners: owner of each example; empty if no owner was requested.
    """

    inputs: dict[str, list[Any]]
    targets: list[Any]
    owners: list[Any]


def read_tfds(wanted: Wanted, name: str) -> Dataset:
    """Read a data set that TensorFlow Datasets has prepared in a format with random access (ArrayRecord).

    The input and the target are the supervised keys of the data set, or the features that `input_key` and `target_key`
    name. Several numeric features, joined by `+` in `input_key`, are the columns of a table. The test set is the first
    of the splits `test`, `validation`, `val` and `dev` whose labels are not hidden (−1). If there is no such split, a
    fifth of `train` is drawn for testing.

    All images must have the same size. Texts become token ids (see `tokens.tokenize`). Sounds are cut or padded to the
    length that 95 % of the training sounds do not exceed, and become log-mel spectrograms (see `sounds.log_mel`).

    Args:
      wanted: settings; `data_dir` is the folder of prepared data sets, by default `~/tensorflow_datasets`.
      name: name of the data set, `NAME[/CONFIG][:VERSION]`.

    Raises:
      InputError: the data set is not prepared (the message says how to prepare it), or a feature is unsuitable.
    """
    builder = _builder(wanted, name)
    info = builder.info
    inputs, target = _keys(wanted, name, info)
    features = info.features
    splits = list(info.splits)
    train = "train" if "train" in splits else splits[0]
    if train != "train" and len(splits) > 1:
        raise InputError(f"tfds:{name} has no split 'train'; it has {', '.join(splits)}")
    if wanted.unlabeled:
        found = _read(builder, train, inputs, "", "").inputs
        made = _inputs(wanted, name, features, found, {key: values[:1] for key, values in found.items()})
        return unlabeled(made.x_train, tokens=made.tokens, columns=made.columns, notes=made.notes)
    keys = (inputs, target, wanted.owner_key)
    if wanted.owner_key and wanted.owner_key not in features:
        raise suggest(f"feature of tfds:{name}", wanted.owner_key, features)
    here = _read(builder, train, *keys)
    notes: tuple[str, ...] = ()
    held_out = None
    for each in filter(splits.__contains__, _HELD_OUT):
        read = _read(builder, each, *keys)
        if not all(np.array_equal(target, -1) for target in read.targets):
            notes += (f"the test set is split {each!r}",) if each != "test" else ()
            held_out = read
            break
        if read.targets:
            notes += (f"the labels of split {each!r} are hidden (−1)",)
    if held_out is None:
        notes += (note(len(here.targets)),)
        rows, tests = split(len(here.targets), wanted.seed)
        here, held_out = _taken(here, rows), _taken(here, tests)
    if not here.targets or not held_out.targets:
        raise InputError(
            f"tfds:{name} has {len(here.targets)} training examples and {len(held_out.targets)} test examples; at "
            "least one of each is needed"
        )
    known = getattr(features[target], "names", None)
    for part, examples in ((train, here), ("the test split", held_out)):
        if known and (without := sum(int(label) < 0 for label in examples.targets)):
            raise InputError(
                f"tfds:{name}: {without} of {len(examples.targets)} examples of {part} have no label (−1); use a "
                "configuration in which all examples have labels"
            )

    def named(values: list[Any]) -> np.ndarray:
        return np.array([_text(known[value] if known else value) for value in values])

    y, y_test, outputs, classes, more = read_targets(
        named(here.targets), named(held_out.targets), (f"tfds:{name}, {target!r} of {train}", f"{target!r} of test"),
        wanted.task,
    )  # fmt: skip
    if known and set(classes) == set(known):  # keep the order of the classes in the data set
        order = np.argsort([known.index(each) for each in classes])
        place = np.argsort(order).astype(np.int32)
        y, y_test, classes = place[y], place[y_test], tuple(known)
    owner: np.ndarray | None = None
    owners: tuple[str, ...] = ()
    if wanted.owner_key:
        names, owner = np.unique([_text(each) for each in here.owners], return_inverse=True)
        owners = tuple(map(str, names))
    made = _inputs(wanted, name, features, here.inputs, held_out.inputs)
    return made._replace(
        y_train=y, y_test=y_test, outputs=outputs, classes=classes, owner=owner, owners=owners,
        notes=(*notes, *made.notes, *more),
    )  # fmt: skip


def _builder(wanted: Wanted, name: str) -> Any:
    """Return the builder of a prepared data set."""
    with _quiet() as said:
        import tensorflow_datasets as tfds

        plain, _, version = name.partition(":")
        where = wanted.data_dir or str(tfds.core.constants.DATA_DIR)
        prepare = f"tfds build {plain} --file_format=array_record --data_dir={where}"
        remedy = (
            f"prepare it with `{prepare}`, which needs the network and TensorFlow (pip install -e '.[tfds-prepare]')"
        )
        try:
            builder = tfds.builder(name, data_dir=wanted.data_dir or None)
        except tfds.core.DatasetNotFoundError:
            raise InputError(
                f"tfds:{name} is not in {where}, and TensorFlow Datasets does not know "
                f"{'this version of it' if version else 'it'} either; check its name and --data_dir"
            ) from None
        except ImportError as error:
            raise InputError(f"tfds:{name} cannot be read without another package: {error}; {remedy}") from None
        except Exception as error:  # data sets raise many types of exceptions
            raise InputError(f"tfds:{name} cannot be read: {_line(error, said)}") from None
        if not builder.info.splits:
            manual = getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None)
            by_hand = f"; some files must be downloaded by hand: {' '.join(manual.split())}" if manual else ""
            raise InputError(f"tfds:{name} is not prepared in {where}; {remedy}{by_hand}")
        try:
            builder.as_data_source(split=next(iter(builder.info.splits)))
        except NotImplementedError:
            raise InputError(
                f"tfds:{name} is prepared in {builder.data_path} as {builder.info.file_format.value}, which does not "
                f"allow random access; prepare the data set in another folder with `{prepare}`"
            ) from None
        except Exception as error:
            raise InputError(f"tfds:{name} cannot be read: {_line(error, said)}") from None
    return builder


@contextlib.contextmanager
def _quiet() -> Any:
    """Catch the output of TensorFlow Datasets and silence its log."""
    said, level = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield said
    finally:
        logging.disable(level)


def _line(error: Exception, said: io.StringIO) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _keys(wanted: Wanted, name: str, info: Any) -> tuple[list[str], str]:
    """Return the names of the input features and of the target."""
    features, known = info.features, info.supervised_keys
    inputs, target = [each for each in wanted.input_key.split("+") if each], wanted.target_key
    if known and len(known) >= 2:
        if not inputs:
            first = known[0]
            inputs = list(first) if isinstance(first, dict | list | tuple) else [first]
        target = target or (known[1] if isinstance(known[1], str) else "")
    held = f"its features are {listed([f'{key} ({type(each).__name__})' for key, each in features.items()], 30)}"
    for role, given in (("input", inputs), ("target", target)):
        if not given:
            raise InputError(
                f"tfds:{name} does not say which feature is the {role}; name one with --{role}_key; {held}"
            )
    for key in [*inputs, target]:
        if key not in features:
            raise InputError(f"tfds:{name} has no feature {key!r}; {held}")
    if target in inputs:
        raise InputError(f"tfds:{name}: {target!r} is both an input and the target; choose another --input_key")
    return inputs, target


def _read(builder: Any, split: str, inputs: list[str], target: str, owner: str) -> _Examples:
    found = _Examples({key: [] for key in inputs}, [], [])
    with _quiet() as said:
        try:
            for example in builder.as_data_source(split=split):
                for key in inputs:
                    found.inputs[key].append(example[key])
                if target:
                    found.targets.append(example[target])
                if owner:
                    found.owners.append(example[owner])
        except Exception as error:  # each decoder raises its own types of exceptions
            raise InputError(
                f"{builder.info.full_name} cannot be read: example {len(found.inputs[inputs[0]])} of {split!r}: "
                f"{_line(error, said)}"
            ) from None
    return found


def _taken(examples: _Examples, rows: np.ndarray) -> _Examples:
    def some(values: list[Any]) -> list[Any]:
        return [values[row] for row in rows] if values else []

    inputs = {key: some(values) for key, values in examples.inputs.items()}
    return _Examples(inputs, some(examples.targets), some(examples.owners))


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _inputs(wanted: Wanted, name: str, features: Any, train: dict, test: dict) -> Dataset:
    """Make a data set with the inputs and empty targets."""
    none = np.empty(0)

    def made(x: np.ndarray, x_test: np.ndarray, **more: Any) -> Dataset:
        return Dataset(x, none, x_test, none, 0, **more)

    if len(train) > 1:
        columns, parts = [], ([], [])  # type: ignore[var-annotated]
        for key in train:
            columns.append(Column(key, "category" if hasattr(features[key], "names") else "number"))
            for side, values in zip(parts, (train[key], test[key]), strict=True):
                side.append(_column(name, key, features[key], values))
        return made(*(np.concatenate(side, 1) for side in parts), columns=tuple(columns))
    (key, values), tests = *train.items(), test[next(iter(train))]
    if isinstance(values[0], bytes):
        x, x_test, notes = tokenize([_text(value) for value in values], [_text(value) for value in tests])
        return made(x, x_test, tokens=True, notes=notes)
    rate = wanted.sample_rate or getattr(features[key], "sample_rate", None) or 0
    if type(features[key]).__name__ == "Audio" and not rate:
        raise InputError(f"tfds:{name} does not state the sample rate of {key!r}; set --sample_rate in hertz")
    if rate:
        length = int(np.quantile([len(value) for value in values], _CUT, method="higher"))
        over = sum(len(value) > length for value in values)
        cut = (f"{over:,} of {len(values):,} training sounds are longer than {length / rate:.2f} s and are cut",)
        sounds = padded(values, length)
        x_test = log_mel(padded(tests, length), rate, sounds)
        return made(log_mel(sounds, rate), x_test, notes=cut if over else ())
    return made(*(_stacked(name, key, each) for each in (values, tests)))


def _column(name: str, key: str, feature: Any, values: list[Any]) -> np.ndarray:
    """Return one feature of a table as columns `[M, …]`."""
    if names := getattr(feature, "names", None):
        return np.eye(len(names))[np.array(values)]
    if isinstance(values[0], bytes):
        raise InputError(f"tfds:{name}: {key!r} holds texts, not numbers; leave it out of --input_key")
    return _stacked(name, key, values).reshape(len(values), -1).astype(float)


def _stacked(name: str, key: str, values: list[Any]) -> np.ndarray:
    """Stack arrays of the same shape into one array `[M, …]`."""
    first = np.asarray(values[0])
    for row, value in enumerate(values):
        if np.shape(value) != first.shape:
            raise InputError(
                f"tfds:{name}: {key!r} has shape {list(first.shape)} in example 0 and {list(np.shape(value))} in "
                f"example {row}; all examples must have the same shape"
            )
    if first.dtype.kind not in "biuf":
        raise InputError(
            f"tfds:{name}: {key!r} holds {first.dtype}, which cannot be an input; name another feature with --input_key"
        )
    return np.stack(values) if first.ndim else np.array(values)[:, None]


DATASETS.add(
    DatasetEntry(
        "tfds",
        read_tfds,
        (Argument("NAME[/CONFIG][:VERSION]"),),
        uses=("input_key", "target_key", "data_dir", "sample_rate", "task"),
    )
)
