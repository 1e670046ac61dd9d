"""Pair the texts that share a key of their prefixes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.curate.near.shingles import Hashes, Positions

CROWD = 50
"""Texts that share one key: up to so many are all compared with each other. In a larger crowd,
say 50,000 copies of nearly one text, every text is compared with the most typical ones only."""

ROUNDS = 8
"""How many of a crowd's most typical texts the others are compared with, one after the other,
unless they are in one cluster by then."""

PAIRS_AT_ONCE = 1 << 22

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of texts by their places; ``left`` is always the smaller."""

    left: Positions
    right: Positions

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.left)

    @classmethod
    def none(cls) -> "Pairs":
        """Give no pairs."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def joined(self, others: "Pairs") -> "Pairs":
        """Give these and others."""
        return Pairs(
            np.concatenate([self.left, others.left]), np.concatenate([self.right, others.right])
        )

    def where(self, marks: npt.NDArray[np.bool_]) -> "Pairs":
        """Keep the marked ones."""
        return Pairs(self.left[marks], self.right[marks])


@dataclass(frozen=True, slots=True)
class Groups:
    """Texts that share a key: those of group i are ``texts[starts[i]:starts[i] + sizes[i]]``.

    Every group has two or more. ``own`` counts for each text the keys that only it has.
    """

    texts: Positions
    starts: Positions
    sizes: Positions
    own: Positions


def group(entries: Hashes, text_bits: int, count: int) -> Groups:
    """Group texts by key.

    Args:
        entries: A key each, whose last ``text_bits`` are the text's place; sorted in place.
        text_bits: As many as ``count`` needs.
        count: How many texts there are.
    """
    entries.sort()
    keys = entries >> np.uint64(text_bits)
    texts = (entries & np.uint64((1 << text_bits) - 1)).astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    sizes = np.diff(starts, append=len(keys))
    own = np.bincount(texts[starts[sizes == 1]], minlength=count)
    return Groups(texts, starts[sizes > 1], sizes[sizes > 1], own)


def in_small_groups(groups: Groups) -> Pairs:
    """Pair all texts of each group that is no crowd."""
    small = groups.sizes <= CROWD
    sizes = groups.sizes[small]
    at = _members(groups.starts[small], sizes)
    after = np.repeat(_before(sizes) + sizes - 1, sizes) - np.arange(len(at))
    codes, waiting = np.zeros(0, np.uint64), list[Hashes]()
    for distance in range(1, CROWD):
        at, after = at[after >= distance], after[after >= distance]
        waiting.append(_codes(groups.texts[at], groups.texts[at + distance]))
        if sum(map(len, waiting)) > PAIRS_AT_ONCE:
            codes, waiting = np.unique(np.concatenate([codes, *waiting])), []
    return _decoded(np.unique(np.concatenate([codes, *waiting])))


def in_crowds(groups: Groups) -> Iterator[Pairs]:
    """Pair the texts of each crowd with one of its typical ones a round, the most typical first.

    A text is typical that has few keys of its own. In a round, each text is paired once only, in
    the smallest of its crowds: so the work grows with the texts, never with their square.
    """
    crowded = groups.sizes > CROWD
    starts, sizes = groups.starts[crowded], groups.sizes[crowded]
    if not len(starts):
        return
    crowds = np.repeat(np.arange(len(starts)), sizes)
    members = groups.texts[_members(starts, sizes)]
    typical = np.lexsort((members, groups.own[members], crowds))
    smallest_first = np.lexsort((crowds, sizes[crowds], members))
    for turn in range(ROUNDS):
        leaders = members[typical[_before(sizes) + turn]][crowds]
        by_member = smallest_first[(leaders != members)[smallest_first]]
        _, once = np.unique(members[by_member], return_index=True)
        chosen = by_member[once]
        yield _decoded(np.unique(_codes(members[chosen], leaders[chosen])))


def _members(starts: Positions, sizes: Positions) -> Positions:
    """Give the places of all members of the groups, group by group."""
    return np.arange(int(sizes.sum())) + np.repeat(starts - _before(sizes), sizes)


def _before(sizes: Positions) -> Positions:
    return np.cumsum(sizes) - sizes


def _codes(one: Positions, other: Positions) -> Hashes:
    low, high = np.minimum(one, other), np.maximum(one, other)
    return (low.astype(np.uint64) << _HALF) | high.astype(np.uint64)


def _decoded(codes: Hashes) -> Pairs:
    left, right = (codes >> _HALF).astype(np.int64), (codes & _LOW).astype(np.int64)
    return Pairs(left, right).where(left != right)
