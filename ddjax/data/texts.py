"""Texts of a file: tidied, and read as numbers where they are numbers."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Usual signs of a missing value, in lower case. In a column of texts `none` and `-` may be meant.
_NO_TEXT = frozenset(("", "?", "na", "n/a", "#n/a", "<na>", "nan", "null"))
_NO_NUMBER = _NO_TEXT | frozenset(("none", "-", "--", ".", "missing", "#value!", "#div/0!", "#ref!", "#num!", "nil"))
# A number with a unit, or with separators that mean different things in different countries.
_LIKE_A_NUMBER = re.compile(r"[-+(]?[$€£¥]?[-+]?\d[\d.,'’ ]*([eE][-+]?\d+)?[%$€£¥)]?")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


class Numbers(NamedTuple):
    """Texts read as numbers.

    Attributes:
      values: `[M]` float64, NaN where there is none.
      missing: `[M]` whether the text is a sign of a missing value.
      strange: positions of the texts that are neither.
      like: how many of these look like a number, such as `34%`.
    """

    values: np.ndarray
    missing: np.ndarray
    strange: list[int]
    like: int

    @property
    def mostly(self) -> bool:
        """Whether more than half of what is there is a number, or looks like one."""
        there = (~self.missing).sum()
        return bool(there) and 2 * (there - len(self.strange) + self.like) > there


def tidy(text: str) -> str:
    """A text without outer, doubled and invisible spaces, in one spelling of each letter (Unicode's NFC)."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_INVISIBLE))
    return " ".join(text.split())


def no_text(texts: Sequence[str]) -> np.ndarray:
    """`[M]` whether a tidied text is a sign of a missing value, in a column of texts."""
    return np.array([text.lower() in _NO_TEXT for text in texts], bool)


def _plain(texts: Sequence[str]) -> np.ndarray | None:
    """`[M]` finite numbers at once, where all texts are such."""
    try:
        values = np.array(texts, float)
    except ValueError:
        return None
    return values if np.isfinite(values).all() and "_" not in "".join(texts) else None


def read_numbers(texts: Sequence[str]) -> Numbers:
    """Reads tidied texts as numbers."""
    missing = np.zeros(len(texts), bool)
    if (plain := _plain(texts)) is not None:
        return Numbers(plain, missing, [], 0)
    values = np.full(len(texts), np.nan)
    strange, like = [], 0
    for place, text in enumerate(texts):
        if text.lower() in _NO_NUMBER:
            missing[place] = True
            continue
        try:
            if "_" in text:  # Python reads 1_000
                raise ValueError
            values[place] = float(text)
        except ValueError:
            strange.append(place)
            like += bool(_LIKE_A_NUMBER.fullmatch(text))
    return Numbers(values, missing, strange, like)
