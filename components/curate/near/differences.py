"""Tell near texts that differ in a passage from those that differ in a word here and there.

Two questions on one document have nearly all words in common, and so have a request and its
correction. What tells them apart is where they differ: in a whole question, or in scattered words.
Numbers are alike: another time or id makes no other question.
"""

from concurrent.futures import Executor
from functools import partial

import numpy as np
import numpy.typing as npt

from components.curate.near import shingles
from components.curate.near.candidates import Pairs
from components.curate.near.shingles import HASH_BITS, Column, Hashes, Positions, Texts

INSIDE = 8
AT_AN_END = 4
"""A passage is so many triples in a row that the other text has not: six words inside of a text,
four where it begins or ends, which is where questions stand."""

PAIRS_AT_ONCE = 1024

_NO_KEY = np.uint64((1 << 64) - 1)


def replaced(texts: Column, pairs: Pairs, pool: Executor) -> npt.NDArray[np.bool_]:
    """Mark the pairs of which each text has a passage that the other has not."""
    blocks = range(0, len(pairs), PAIRS_AT_ONCE)
    found = pool.map(partial(_replaced, texts, pairs), blocks)
    return np.concatenate([np.zeros(0, np.bool_), *found])


def _replaced(texts: Column, pairs: Pairs, start: int) -> npt.NDArray[np.bool_]:
    block = slice(start, start + PAIRS_AT_ONCE)
    one, its_owners = _triples(texts.take(pairs.left[block]))
    other, their_owners = _triples(texts.take(pairs.right[block]))
    count = len(pairs.left[block])
    return _passages(one, other, its_owners, count) & _passages(other, one, their_owners, count)


def _triples(texts: Column) -> tuple[Hashes, Positions]:
    """Give each text's triples in their order, marked with the text, and the texts' places."""
    keys, owners, before = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for chunk in Texts.of(texts).chunks():
        words = shingles.words_of(chunk)
        words.hashes[shingles.have_digits(chunk, words)] = 0
        found = shingles.runs(words, shingles.WIDTH, whole=True)
        places = np.repeat(np.arange(len(chunk)) + before, np.diff(found.bounds))
        keys.append((places.astype(np.uint64) << np.uint64(HASH_BITS)) | found.hashes)
        owners.append(places)
        before += len(chunk)
    return np.concatenate(keys), np.concatenate(owners)


def _passages(keys: Hashes, others: Hashes, owners: Positions, count: int) -> npt.NDArray[np.bool_]:
    """Mark the texts that have a passage of triples which are not among the others."""
    others = np.append(np.sort(others), _NO_KEY)
    missing = others[np.searchsorted(others, keys)] != keys
    edges = np.concatenate([[True], owners[1:] != owners[:-1], [True]])[: len(owners) + 1]
    begins = np.flatnonzero(np.concatenate([missing[:1], _starts(missing, edges)]))
    ends = np.flatnonzero(np.concatenate([_starts(missing[::-1], edges[::-1])[::-1], missing[-1:]]))
    lengths = ends - begins + 1
    at_an_end = edges[begins] | edges[ends + 1]
    long = lengths >= np.where(at_an_end, AT_AN_END, INSIDE)
    found = np.zeros(count, np.bool_)
    found[owners[begins[long]]] = True
    return found


def _starts(missing: npt.NDArray[np.bool_], edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark where a row of missing ones begins, but for the first place."""
    return missing[1:] & (~missing[:-1] | edges[1:-1])
