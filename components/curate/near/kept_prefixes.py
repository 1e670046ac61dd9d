"""Texts' prefixes, kept by the texts' words: a later curation chooses only those that changed."""

from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from typing import NamedTuple, Self

import numpy as np

from components.curate.near import candidate_pairs, hashed_words, prefixes
from components.curate.near.candidate_pairs import Groups
from components.curate.near.hashed_words import (
    DigestedWords,
    Hashes,
    Marks,
    Positions,
    WordColumn,
    in_order,
)
from components.curate.near.kept_arrays import KeptArrays
from components.curate.near.prefixes import TEXT_BITS, Classes, ShingleOrder
from components.curate.near.seen_bits import Bits32, SeenBits
from components.curate.near.shingles import HASH_BITS, shingle

TEXTS_AT_ONCE = 1 << 14

MAX_CHANGED = 0.25
"""Share of the texts; if more have another prefix than before, all keys are grouped."""

COARSE_BITS = 20
"""Of a table of buckets' first bits, which fits the cache, as few buckets change."""

CHUNKS_AT_ONCE = 64

_HASH_MASK = np.uint64((1 << HASH_BITS) - 1)


class KeptPrefixes(NamedTuple):
    """Where a comparison leaves prefixes to the next one, by ``name``."""

    arrays: KeptArrays
    name: str


class _Earlier(NamedTuple):
    """The texts of the last call; text i had the next ``sizes[i]`` of the ``keys``.

    ``classes`` are those of the order. Keys were grouped by all bits but ``text_bits``, which is
    empty if there were crowds.
    """

    digests: Hashes
    sizes: Positions
    keys: Hashes
    classes: Classes
    text_bits: Positions

    @classmethod
    def read(cls, kept: KeptPrefixes) -> Self:
        return cls(
            kept.arrays.read(f"{kept.name}-texts", np.uint64).reshape(-1, 2),
            kept.arrays.read(f"{kept.name}-sizes", np.int64),
            kept.arrays.read(f"{kept.name}-keys", np.uint64),
            kept.arrays.read(f"{kept.name}-classes", np.uint8),
            kept.arrays.read(f"{kept.name}-bits", np.int64),
        )

    def still(self, texts: DigestedWords, order: ShingleOrder, pool: Executor) -> Positions:
        """Return each text's place here, -1 if it may have another prefix by now."""
        places = hashed_words.places_among(texts.digests, self.digests)
        if len(self.classes) != len(order.classes):
            return np.full(len(texts), -1)
        rose = _Buckets.of(order.classes > self.classes, order.shift)
        fell = _Buckets.of(order.classes < self.classes, order.shift)
        has_risen = np.zeros(len(self.sizes), np.bool_)
        bounds = hashed_words.bounds_of(self.sizes)
        for block in hashed_words.slices(bounds, hashed_words.CHUNK_WORDS):
            keys = self.keys[bounds[block.start] : bounds[block.stop]]
            at = bounds[block.start] + rose.having(keys & _HASH_MASK)
            has_risen[np.searchsorted(bounds, at, "right") - 1] = True
        places[has_risen[places]] = -1
        if not fell.marks.any():
            return places
        # A shingle that is rarer by now may come before those of the prefix.
        known = np.flatnonzero(places >= 0)
        start = 0
        have = partial(_with_shingles_in, buckets=fell)
        for length, owners in in_order(pool, have, texts.words.at(known).chunks()):
            places[known[start + owners]] = -1
            start += length
        return places

    def keys_of(self, places: Positions) -> Iterator[Hashes]:
        """Yield the keys of some texts, in parts."""
        bounds = hashed_words.bounds_of(self.sizes)
        for start in range(0, len(places), TEXTS_AT_ONCE):
            at = places[start : start + TEXTS_AT_ONCE]
            yield self.keys[hashed_words.members(bounds[at], self.sizes[at])]


class _Buckets(NamedTuple):
    """Some of the buckets of hashes' first bits, and whether any of several together is."""

    marks: Marks
    shift: np.uint64
    coarse: Marks
    coarse_shift: np.uint64

    @classmethod
    def of(cls, marks: Marks, shift: np.uint64) -> Self:
        bits = min(COARSE_BITS, len(marks).bit_length() - 1)
        coarse: Marks = np.logical_or.reduce(marks.reshape(1 << bits, -1), axis=1)
        return cls(marks, shift, coarse, np.uint64(HASH_BITS - bits))

    def having(self, hashes: Hashes) -> Positions:
        """Return the places of the hashes in these buckets."""
        at = np.flatnonzero(self.coarse.take(hashes >> self.coarse_shift))
        return at[self.marks[hashes[at] >> self.shift]]


def _with_shingles_in(texts: WordColumn, buckets: _Buckets) -> tuple[int, Positions]:
    """Return the length of a chunk, and its texts with a shingle in some buckets."""
    shingles = shingle(texts.words())
    owners = np.searchsorted(shingles.bounds, buckets.having(shingles.hashes), "right") - 1
    return len(texts), owners


class _KeyedTexts(NamedTuple):
    """Texts with their prefixes: text ``texts[i]`` has the next ``sizes[i]`` of the ``keys``."""

    texts: Positions
    sizes: Positions
    keys: Hashes

    def entries(self, text_bits: int, among: SeenBits | None = None) -> Hashes:
        """Return keys followed by their texts' index, at least those that are among some."""
        bounds = hashed_words.bounds_of(self.sizes)
        entries = np.empty(len(self.keys), np.uint64)
        count = 0
        for block in hashed_words.slices(bounds, hashed_words.CHUNK_WORDS):
            begin = bounds[block.start]
            keys = self.keys[begin : bounds[block.stop]]
            at = np.arange(len(keys)) if among is None else among.places_of(_last_bits(keys))
            owners = self.texts[np.searchsorted(bounds, begin + at, "right") - 1]
            part = entries[count : count + len(at)]
            part[:] = (keys[at] << np.uint64(text_bits)) | owners.astype(np.uint64)
            count += len(at)
        return entries[:count]


def _last_bits(keys: Hashes) -> Bits32:
    """Return those bits of keys that are grouped by, however many texts there are."""
    return keys.astype(np.uint32)


def group_texts(
    texts: DigestedWords, threshold: float, kept: KeptPrefixes | None, pool: Executor
) -> Groups:
    """Group texts by the keys of their prefixes.

    If ``kept`` has what an earlier call left, and neither it nor this one has crowds, these are
    only the groups with a text that came since, or whose prefix is another one by now.
    """
    arrays, name = kept or KeptPrefixes(KeptArrays(None, ""), "")
    kept = KeptPrefixes(arrays, f"{name}-prefixes-{threshold}")
    order = prefixes.shingle_order(texts, threshold, pool)
    earlier = _Earlier.read(kept)
    places = earlier.still(texts, order, pool)
    changed, known = np.flatnonzero(places < 0), np.flatnonzero(places >= 0)
    sizes = [np.zeros(0, np.int64)]
    arrays.write(f"{kept.name}-keys", np.zeros(0, np.uint64))
    choose = partial(prefixes.choose_prefixes, order=order)
    chosen = in_order(pool, choose, texts.words.at(changed).chunks())
    while some := [*islice(chosen, CHUNKS_AT_ONCE)]:
        arrays.append(f"{kept.name}-keys", np.concatenate([part.keys for part in some]))
        sizes += [part.sizes for part in some]
    new = int(sum(map(np.sum, sizes)))
    for keys in earlier.keys_of(places[known]):
        arrays.append(f"{kept.name}-keys", keys)
    keyed = _KeyedTexts(
        np.concatenate([changed, known]),
        np.concatenate([*sizes, earlier.sizes[places[known]]]),
        arrays.read(f"{kept.name}-keys", np.uint64),
    )
    arrays.write(f"{kept.name}-texts", texts.digests[keyed.texts].ravel())
    arrays.write(f"{kept.name}-sizes", keyed.sizes)
    arrays.write(f"{kept.name}-classes", order.classes)
    shared = order.shared(texts.words)
    text_bits = max(TEXT_BITS, len(texts).bit_length())
    group = partial(candidate_pairs.group_by_key, text_bits=text_bits, shared=shared)
    groups = None
    if earlier.text_bits.tolist() == [text_bits] and len(changed) <= MAX_CHANGED * len(texts):
        groups = group(keyed.entries(text_bits, SeenBits(_last_bits(keyed.keys[:new]))))
    if groups is None or groups.have_crowds:
        groups = group(keyed.entries(text_bits))
    without_crowds = [] if groups.have_crowds else [text_bits]
    arrays.write(f"{kept.name}-bits", np.array(without_crowds, np.int64))
    return groups
