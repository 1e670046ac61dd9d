"""Candidate pairs: texts that share a key of their prefixes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.curate.near.hashed_words import Hashes, Positions, sorted_set

CROWD = 50
"""Up to this many texts with a common key are all paired with each other. In a larger crowd, say
50,000 near-copies of one text, each is paired with the most typical ones only."""

ROUNDS = 8
"""Number of a crowd's most typical texts that the others are compared with, one per round, unless
they are already in one cluster."""

KEYS_AT_ONCE = 1 << 22  # pairs per shared key held in memory at once (8 bytes each)

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class CandidatePairs:
    """Pairs of texts by index; ``left`` is always the smaller."""

    left: Positions
    right: Positions

    def __len__(self) -> int:
        return len(self.left)

    def joined(self, others: "CandidatePairs") -> "CandidatePairs":
        """Return these pairs followed by others."""
        return CandidatePairs(
            np.concatenate([self.left, others.left]), np.concatenate([self.right, others.right])
        )

    def where(self, places: npt.NDArray[np.bool_] | Positions | slice) -> "CandidatePairs":
        """Return the pairs at some places, or the marked ones."""
        return CandidatePairs(self.left[places], self.right[places])


@dataclass(frozen=True, slots=True)
class Groups:
    """Texts by key: those that share key i are ``texts[starts[i]:starts[i] + sizes[i]]``.

    Every group has two or more. For each text, ``own`` is the number of keys of no other text,
    ``crowds`` of keys of a crowd, and ``shared`` the minimum shared with any near-duplicate.
    """

    texts: Positions
    starts: Positions
    sizes: Positions
    own: Positions
    crowds: Positions
    shared: Positions


def group_by_key(entries: Hashes, text_bits: int, shared: Positions) -> Groups:
    """Group texts by key.

    ``entries`` are keys, whose last ``text_bits`` are the text's index; they are sorted in place.
    """
    entries.sort()
    starts = np.flatnonzero(_begin_keys(entries, np.uint64(text_bits)))
    sizes = np.diff(starts, append=len(entries))
    texts_of = np.uint64((1 << text_bits) - 1)
    alone = (entries[starts[sizes == 1]] & texts_of).astype(np.int64)
    own = np.bincount(alone, minlength=len(shared))
    texts = (entries[np.repeat(sizes > 1, sizes)] & texts_of).astype(np.int64)
    sizes = sizes[sizes > 1]
    starts = _before(sizes)
    many = sizes > CROWD
    crowds = np.bincount(texts[_members(starts[many], sizes[many])], minlength=len(shared))
    return Groups(texts, starts, sizes, own, crowds, shared)


def _begin_keys(entries: Hashes, text_bits: np.uint64) -> npt.NDArray[np.bool_]:
    """Mark the entries with another key than the one before, without a copy of all keys."""
    begin = np.ones(len(entries), np.bool_)
    for start in range(1, len(entries), KEYS_AT_ONCE):
        keys = entries[start - 1 : start + KEYS_AT_ONCE] >> text_bits
        begin[start : start + KEYS_AT_ONCE] = keys[1:] != keys[:-1]
    return begin


def in_small_groups(groups: Groups) -> Iterator[CandidatePairs]:
    """Yield pairs of texts that share enough keys outside of crowds.

    A text with too few shared keys outside of crowds has near-duplicates in crowds only.
    """
    small = groups.sizes <= CROWD
    sizes = groups.sizes[small]
    # Of half the width, as they are the largest arrays of a curation.
    at = _members(groups.starts[small], sizes).astype(np.uint32)
    after = _after(sizes)
    texts = groups.texts[at].astype(np.uint32)
    for places in _parts(texts, after, sizes):
        codes = _sorted_codes(groups.texts, at[places], after[places])
        starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])[: len(codes)])
        pairs = _decoded(codes[starts])
        least = np.minimum(groups.shared[pairs.left], groups.shared[pairs.right])
        hidden = np.minimum(groups.crowds[pairs.left], groups.crowds[pairs.right])
        enough = np.diff(starts, append=len(codes)) >= np.maximum(least - hidden, 1)
        yield pairs.where(enough & (pairs.left != pairs.right))


def _after(sizes: Positions) -> npt.NDArray[np.uint8]:
    """Return for each member of small groups how many of its group come after it."""
    places = np.arange(int(sizes.sum()), dtype=np.uint32)
    return (np.repeat((_before(sizes) + sizes - 1).astype(np.uint32), sizes) - places).astype(
        np.uint8
    )


def in_crowds(groups: Groups) -> Iterator[CandidatePairs]:
    """Yield, per round, pairs of texts with a typical text of their crowd, the most typical first.

    A typical text has few keys of its own. Texts with fewer crowd keys than they share with a
    near-duplicate are already paired. In a round, each text is paired once, in the smallest of its
    crowds, so that the work is linear in the texts, not quadratic.
    """
    many = groups.sizes > CROWD
    starts, sizes = groups.starts[many], groups.sizes[many]
    members = groups.texts[_members(starts, sizes)]
    crowds = np.repeat(np.arange(len(starts)), sizes)
    typical = np.lexsort((members, groups.own[members], crowds))
    by_size = np.argsort(sizes, kind="stable")
    hidden = groups.crowds[members] >= groups.shared[members]
    # By one key: by three keys it takes several times as long.
    pairs = _decoded(np.sort(_joined(members[hidden], np.argsort(by_size)[crowds[hidden]])))
    texts, crowds = pairs.left, by_size[pairs.right]
    for turn in range(ROUNDS if len(starts) else 0):
        leaders = members[typical[_before(sizes) + turn]][crowds]
        others = np.flatnonzero(leaders != texts)
        chosen = others[np.unique(texts[others], return_index=True)[1]]
        yield _decoded(sorted_set(_codes(texts[chosen], leaders[chosen])))


def _parts(
    texts: npt.NDArray[np.uint32], after: npt.NDArray[np.uint8], sizes: Positions
) -> Iterator[Positions]:
    """Split members of groups by text into parts of about ``KEYS_AT_ONCE`` pairs.

    Texts of one group are mostly in one part, so that a part's pairs are of few texts.
    """
    if int(after.sum(dtype=np.int64)) <= KEYS_AT_ONCE:
        yield np.arange(len(texts))
        return
    pairs = np.bincount(texts, weights=after)
    leaders = np.full(len(pairs), len(pairs), np.uint32)
    np.minimum.at(leaders, texts, np.repeat(texts[_before(sizes)], sizes))
    order = np.argsort(leaders, kind="stable")
    part_of = np.empty(len(pairs), np.uint16)
    part_of[order] = np.cumsum(pairs[order]) // KEYS_AT_ONCE
    part = part_of[texts]
    for number in range(int(part_of.max()) + 1):
        yield np.flatnonzero(part == number)


def _sorted_codes(
    texts: Positions, at: npt.NDArray[np.uint32], after: npt.NDArray[np.uint8]
) -> Hashes:
    """Pair each text with those after it in its group; return the pairs' sorted codes."""
    blocks = [np.zeros(0, np.uint64)]
    for distance in range(1, CROWD):
        at, after = at[after >= distance], after[after >= distance]
        blocks.append(_codes(texts[at], texts[at + distance]))
    codes = np.concatenate(blocks)
    codes.sort()
    return codes


def _members(starts: Positions, sizes: Positions) -> Positions:
    """Return the indices of all members, group by group."""
    return np.arange(int(sizes.sum())) + np.repeat(starts - _before(sizes), sizes)


def _before(sizes: Positions) -> Positions:
    return np.cumsum(sizes) - sizes


def _codes(left: Positions, right: Positions) -> Hashes:
    return _joined(np.minimum(left, right), np.maximum(left, right))


def _joined(high: Positions, low: Positions) -> Hashes:
    return (high.astype(np.uint64) << _HALF) | low.astype(np.uint64)


def _decoded(codes: Hashes) -> CandidatePairs:
    return CandidatePairs((codes >> _HALF).astype(np.int64), (codes & _LOW).astype(np.int64))
