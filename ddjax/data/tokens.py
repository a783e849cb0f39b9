"""Token ids of texts: words are hashed, so that devices need not agree on a vocabulary first."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

VOCABULARY = 4096  # number of ids; 0 stands for no word
_LONGEST = 64  # largest number of words that are kept per text
_WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")


def tokenize(train: Sequence[str], test: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Convert texts to token ids.

    A text is converted to lower case and split into words and punctuation marks, which count as words. The id of a word
    is the CRC-32 of the word, modulo 4,095, plus 1 (hashing as in Weinberger et al., ICML 2009). Different words may
    share an id by chance. Words that no training text contains also have ids. The length `L` is that of the longest
    training text, but at most 64 words; shorter texts are padded with the id 0, and longer texts are cut.

    Args:
      train: `M` training texts.
      test: `T` test texts.

    Returns:
      Token ids `[M, L]` of the training texts and `[T, L]` of the test texts, both int32, and notes for the user.
    """
    cut = [[_WORD.findall(text.lower()) for text in texts] for texts in (train, test)]
    longest = max(map(len, cut[0]), default=0)
    length = max(1, min(longest, _LONGEST))
    known: dict[str, int] = {}

    def ids(words: list[str]) -> list[int]:
        for word in words:
            if word not in known:
                known[word] = zlib.crc32(word.encode()) % (VOCABULARY - 1) + 1
        return [known[word] for word in words]

    arrays = []
    for texts in cut:
        array = np.zeros((len(texts), length), np.int32)
        for row, text in enumerate(texts):
            kept = text[:length]
            array[row, : len(kept)] = ids(kept)
        arrays.append(array)
    words = len({word for text in cut[0] for word in text})
    notes = [f"the training texts have {words:,} different words; each is hashed to one of {VOCABULARY - 1:,} ids"]
    if empty := sum(not text for text in cut[0]):
        notes.append(f"{empty:,} of {len(cut[0]):,} training texts are empty")
    if over := sum(len(text) > length for text in cut[0]):
        notes.append(f"{over:,} of {len(cut[0]):,} training texts have more than {length} words and are cut")
    return arrays[0], arrays[1], tuple(notes)
