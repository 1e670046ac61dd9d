"""The hashed words of texts, kept by the texts' digests: a later curation hashes only new texts."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import numpy as np

from components.curate.near import hashed_words, word_runs
from components.curate.near.hashed_words import (
    HAS_DIGIT,
    Hashes,
    Marks,
    Positions,
    TextColumn,
    Texts,
    WordColumn,
)
from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.word_runs import RunBits

WORDS, RUNS, TEXTS = "words", "runs", "texts"

RECORD = np.dtype([("digest", "<u8", 2), ("name", "<u8"), ("size", "<u4"), ("is_ascii", "<u4")])

TEXTS_AT_ONCE = 1 << 14

LEAST_LIVE = 0.5
"""Share of the words that texts of the log have; below it, the others are dropped."""


class KeptWords:
    """Different texts' words and the first bits of their runs, by number.

    Text i has ``digests[i]``, and ``names[i]``, equal for texts of the same words: the sum of the
    words' hashes, without words with digits.
    """

    def __init__(self, kept: KeptArrays) -> None:
        self._kept = kept
        self._used = [np.zeros(0, np.int64)]
        self._read()

    def _read(self) -> None:
        records = self._kept.read(TEXTS, RECORD)
        self.digests: Hashes = np.ascontiguousarray(records["digest"]).reshape(-1, 2)
        self.names: Hashes = records["name"]
        self.are_ascii: Marks = records["is_ascii"] > 0
        sizes = records["size"].astype(np.int64)
        hashes = self._kept.read(WORDS, np.uint64)
        self.column = WordColumn(hashes, np.cumsum(sizes) - sizes, sizes)
        self.runs = RunBits.of(self._kept.read(RUNS, np.uint32), sizes)

    def add(self, digests: Hashes, texts: Callable[[Positions], Iterable[TextColumn]]) -> Positions:
        """Return the number of each text, of which there are digests by ``digests_of``.

        ``texts`` returns those at some places, in parts, to hash the new ones.
        """
        numbers = self.numbers_of(digests)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            _, firsts = np.unique(digests[new], axis=0, return_index=True)
            new = new[np.sort(firsts)]
            for part in texts(new):
                self._hash(part, digests[new[: len(part)]])
                new = new[len(part) :]
            self._read()
            numbers = self.numbers_of(digests)
        self._used.append(numbers)
        return numbers

    def add_column(self, texts: TextColumn) -> Positions:
        """Return the number of each text of a column."""
        return self.add(digests_of(texts), partial(hashed_words.taken, texts))

    def numbers_of(self, digests: Hashes) -> Positions:
        """Return the numbers of the texts with such digests, -1 where there is none."""
        return hashed_words.places_among(digests, self.digests)

    def _hash(self, texts: TextColumn, digests: Hashes) -> None:
        records = np.zeros(len(texts), RECORD)
        records["digest"] = digests
        hashes, runs = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)]
        before = 0
        for chunk in Texts.of(texts).chunks():
            words = hashed_words.hash_words(chunk).words
            sums = np.zeros(len(words.hashes) + 1, np.uint64)
            are_numbers = (words.hashes & HAS_DIGIT) > 0
            np.cumsum(np.where(are_numbers, np.uint64(0), words.hashes), out=sums[1:])
            part = records[before : before + len(chunk)]
            part["name"] = np.diff(sums[words.bounds])
            part["size"] = np.diff(words.bounds)
            part["is_ascii"] = hashed_words.are_ascii(chunk)
            before += len(chunk)
            hashes.append(words.hashes)
            runs.append(word_runs.first_bits(word_runs.runs_of(words).hashes))
        self._kept.append(WORDS, np.concatenate(hashes))
        self._kept.append(RUNS, np.concatenate(runs))
        self._kept.append(TEXTS, records)

    def drop_others(self) -> None:
        """Drop the words of texts that weren't asked for if there are many."""
        numbers = hashed_words.sorted_set(np.concatenate(self._used))
        live = self.column.at(numbers)
        if live.sizes.sum() >= LEAST_LIVE * len(self.column.hashes):
            return
        records = self._kept.read(TEXTS, RECORD)[numbers]
        self._kept.write(WORDS, np.zeros(0, np.uint64))
        self._kept.write(RUNS, np.zeros(0, np.uint32))
        for start in range(0, len(live), TEXTS_AT_ONCE):
            block = live.at(slice(start, start + TEXTS_AT_ONCE))
            self._kept.append(WORDS, block.words().hashes)
            bits = self.runs.chunks(numbers[start : start + TEXTS_AT_ONCE])
            self._kept.append(RUNS, np.concatenate([np.zeros(0, np.uint32), *bits]))
        self._kept.write(TEXTS, records)


def digests_of(texts: TextColumn) -> Hashes:
    """Return the digest of each text, of two values."""
    content = Texts.of(texts)
    bytes_of, offsets = content.content.data, content.offsets.tolist()
    digests = (hashed_words.digest(bytes_of[start:stop]) for start, stop in pairwise(offsets))
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
