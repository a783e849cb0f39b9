"""Files of tables, read as texts by column."""

import codecs
import csv
import gzip
import io
import zlib
from pathlib import Path
from typing import NamedTuple

from ddjax.data.labels import listed
from ddjax.data.texts import read_numbers, tidy
from ddjax.errors import InputError, no_file

# Texts up to this length are held once, however often they stand in a table, such as the pixels of images.
_SHORT = 3
_CALLED = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}


class Table(NamedTuple):
    """What stands in a file.

    Attributes:
      path: of the file.
      columns: name → tidied texts.
      lines: of the file in which the rows begin, counted from 1.
      unnamed: names given to the first columns without one.
      notes: on how it was read.
    """

    path: str
    columns: dict[str, list[str]]
    lines: list[int]
    unnamed: list[str]
    notes: tuple[str, ...] = ()


def read_table(path: str, encoding: str = "", comment: str = "") -> Table:
    """The table in a file, which may be gzipped.

    Args:
      path: of the file.
      encoding: UTF-8 by default, or UTF-16 where the file begins so.
      comment: what a line begins with that is skipped.

    Raises:
      InputError: no file, one that cannot be read, or a header or row that does not fit.
    """
    text = _decoded(path, encoding)
    if comment:  # an empty line in its place, so that lines keep their numbers
        text = "\n".join("" if line.lstrip().startswith(comment) else line for line in text.split("\n"))
    separator, notes = _separator(text)
    rows: list[list[str]] = []
    lines: list[int] = []
    begin = 1
    seen: dict[str, str] = {}
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=separator != "\t"
    )
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append([text if len(text) > _SHORT else seen.setdefault(text, text) for text in row])
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} is not a readable .csv: {error} (the value begins in line {begin})") from None
    if not rows:
        raise InputError(f"{path} is not a readable .csv: it is empty")
    head, names, unnamed = rows[0], *_header(path, rows[0], lines[0])
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) < len(head) or any(map(str.strip, row[len(names) :])):
            raise InputError(
                f"{path}: line {line} has {len(row)} values, but the header names {len(names)} columns; mend the line "
                f"({_CALLED[separator]} inside a text needs quotes)"
            )
    columns = {name: [tidy(row[place]) for row in rows[1:]] for place, name in names.items()}
    for name in unnamed:  # of a comma at the end of each row
        if not any(columns[name]):
            del columns[name]
    return Table(path, columns, lines[1:], [name for name in unnamed if name in columns], notes)


def _decoded(path: str, encoding: str) -> str:
    """The text of a file, which may be gzipped."""
    try:
        file = Path(path).expanduser()
        content = gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()
        marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = encoding or ("utf-16" if content.startswith(marks) else "utf-8-sig")
        return content.decode(encoding)
    except FileNotFoundError:
        raise no_file(path) from None
    except LookupError:
        raise InputError(f"unknown encoding {encoding!r}; known are utf-8, utf-16, latin-1, cp1252, …") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} is not a readable .csv: byte {content[error.start]:#04x} in line {line} is not "
            f"{encoding.upper().removesuffix('-SIG')}; say --encoding, such as cp1252, or save it as UTF-8 text"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} is not a readable .csv: {reason}") from None


def _separator(text: str) -> tuple[str, tuple[str, ...]]:
    """What stands between columns: a comma, or what the header has instead."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    for sign in ("\t", ";", "|"):
        if sign in head and "," not in head:
            return sign, (f"{_CALLED[sign]} separates the columns, since the header has no comma",)
    return ",", ()


def _header(path: str, head: list[str], line: int) -> tuple[dict[int, str], list[str]]:
    """Names by place, and those given to columns without one; refuses a header that is none."""
    head = [tidy(name) for name in head]
    while len(head) > 1 and not head[-1]:
        head.pop()
    numbers = read_numbers(head)
    if not numbers.strange and not numbers.missing.all():
        raise InputError(f"{path}: line {line} holds numbers ({listed(head)}), but a header with names is needed there")
    names: dict[int, str] = {}
    unnamed: list[str] = []
    for place, name in enumerate(head):
        if not name or name.startswith("Unnamed: "):
            if len(unnamed) < place:
                raise InputError(f"{path}: column {place + 1} has no name; give it one, or take it out")
            name = name or f"column {place + 1}"
            unnamed.append(name)
        if name in names.values():
            first = next(place for place, other in names.items() if other == name)
            raise InputError(
                f"{path}: columns {first + 1} and {place + 1} are both named {name!r}; rename or take out one"
            )
        names[place] = name
    return names, unnamed
