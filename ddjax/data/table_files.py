"""Files that hold tables, read as one list of texts per column."""

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

# A text up to this length, such as the value of a pixel, is stored once, however often a table repeats it.
_SHORT = 3
_CALLED = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}


class Table(NamedTuple):
    """Content of a file that holds a table.

    Attributes:
      path: path of the file.
      columns: name of each column → its tidied texts.
      lines: line of the file in which each row begins, counted from 1.
      unnamed: names that ddjax or pandas gave to columns without a name; these columns come first.
      notes: notes on how the file was read.
    """

    path: str
    columns: dict[str, list[str]]
    lines: list[int]
    unnamed: list[str]
    notes: tuple[str, ...] = ()


def read_table(path: str, encoding: str = "", comment: str = "") -> Table:
    """Read the table in a file, which may be gzipped.

    Args:
      path: path of the file.
      encoding: encoding of the file; empty to use UTF-16 if the file begins with a byte-order mark of UTF-16, and UTF-8
        otherwise.
      comment: prefix of the lines that are skipped; empty to skip no line.

    Raises:
      InputError: the file is missing or cannot be read, or the header or a row is malformed.
    """
    text = _decoded(path, encoding)
    if comment:  # empty lines replace comments, so that lines keep their numbers
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
        raise InputError(f"{path} is not a readable .csv: {error} (in the row that begins on line {begin})") from None
    if not rows:
        raise InputError(f"{path} is not a readable .csv: it is empty")
    head, names, unnamed = rows[0], *_header(path, rows[0], lines[0])
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) < len(head) or any(map(str.strip, row[len(names) :])):
            raise InputError(
                f"{path}: line {line} has {len(row)} values, but the header names {len(names)} columns; correct the "
                f"line ({_CALLED[separator]} inside a text needs quotes)"
            )
    columns = {name: [tidy(row[place]) for row in rows[1:]] for place, name in names.items()}
    for name in unnamed:  # a comma at the end of each row makes an empty column
        if not any(columns[name]):
            del columns[name]
    return Table(path, columns, lines[1:], [name for name in unnamed if name in columns], notes)


def _decoded(path: str, encoding: str) -> str:
    """Return the text of a file, which may be gzipped."""
    try:
        file = Path(path).expanduser()
        content = gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()
        marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = encoding or ("utf-16" if content.startswith(marks) else "utf-8-sig")
        return content.decode(encoding)
    except FileNotFoundError:
        raise no_file(path) from None
    except LookupError:
        raise InputError(f"unknown encoding {encoding!r}; use utf-8, utf-16, latin-1, cp1252, …") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} is not a readable .csv: byte {content[error.start]:#04x} on line {line} is not "
            f"{encoding.upper().removesuffix('-SIG')}; set --encoding, for example to cp1252, or save the file in UTF-8"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} is not a readable .csv: {reason}") from None


def _separator(text: str) -> tuple[str, tuple[str, ...]]:
    """Find the column separator: a comma, or another sign if the header contains this sign but no comma."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    for sign in ("\t", ";", "|"):
        if sign in head and "," not in head:
            return sign, (f"{_CALLED[sign]} separates the columns, because the header has no comma",)
    return ",", ()


def _header(path: str, head: list[str], line: int) -> tuple[dict[int, str], list[str]]:
    """Return the name of each column by position, and the names given to unnamed columns; refuse an invalid header."""
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
                raise InputError(f"{path}: column {place + 1} has no name; name this column, or remove it")
            name = name or f"column {place + 1}"
            unnamed.append(name)
        if name in names.values():
            first = next(place for place, other in names.items() if other == name)
            raise InputError(
                f"{path}: columns {first + 1} and {place + 1} are both named {name!r}; rename or remove one of them"
            )
        names[place] = name
    return names, unnamed
