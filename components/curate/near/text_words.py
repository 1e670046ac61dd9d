"""Different texts as hashed words: a text that many requests have is hashed once."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from components.curate.near import hashed_words
from components.curate.near.hashed_words import (
    HAS_DIGIT,
    Hashes,
    Marks,
    Positions,
    SpilledWords,
    TextColumn,
    Texts,
    WordColumn,
    Words,
)


class TextWords(NamedTuple):
    """Different texts' words: text i has ``digests[i]``, and ``names[i]``.

    Names are equal for texts of the same words: the sum of the words' hashes, without words with
    digits.
    """

    column: WordColumn
    digests: Hashes
    names: Hashes
    are_ascii: Marks

    @classmethod
    def of(
        cls,
        digests: Hashes,
        texts: Callable[[Positions], Iterable[TextColumn]],
        scratch: Path | None = None,
    ) -> tuple[Self, Positions]:
        """Return the different texts of those with ``digests`` by ``digests_of``, and each's place.

        ``texts`` returns those at some ascending places, in parts. The words are kept as
        ``SpilledWords`` does.
        """
        places, firsts = hashed_words.numbered(digests)
        written = SpilledWords(scratch)
        names, are_ascii = [np.zeros(0, np.uint64)], [np.zeros(0, np.bool_)]
        for part in texts(firsts):
            for chunk in Texts.of(part).chunks():
                words = hashed_words.hash_words(chunk).words
                written.add(words)
                names.append(_names(words))
                are_ascii.append(hashed_words.are_ascii(chunk))
        column = written.column()
        of_texts = np.concatenate(names), np.concatenate(are_ascii)
        return cls(column, digests[firsts], *of_texts), places

    @classmethod
    def of_column(cls, texts: TextColumn) -> tuple[Self, Positions]:
        """Return the different texts of a column, and each text's place among them."""
        return cls.of(digests_of(texts), partial(hashed_words.taken, texts))


def _names(words: Words) -> Hashes:
    sums = np.zeros(len(words.hashes) + 1, np.uint64)
    are_numbers = (words.hashes & HAS_DIGIT) > 0
    np.cumsum(np.where(are_numbers, np.uint64(0), words.hashes), out=sums[1:])
    return np.diff(sums[words.bounds])


def digests_of(texts: TextColumn) -> Hashes:
    """Return the digest of each text, of two values."""
    content = Texts.of(texts)
    bytes_of, offsets = content.content.data, content.offsets.tolist()
    digests = (hashed_words.digest(bytes_of[start:stop]) for start, stop in pairwise(offsets))
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
