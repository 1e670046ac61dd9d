"""Candidate pairs: texts that share a key of their prefixes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.curate.near.shingles import Hashes, Positions

CROWD = 50
"""Texts that have a key in common: up to so many are all paired with each other. In a larger crowd,
say 50,000 copies of nearly one text, each is paired with the most typical ones only."""

ROUNDS = 8
"""How many of a crowd's most typical texts the others are compared with, one after the other,
unless they are in one cluster by then."""

KEYS_AT_ONCE = 1 << 23
"""Pairs of texts and a key that they share that are held at once (8 bytes each)."""

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class CandidatePairs:
    """Pairs of texts by their places; ``left`` is always the smaller."""

    left: Positions
    right: Positions

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.left)

    @classmethod
    def none(cls) -> "CandidatePairs":
        """Give no pairs."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def joined(self, others: "CandidatePairs") -> "CandidatePairs":
        """Give these and others."""
        return CandidatePairs(
            np.concatenate([self.left, others.left]), np.concatenate([self.right, others.right])
        )

    def where(self, marks: npt.NDArray[np.bool_]) -> "CandidatePairs":
        """Keep the marked ones."""
        return CandidatePairs(self.left[marks], self.right[marks])


@dataclass(frozen=True, slots=True)
class Groups:
    """Texts by key: those that share key i are ``texts[starts[i]:starts[i] + sizes[i]]``.

    Every group has two or more. For each text, ``own`` counts the keys that only it has, ``crowds``
    those that a crowd has, and ``shared`` says how many it shares with a near-duplicate at least.
    """

    texts: Positions
    starts: Positions
    sizes: Positions
    own: Positions
    crowds: Positions
    shared: Positions


def group_by_key(entries: Hashes, text_bits: int, shared: Positions) -> Groups:
    """Group texts by key.

    Args:
        entries: A key each, whose last ``text_bits`` are the text's place; sorted in place.
        text_bits: As many as it takes to count the texts.
        shared: How many keys each text shares with a near-duplicate at least.
    """
    entries.sort()
    keys = entries >> np.uint64(text_bits)
    texts = (entries & np.uint64((1 << text_bits) - 1)).astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    sizes = np.diff(starts, append=len(keys))
    own = np.bincount(texts[starts[sizes == 1]], minlength=len(shared))
    many = sizes > CROWD
    crowds = np.bincount(texts[_members(starts[many], sizes[many])], minlength=len(shared))
    return Groups(texts, starts[sizes > 1], sizes[sizes > 1], own, crowds, shared)


def in_small_groups(groups: Groups) -> Iterator[CandidatePairs]:
    """Pair texts that share enough keys, but for those of crowds.

    A text that shares fewer keys outside of crowds than it must has near-duplicates in crowds only.
    """
    small = groups.sizes <= CROWD
    sizes = groups.sizes[small]
    at = _members(groups.starts[small], sizes)
    after = np.repeat(_before(sizes) + sizes - 1, sizes) - np.arange(len(at))
    for places in _parts(groups.texts[at], after):
        codes = _sorted_codes(groups.texts, at[places], after[places])
        starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])[: len(codes)])
        pairs = _decoded(codes[starts])
        least = np.minimum(groups.shared[pairs.left], groups.shared[pairs.right])
        hidden = np.minimum(groups.crowds[pairs.left], groups.crowds[pairs.right])
        enough = np.diff(starts, append=len(codes)) >= np.maximum(least - hidden, 1)
        yield pairs.where(enough & (pairs.left != pairs.right))


def in_crowds(groups: Groups) -> Iterator[CandidatePairs]:
    """Pair texts with one of their crowds' typical ones a round, the most typical first.

    A text is typical that has few keys of its own. Texts that have less keys of crowds than they
    share with a near-duplicate are paired already. In a round, each text is paired once only, in
    the smallest of its crowds: so the work grows with the texts, never with their square.
    """
    many = groups.sizes > CROWD
    starts, sizes = groups.starts[many], groups.sizes[many]
    members = groups.texts[_members(starts, sizes)]
    crowds = np.repeat(np.arange(len(starts)), sizes)
    typical = np.lexsort((members, groups.own[members], crowds))
    smallest_first = np.lexsort((crowds, sizes[crowds], members))
    hidden = groups.crowds[members] >= groups.shared[members]
    for turn in range(ROUNDS if len(starts) else 0):
        leaders = members[typical[_before(sizes) + turn]][crowds]
        by_member = smallest_first[(hidden & (leaders != members))[smallest_first]]
        _, once = np.unique(members[by_member], return_index=True)
        chosen = by_member[once]
        yield _decoded(np.unique(_codes(members[chosen], leaders[chosen])))


def _parts(texts: Positions, after: Positions) -> Iterator[Positions]:
    """Share out places by their text, so that not too many pairs begin with the texts of a part."""
    total = int(after.sum())
    if total <= KEYS_AT_ONCE:
        yield np.arange(len(texts))
        return
    through = np.cumsum(np.bincount(texts, weights=after))
    part = (through // KEYS_AT_ONCE).astype(np.int64)[texts]
    for number in range(int(part.max()) + 1):
        yield np.flatnonzero(part == number)


def _sorted_codes(texts: Positions, at: Positions, after: Positions) -> Hashes:
    """Pair each place with those after it in its group; give a sorted code for each."""
    found = [np.zeros(0, np.uint64)]
    for distance in range(1, CROWD):
        at, after = at[after >= distance], after[after >= distance]
        found.append(_codes(texts[at], texts[at + distance]))
    codes = np.concatenate(found)
    codes.sort()
    return codes


def _members(starts: Positions, sizes: Positions) -> Positions:
    """Give the places of all members of the groups, group by group."""
    return np.arange(int(sizes.sum())) + np.repeat(starts - _before(sizes), sizes)


def _before(sizes: Positions) -> Positions:
    return np.cumsum(sizes) - sizes


def _codes(one: Positions, other: Positions) -> Hashes:
    low, high = np.minimum(one, other), np.maximum(one, other)
    return (low.astype(np.uint64) << _HALF) | high.astype(np.uint64)


def _decoded(codes: Hashes) -> CandidatePairs:
    return CandidatePairs((codes >> _HALF).astype(np.int64), (codes & _LOW).astype(np.int64))
