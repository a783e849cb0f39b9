"""Tables with named columns."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from ddjax.data.dataset import Column, Dataset, unlabeled
from ddjax.data.labels import check_task, listed, read_targets
from ddjax.data.registry import DATASETS, DatasetEntry, Wanted
from ddjax.data.splits import note, split
from ddjax.data.table_files import Table, read_table
from ddjax.data.texts import Numbers, no_text, read_numbers
from ddjax.data.tokens import tokenize
from ddjax.errors import InputError, suggest

# Largest number of categories of a column. A column with more different texts probably holds names or bad numbers.
_CATEGORIES = 100
_LARGEST = 1e100  # far below 1e154, beyond which squares are infinite


def read_csv(
    path: str,
    target_column: str,
    seed: int,
    task: str = "",
    ignore_columns: str = "",
    *,
    input_key: str = "",
    owner_key: str = "",
    encoding: str = "",
    comment: str = "",
) -> Dataset:
    r"""Read a table with a header, and draw a fifth of its rows for testing.

    Columns are separated by commas, or by tabs, semicolons or bars if the header contains one of these signs and no
    comma.

    `labels.read_targets` decides whether the targets are classes or numbers. All other columns are inputs. A column of
    numbers becomes one input; the median over the training rows replaces missing numbers. A column of texts becomes
    several inputs with the values 0 and 1, one for each different text in the training rows; for a missing text, all
    these inputs are 0. Texts that differ only in leading, trailing or doubled spaces count as the same text.

    A first column without a name is assumed to contain the row numbers that pandas writes, and is ignored.

    Args:
      path: path of the file.
      target_column: name of the column with the targets.
      seed: seed of the random split into training and test rows.
      task: `classification` or `regression`; empty to decide from the targets.
      ignore_columns: names of columns that are not inputs, joined by `+`.
      input_key: column of texts that is the only input; the texts become token ids (see `tokens.tokenize`).
      owner_key: column that contains the owner of each row; this column is not an input.
      encoding: encoding of the file; empty to use UTF-16 if the file begins with a byte-order mark of UTF-16, and UTF-8
        otherwise.
      comment: prefix of the lines that are skipped, such as `#`; empty to skip no line.

    Raises:
      InputError: the file is missing or cannot be read, or a column or a row is unsuitable.

    Examples:
      >>> rows = [f"{20 + i},{'AB'[i % 2]},{'no' if i < 5 else 'yes'}" for i in range(10)]
      >>> _ = (folder / "people.csv").write_text("\n".join(["age,town,member", *rows]))
      >>> dataset = ddjax.data.read_csv(f"{folder}/people.csv", target_column="member", seed=0)
      >>> dataset.classes, [(column.name, column.kind) for column in dataset.columns]
      (('no', 'yes'), [('age', 'number'), ('town', 'category')])
      >>> dataset.x_train.shape, dataset.x_test.shape  # one column of age, two of town
      ((8, 3), (2, 3))
    """
    check_task(task)
    table = read_table(path, encoding, comment)
    columns = table.columns
    if not target_column:
        raise InputError(f"{path}: --target_column must name the column to predict: {listed([*columns], 30)}")
    if target_column not in columns:
        raise suggest("column", target_column, columns)
    ignored = dict.fromkeys(_asked(ignore_columns, columns), "asked")
    if target_column in ignored:
        raise InputError(
            f"{path}: --target_column and --ignore_columns both name {target_column!r}; name it in only one of them"
        )
    ignored |= dict.fromkeys(table.unnamed, "it has no name, like the column of row numbers that pandas writes")
    for name, role in ((owner_key, "owner"), (input_key, "--input_key")):
        if name and name not in columns:
            raise suggest(role, name, columns)
        if name == target_column:
            raise InputError(f"{path}: {name!r} is the target and cannot also be the {role}")
    if owner_key:
        ignored[owner_key] = "it contains the owners of the rows"
    if input_key:
        ignored |= {
            name: "--input_key names the only input" for name in columns if name not in (input_key, target_column)
        }
    if len(table.lines) < 5:
        raise InputError(f"{path}: at least 5 rows are needed to hold out a fifth for testing, got {len(table.lines)}")
    target = _target(table, target_column)
    y, _, outputs, classes, notes = read_targets(target, target, (f"{path}: {target_column!r}",) * 2, task)
    notes = (*table.notes, note(len(y)), *notes)
    train, test = split(len(y), seed)
    owner, owners = _owner(table, owner_key) if owner_key else (None, ())
    inputs, about = _inputs(table, ignored, target_column, input_key, train)
    for column in about:
        if column.kind in ("number", "category"):
            notes += tuple(_leaks(column.name, columns[column.name], target_column, columns[target_column]))
    if lost := set(range(len(classes))) - set(y[train].ravel().tolist()) if classes else set():
        notes += (f"{len(lost)} of the classes occur only in test rows (the first is {classes[min(lost)]})",)
    made = partial(
        Dataset, y_train=y[train], y_test=y[test], outputs=outputs, classes=classes, columns=tuple(about),
        owner=None if owner is None else owner[train], owners=owners,
    )  # fmt: skip
    if input_key:
        texts = columns[input_key]
        x_train, x_test, more = tokenize([texts[row] for row in train], [texts[row] for row in test])
        return made(x_train=x_train, x_test=x_test, tokens=True, notes=(*notes, *more))
    if not inputs:
        raise InputError(
            f"{path}: there is no column besides {target_column!r} that can be an input"
            + (f" (ignored: {listed([*ignored])})" if ignored else "")
        )
    x = np.hstack(inputs)
    return made(x_train=x[train], x_test=x[test], notes=notes)


def read_unlabeled(wanted: Wanted, path: str) -> Dataset:
    """Read all rows of a table as inputs, for a reference set; the columns of targets and owners may be missing.

    Raises:
      InputError: the file cannot be read, or `read_csv` would refuse the inputs.
    """
    table = read_table(path, wanted.encoding, wanted.comment)
    asked = _joined(wanted.ignore_columns, table.columns)
    ignored = dict.fromkeys((*asked, *table.unnamed, wanted.owner_key), "no input")
    if (key := wanted.input_key) and key not in table.columns:
        raise suggest("--input_key", key, table.columns)
    if key:
        ignored |= dict.fromkeys(set(table.columns) - {key}, "no input")
    rows = np.arange(len(table.lines))
    if not len(rows):
        raise InputError(f"{path} has no rows below its header")
    inputs, about = _inputs(table, ignored, wanted.target_column, key, rows)
    if key:
        x, _, notes = tokenize(table.columns[key], [])
        return unlabeled(x, tokens=True, columns=tuple(about), notes=notes)
    if not inputs:
        raise InputError(f"{path}: there is no column that can be an input")
    return unlabeled(np.hstack(inputs), columns=tuple(about))


def _inputs(
    table: Table, ignored: dict[str, str], target_column: str, input_key: str, train: np.ndarray
) -> tuple[list[np.ndarray], list[Column]]:
    """Make inputs from columns; return the inputs, and an interpretation of each column based on the rows `train`."""
    inputs, about = [], []
    for name, texts in table.columns.items():
        if name == target_column:
            continue
        if name in ignored:
            about.append(Column(name, "ignored", why=ignored[name]))
        elif name == input_key:
            about.append(Column(name, "text"))
        else:
            values, column = _features(table, name, texts, train)
            inputs.append(values)
            about.append(column)
    return inputs, about


def _owner(table: Table, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the owner of each row as an index `[M]`, and the owners' names, sorted by value if all are numbers."""
    texts = table.columns[name]
    numbers = read_numbers(texts)
    missing = numbers.missing if numbers.mostly else no_text(texts)
    if missing.any():
        raise InputError(
            f"{table.path}: the owner {name!r} is missing on line {table.lines[int(missing.argmax())]}; fill it in, or "
            "remove the row"
        )
    values = np.array(texts) if numbers.strange else numbers.values
    found, place = np.unique(values, return_inverse=True)
    return place, tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in found)


def _joined(text: str, columns: dict[str, list[str]]) -> list[str]:
    """Split names joined by `+`."""
    if text in columns:  # a name may contain a +
        return [text]
    return [name.strip() for name in text.split("+") if name.strip()]


def _asked(text: str, columns: dict[str, list[str]]) -> list[str]:
    names = _joined(text, columns)
    for name in names:
        if name not in columns:
            raise suggest("column to ignore", name, columns)
    return names


def _target(table: Table, name: str) -> np.ndarray:
    """Return the targets `[M]`, numbers or texts, after a check that no target is missing."""
    texts = table.columns[name]
    numbers = read_numbers(texts)
    mostly = numbers.mostly
    missing = numbers.missing if mostly else no_text(texts)
    if missing.all():
        raise InputError(f"{table.path}: column {name!r} has no value")
    if missing.any():
        first = int(missing.argmax())
        sign = f" ({texts[first]!r})" if texts[first] else ""
        raise InputError(
            f"{table.path}: {name!r} is missing{sign} in {missing.sum()} rows, beginning with line "
            f"{table.lines[first]}; remove these rows"
        )
    if mostly:
        return _sound(table, name, texts, numbers)
    return np.array(texts)


def _sound(table: Table, name: str, texts: list[str], numbers: Numbers) -> np.ndarray:
    """Return the numbers of a column, after a check that the column contains no text and no enormous number."""
    if numbers.strange:
        first, more = numbers.strange[0], len(numbers.strange) - 1
        raise InputError(
            f"{table.path}: column {name!r} holds numbers, except {texts[first]!r} on line {table.lines[first]}"
            + (f" and {more} more texts" if more else "")
            + f"; write plain numbers, leave missing numbers empty, or use --ignore_columns={name}"
        )
    if (enormous := np.abs(numbers.values) > _LARGEST).any():
        first = int(enormous.argmax())
        raise InputError(
            f"{table.path}: column {name!r} holds {texts[first]!r} on line {table.lines[first]}, which is beyond "
            f"{_LARGEST:g}; correct this number, or leave it empty if it is missing"
        )
    return numbers.values


def _features(table: Table, name: str, texts: list[str], train: np.ndarray) -> tuple[np.ndarray, Column]:
    """Make inputs `[rows, …]` from a column; medians and categories come only from the rows `train`."""
    numbers = read_numbers(texts)
    missing = numbers.missing if numbers.mostly else no_text(texts)
    where = f"{table.path}: column {name!r}"
    if missing.all():
        raise InputError(f"{where} has no value; use --ignore_columns={name}")
    if missing[train].all():
        raise InputError(f"{where} has no value in the training rows; use --ignore_columns={name}")
    if numbers.mostly:
        values = _sound(table, name, texts, numbers)
        median = float(np.median(values[train][~missing[train]])) if missing.any() else None
        filled = values if median is None else np.where(missing, median, values)
        return filled[:, None], Column(name, "number", int(missing.sum()), median)
    categories = sorted({texts[row] for row in train if not missing[row]})
    if len(categories) > _CATEGORIES:
        raise InputError(
            f"{where} has {len(categories)} different texts (the first is {categories[0]!r}), but at most "
            f"{_CATEGORIES} can be categories; use --ignore_columns={name}, or --input_key={name} to learn from texts"
        )
    column = Column(name, "category", int(missing.sum()), categories=tuple(categories))
    there = np.where(missing, "", texts)
    return (there[:, None] == np.array(categories)).astype(float), column


def _leaks(name: str, texts: Sequence[str], target_column: str, target: Sequence[str]) -> list[str]:
    """Write notes on a column that reveals the target or only counts the rows."""
    values = len(set(texts))
    again = f"to leave it out of the inputs, use --ignore_columns={name}"
    few = 2 * values <= len(texts) and values == len(set(target))
    if texts == target or (few and values == len(set(zip(texts, target, strict=True)))):
        return [f"column {name!r} determines {target_column!r}; {again}"]
    numbers = read_numbers(texts) if values == len(texts) > 1 else None
    if numbers and (np.diff(numbers.values) == 1).all():
        return [f"column {name!r} counts the rows; {again}"]
    return []


def _read_csv(wanted: Wanted, path: str) -> Dataset:
    if wanted.unlabeled:
        return read_unlabeled(wanted, path)
    own = {name: getattr(wanted, name) for name in ("task", "ignore_columns", "input_key", "owner_key", "encoding")}
    return read_csv(path, wanted.target_column, wanted.seed, comment=wanted.comment, **own)


DATASETS.add(
    DatasetEntry(
        "csv",
        _read_csv,
        uses=("target_column", "task", "ignore_columns", "input_key", "encoding", "comment"),
        form="FILE.csv",
        suffixes=(".csv", ".tsv"),
    )
)
