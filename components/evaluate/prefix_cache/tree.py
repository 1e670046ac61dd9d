"""A tree of token ids, so that what several rows begin with is computed once.

Rows that begin alike (one system prompt, the same tools, a question with its choices) share a
branch up to where they part. The nodes are numbered as a walk through the tree meets them, parents
first, and so in packs of any size: what a pack needs of those before it is one path from the root.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.models.prefix_tree import Row, common_prefix, families

Ints = NDArray[np.int64]

ROOT = -1
"""What stands as the parent of a row's first token."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows as one tree.

    Of each node: its token's id, the ``positions`` it has in its rows, its ``parents`` number or
    ``ROOT``, and where its branch ``ends`` (one past its last descendant), all ``[nodes]``.
    ``leaves`` are the numbers of the rows' last tokens, in the order of the rows.
    """

    tokens: Ints
    positions: Ints
    parents: Ints
    ends: Ints
    leaves: Ints

    def last(self, row: int, count: int) -> list[int]:
        """List the nodes of the last ``count`` tokens of a row, in its order."""
        nodes = [int(self.leaves[row])]
        while len(nodes) < count:
            nodes.append(int(self.parents[nodes[-1]]))
        return nodes[::-1]


@dataclass(frozen=True, slots=True)
class Pack:
    """Nodes that are computed at once, from ``start`` to one before ``stop``.

    ``columns`` are the nodes whose keys and values are at hand then: the path to ``start`` and the
    pack's own. ``seen`` says which of them each node sees, ``[nodes, columns]``, and ``kept`` where
    in ``columns`` the path to the next pack stands.
    """

    start: int
    stop: int
    columns: Ints
    seen: NDArray[np.bool_]
    kept: Ints


def grow(rows: Sequence[Row]) -> Tree:
    """Make a tree of rows; each shares with the one before it what the two begin with.

    Args:
        rows: Token ids, none of the rows empty; sorted ones make the smallest tree.
    """
    known = [0, *(common_prefix(one, other) for one, other in pairwise(rows))]
    new = [len(row) - shared for row, shared in zip(rows, known, strict=False)]
    total = sum(new)
    tokens, positions, parents = np.zeros((3, total), np.int64)
    ends, leaves = np.full(total, total), np.zeros(len(rows), np.int64)
    path, start = np.empty(0, np.int64), 0
    for number, (row, shared, count) in enumerate(zip(rows, known, new, strict=False)):
        stop = start + count
        ends[path[shared:]] = start
        path = np.concatenate([path[:shared], np.arange(start, stop)])
        tokens[start:stop], positions[start:stop] = row[shared:], np.arange(shared, len(row))
        parents[start:stop] = np.arange(start - 1, stop - 1)
        if count:
            parents[start] = path[shared - 1] if shared else ROOT
        leaves[number] = path[-1]
        start = stop
    return Tree(tokens, positions, parents, ends, leaves)


def packs(tree: Tree, room: int) -> Iterator[Pack]:
    """Cut a tree into packs of at most ``room`` nodes, each node in one of them."""
    path = np.empty(0, np.int64)
    for start in range(0, len(tree.tokens), room):
        stop = min(start + room, len(tree.tokens))
        nodes = np.arange(start, stop)
        columns = np.concatenate([path, nodes])
        ends = tree.ends[columns]
        seen = (columns[None] <= nodes[:, None]) & (nodes[:, None] < ends[None])
        kept = np.flatnonzero(ends > stop)
        yield Pack(start, stop, columns, seen, kept)
        path = columns[kept]


def by_length(rows: Sequence[Row]) -> list[int]:
    """Order rows from long to short, but those that begin alike together."""
    alike = families(rows)
    alike.sort(key=lambda family: -max(len(rows[row]) for row in family))
    return [row for family in alike for row in family]
