"""Targets: classes with any names, or numbers to predict."""

from typing import NamedTuple

import numpy as np

from ddjax.data.texts import read_numbers, tidy
from ddjax.errors import InputError, suggest

TASKS = ("classification", "regression")
# If no task is set, floating-point numbers that look like labels are classes only if they have at most _MOST different
# values, and each value occurs at least _OFTEN times on average.
_MOST, _OFTEN = 20, 5


class Targets(NamedTuple):
    """Training and test targets; `Dataset` explains the attributes."""

    y_train: np.ndarray
    y_test: np.ndarray
    outputs: int
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def check_task(task: str) -> None:
    """Raise `InputError` if `task` is neither empty nor in `TASKS`."""
    if task and task not in TASKS:
        raise suggest("task", task, TASKS)


def read_targets(train: np.ndarray, test: np.ndarray, names: tuple[str, str], task: str = "") -> Targets:
    """Decide whether targets are classes or numbers to predict, and give the classes the labels 0 to K − 1.

    If no task is set, texts, Boolean values, integers and one-hot rows are classes. Floating-point numbers are classes
    if their values are 0 to K − 1, 1 to K, or −1 and 1, and if there are at most 20 different values, which occur at
    least five times on average. All other floating-point numbers are numbers to predict. (By contrast, scikit-learn's
    `type_of_target` treats all whole numbers as classes.) A note tells the user if one-hot rows or floating-point
    numbers are taken for classes by these rules. Classes are numbered in sorted order, so the labels in the data may
    start at any number and have gaps.

    Args:
      train: training targets `[M]`, `[M, 1]` or `[M, K]`: texts, Boolean values, integers or floating-point numbers.
      test: test targets `[T, …]` of the same kind.
      names: name of the training targets and name of the test targets, for messages.
      task: `classification` or `regression`; empty to decide from the targets.

    Raises:
      InputError: the targets do not suit the task, there is only one class, the classes have fewer than two training
        examples on average, or a class occurs only in the test targets.
    """
    check_task(task)
    train, test = _plain(train, names[0]), _plain(test, names[1])
    notes: list[str] = []
    if train.ndim == 2 and task != "regression" and _one_hot(train) and _one_hot(test):
        notes.append("one-hot rows are read as classes; to predict them as numbers, use --task=regression")
        train, test = train.argmax(1), test.argmax(1)
    if train.ndim == 2 and (task == "classification" or train.dtype.kind != "f") and task != "regression":
        row = int(np.argmax((train != 0).sum(1) != 1))
        raise InputError(
            f"{names[0]}: classes must have shape [examples] or be one-hot rows, but the shape is {list(train.shape)} "
            f"({train.dtype}) and row {row} is not one-hot; to predict numbers, use --task=regression"
        )
    numeric = train.dtype.kind in "iuf"
    if task == "regression":
        if not numeric:
            raise InputError(f"{names[0]} holds {str(train[0])!r}, but regression needs numbers to predict")
        return _numbers(train, test, names, notes)
    if numeric and train.dtype.kind == "f":
        whole = all((values == np.round(values)).all() for values in (train, test))
        if task == "classification" and not whole:
            bad = int(np.argmax(train != np.round(train)))
            raise InputError(
                f"{names[0]} holds {train.flat[bad]:g} (row {bad}), but classes must be whole numbers or texts; "
                "to predict numbers, use --task=regression"
            )
        if not task:
            if not (train.ndim == 1 and whole and _count(train)):
                values = np.unique(train)
                count, in_a_row = len(values), np.ptp(values) + 1 == len(values)
                if train.ndim == 1 and whole and (count <= _MOST or (in_a_row and len(train) >= _OFTEN * count)):
                    notes.append(
                        f"the target has {count} different whole numbers, which are predicted as numbers; if they are "
                        "classes, use --task=classification"
                    )
                return _numbers(train, test, names, notes)
            notes.append("whole-number targets are read as classes; to predict them as numbers, use --task=regression")
    return _classes(train, test, names, notes)


def _plain(y: np.ndarray, name: str) -> np.ndarray:
    """Drop a second axis of length 1, and tidy texts; convert the texts to numbers if all of them are numbers."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} holds bytes that are not UTF-8 text: {error}") from None
    if y.dtype.kind not in "UT":
        return y
    texts = [tidy(str(text)) for text in y.ravel()]
    numbers = read_numbers(texts)
    if not numbers.strange and not numbers.missing.any():
        try:
            whole = [int(text) for text in texts]
        except ValueError:
            return numbers.values.reshape(y.shape)
        return np.array(whole if max(map(abs, whole), default=0) < 2**63 else texts).reshape(y.shape)
    if numbers.mostly:
        row = numbers.strange[0] if numbers.strange else int(numbers.missing.argmax())
        raise InputError(f"{name} holds {texts[row]!r} (row {row}) among numbers; correct this value or remove the row")
    return np.array(texts).reshape(y.shape)


def _one_hot(y: np.ndarray) -> bool:
    return y.ndim == 2 and y.dtype.kind in "iufb" and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _count(y: np.ndarray) -> bool:
    """Return whether whole floating-point numbers look like labels."""
    values = np.unique(y)
    consecutive = values[0] in (0, 1) and (np.diff(values) == 1).all()
    return bool(
        2 <= len(values) <= _MOST
        and len(y) >= _OFTEN * len(values)
        and (consecutive or np.array_equal(values, (-1, 1)))
    )


def _numbers(train: np.ndarray, test: np.ndarray, names: tuple[str, str], notes: list[str]) -> Targets:
    if np.ptp(train, axis=0).max() == 0:
        raise InputError(f"{names[0]} has only one value; at least two are needed")
    train, test = (y.reshape(len(y), -1).astype(float) for y in (train, test))
    return Targets(train, test, train.shape[1], (), tuple(notes))


def _classes(train: np.ndarray, test: np.ndarray, names: tuple[str, str], notes: list[str]) -> Targets:
    values, y_train = np.unique(train, return_inverse=True)
    if len(values) < 2:
        raise InputError(f"{names[0]} holds only one class, {_called(values[0])}; at least two are needed")
    if 2 * len(values) > len(train):
        raise InputError(
            f"{names[0]} holds {len(values)} different labels in {len(train)} rows (the first label is "
            f"{_called(values[0])}); a class needs at least two examples on average" + _remedy(train)
        )
    unknown = ~np.isin(test, values)
    if unknown.any():
        row = int(unknown.argmax())
        raise InputError(
            f"{names[1]} holds the label {_called(test[row])} (row {row}), which is missing from {names[0]}; the "
            f"labels there are {listed([_called(value) for value in values])}"
        )
    called = tuple(_called(value) for value in values)
    if once := np.flatnonzero(np.bincount(y_train) == 1).tolist():
        notes.append(f"classes with a single training example: {listed([called[label] for label in once])}")
    alike: dict[str, str] = {}
    for name in called:
        if (other := alike.setdefault(name.casefold(), name)) != name:
            notes.append(f"the classes {other!r} and {name!r} differ only in capitalization")
    if train.dtype.kind in "iuf" and not np.array_equal(values, np.arange(len(values))):
        notes.append(f"the labels {listed(called)} are renumbered from 0 to {len(values) - 1}")
    place = np.searchsorted(values, test)
    return Targets(y_train.astype(np.int32), place.astype(np.int32), len(values), called, tuple(notes))


def _remedy(y: np.ndarray) -> str:
    if y.dtype.kind in "iuf":
        return "; to predict numbers, use --task=regression"
    return "; check that the target is not a name or an identifier"


def _called(value: object) -> str:
    """Return the name of a class."""
    return f"{value:g}" if isinstance(value, np.floating) else str(value)


def listed(names: tuple[str, ...] | list[str], most: int = 6) -> str:
    """Join the first `most` names with commas; an ellipsis stands for the other names."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
