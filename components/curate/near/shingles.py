"""Hash word shingles, vectorised."""

from dataclasses import dataclass

import numpy as np

from components.curate.near.hashed_words import (
    STEP,
    Hashes,
    Marks,
    Positions,
    Words,
    mixed,
)

WIDTH = 3  # words of a shingle; a shorter text has one shingle of all its words
HASH_BITS = 48  # two different shingles collide once in 2^48: 1e-10 per pair of long texts

SEEN_BITS, SPARE_BITS = 24, 4
"""Of a table of hashes' first bits, in which most others are not; a larger one misses the cache."""

PLACES_AT_ONCE = 1 << 20

_HASH_MASK = np.uint64((1 << HASH_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of some texts, concatenated.

    Text i has ``hashes[bounds[i]:bounds[i + 1]]`` (uint64, of ``HASH_BITS`` bits).
    """

    hashes: Hashes
    bounds: Positions


def shingle(text_words: Words, width: int = WIDTH, *, whole: bool = True) -> Shingles:
    """Hash every run of ``width`` words of each text, in order, with repetitions.

    With ``whole``, a text of fewer words has one shingle of all its words, else none.
    """
    words, bounds = text_words.hashes, text_words.bounds
    counts = np.diff(bounds)
    padded = np.concatenate([words, np.zeros(width - 1, np.uint64)])
    hashes = _rolled(padded, width)
    windows = np.ones(len(words), np.bool_)
    begins, ends = bounds[:-1][counts > 0], bounds[1:][counts > 0]
    for back in range(1, width):
        windows[np.maximum(ends - back, begins)] = False
    short = (counts > 0) & (counts < width)
    sizes = np.maximum(counts - (width - 1), 0)
    if whole:
        windows[bounds[:-1][short]] = True
        hashes[bounds[:-1][short]] = _whole(padded, bounds[:-1][short], counts[short], width)
        sizes[short] = 1
    else:
        windows[bounds[:-1][short]] = False
    kept = mixed(hashes[windows]) & _HASH_MASK
    return Shingles(kept, np.concatenate([[0], np.cumsum(sizes)]))


def count_marks(marks: Marks, bounds: Positions) -> Positions:
    """Return the number of marks per text."""
    return np.diff(np.concatenate([[0], np.cumsum(marks)])[bounds])


def distinct(words: Words, width: int = WIDTH, *, whole: bool = True) -> tuple[Hashes, Positions]:
    """Return each text's distinct shingles, sorted, and the number per text."""
    shingles = shingle(words, width, whole=whole)
    owners = np.repeat(np.arange(len(words), dtype=np.uint64), np.diff(shingles.bounds))
    ordered = np.sort((owners << np.uint64(HASH_BITS)) | shingles.hashes)
    kept = ordered[np.diff(ordered, prepend=ordered[:1] - np.uint64(1)) != 0]
    owners = (kept >> np.uint64(HASH_BITS)).astype(np.int64)
    return kept & _HASH_MASK, np.bincount(owners, minlength=len(words))


class HashTable:
    """The places of sorted, different hashes."""

    def __init__(self, hashes: Hashes) -> None:
        bits = len(hashes).bit_length()
        self._shift = np.uint64(HASH_BITS - bits - 1)
        self._places = np.empty(2 << bits, np.int32)
        for start in range(0, len(self._places), PLACES_AT_ONCE):  # a quarter of the memory
            part = self._places[start : start + PLACES_AT_ONCE]
            firsts = np.arange(start, start + len(part), dtype=np.uint64) << self._shift
            part[:] = np.searchsorted(hashes, firsts)
        self._hashes = np.append(hashes, ~np.uint64(0))
        seen_bits = min(SEEN_BITS, bits + SPARE_BITS)
        self._seen_shift = np.uint64(HASH_BITS - seen_bits)
        self._seen = np.zeros(1 << seen_bits, np.bool_)
        self._seen[hashes >> self._seen_shift] = True

    def find(self, hashes: Hashes) -> tuple[Positions, Positions]:
        """Return the indices of the hashes that it has, and their places in it."""
        maybe = np.flatnonzero(self._seen[hashes >> self._seen_shift])
        few = hashes[maybe]
        at = self._places[few >> self._shift]  # a binary search misses the cache at each step
        before = np.flatnonzero(self._hashes[at] < few)
        while len(before):
            at[before] += 1
            before = before[self._hashes[at[before]] < few[before]]
        found = self._hashes[at] == few
        return maybe[found], at[found].astype(np.int64)


def _rolled(padded: Hashes, width: int) -> Hashes:
    """Return the polynomials of ``width`` words in a row, by those of half as many."""
    if width == 1:
        return padded.copy()
    half = width // 2
    first = _rolled(padded, half)
    later = first if width == 2 * half else _rolled(padded, half + 1)
    count = len(padded) - width + 1
    hashes = first[:count] * np.uint64(pow(int(STEP), width - half, 1 << 64))
    hashes += later[half : half + count]
    return hashes


def _whole(padded: Hashes, firsts: Positions, counts: Positions, width: int) -> Hashes:
    """Hash texts of fewer than ``width`` words, padded with zeros."""
    hashes = np.zeros(len(firsts), np.uint64)
    for place in range(width):
        hashes *= STEP
        hashes += np.where(counts > place, padded[firsts + place], np.uint64(0))
    return hashes
