"""Functions that tidy the texts of a file and read them as numbers."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Usual signs of a missing value, in lower case. Some signs, such as `none` and `-`, may be values in a column of texts.
_NO_TEXT = frozenset(("", "?", "na", "n/a", "#n/a", "<na>", "nan", "null"))
_NO_NUMBER = _NO_TEXT | frozenset(("none", "-", "--", ".", "missing", "#value!", "#div/0!", "#ref!", "#num!", "nil"))
# A number with a unit, or with separators that differ from country to country.
_LIKE_A_NUMBER = re.compile(r"[-+(]?[$€£¥]?[-+]?\d[\d.,'’ ]*([eE][-+]?\d+)?[%$€£¥)]?")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


class Numbers(NamedTuple):
    """Texts read as numbers.

    Attributes:
      values: numbers `[M]` float64; NaN where the text is not a number.
      missing: whether each text is a sign of a missing value, `[M]` bool.
      strange: positions of the texts that are neither numbers nor signs of a missing value.
      like: number of `strange` texts that look like numbers, such as `34%`.
    """

    values: np.ndarray
    missing: np.ndarray
    strange: list[int]
    like: int

    @property
    def mostly(self) -> bool:
        """Whether more than half of the texts that are not missing are numbers or look like numbers."""
        there = (~self.missing).sum()
        return bool(there) and 2 * (there - len(self.strange) + self.like) > there


def tidy(text: str) -> str:
    """Remove leading, trailing, doubled and invisible spaces, and normalize letters (Unicode NFC)."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_INVISIBLE))
    return " ".join(text.split())


def no_text(texts: Sequence[str]) -> np.ndarray:
    """Return which tidied texts in a column of texts are signs of a missing value, `[M]` bool."""
    return np.array([text.lower() in _NO_TEXT for text in texts], bool)


def _plain(texts: Sequence[str]) -> np.ndarray | None:
    """Convert texts to finite numbers `[M]` in a single step; return `None` if any text is not a finite number."""
    try:
        values = np.array(texts, float)
    except ValueError:
        return None
    return values if np.isfinite(values).all() and "_" not in "".join(texts) else None


def read_numbers(texts: Sequence[str]) -> Numbers:
    """Read tidied texts as numbers."""
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
            if "_" in text:  # because Python reads 1_000 as a number
                raise ValueError
            values[place] = float(text)
        except ValueError:
            strange.append(place)
            like += bool(_LIKE_A_NUMBER.fullmatch(text))
    return Numbers(values, missing, strange, like)
