"""Keys and values of earlier requests, for others that begin alike: a tree for each adapter.

A branch holds the keys and values of its own tokens, so a shared beginning is stored once. The key
of a tree is the hash of the adapter's files: another version never reads an older one's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch  # noqa: TID253 - the engine is a process of its own

from components.models.prefix_tree import common_prefix

BASE = ""  # the key of the base without an adapter


@dataclass(slots=True, eq=False)
class _Branch:
    tokens: Sequence[int]
    stored: torch.Tensor  # [layers, 2, tokens, heads, width]
    used: int = 0  # when it was last read or written, as a count of uses
    branches: "dict[int, _Branch]" = field(default_factory=dict)  # by their first token


class PrefixStore:
    """At most ``limit`` bytes of keys and values; the least recently used branches go first."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._roots: dict[str, _Branch] = {}
        self._uses = 0

    def find(self, key: str, tokens: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield the stored keys and values of the longest stored prefix, part by part."""
        self._uses += 1
        for branch, shared in self._path(key, tokens):
            branch.used = self._uses
            yield branch.stored[:, :, :shared]

    def add(
        self, key: str, tokens: Sequence[int], copy: Callable[[int, int], torch.Tensor]
    ) -> None:
        """Store a row; ``copy`` returns the keys and values of its tokens from start to stop."""
        self._uses += 1
        root = self._roots.setdefault(key, _Branch((), torch.empty(0)))
        parent, length = root, 0
        for branch, shared in self._path(key, tokens):
            length += shared
            branch.used = self._uses
            parent = branch
            if shared < len(branch.tokens):
                parent = self._split(branch, shared)
        if length < len(tokens):
            stored = copy(length, len(tokens))
            new = _Branch(tuple(tokens[length:]), stored, self._uses)
            parent.branches[tokens[length]] = new
            self.bytes += stored.nbytes
        self._evict()

    def drop(self, key: str) -> None:
        """Forget all that was stored under a key."""
        if (root := self._roots.pop(key, None)) is not None:
            self.bytes -= sum(branch.stored.nbytes for _, branch in _below(root))

    def _path(self, key: str, tokens: Sequence[int]) -> Iterator[tuple[_Branch, int]]:
        # the branches along a row, each with how many of its tokens the row has
        branch, length = self._roots.get(key), 0
        while branch is not None and length < len(tokens):
            branch = branch.branches.get(tokens[length])
            if branch is not None:
                shared = common_prefix(branch.tokens, tokens[length : length + len(branch.tokens)])
                yield branch, shared
                length += shared
                if shared < len(branch.tokens):
                    return

    def _split(self, branch: _Branch, length: int) -> _Branch:
        # Copies, since a part of a tensor would keep the memory of all of it.
        rest = _Branch(
            branch.tokens[length:],
            branch.stored[:, :, length:].clone(),
            branch.used,
            branch.branches,
        )
        branch.stored = branch.stored[:, :, :length].clone()
        branch.tokens, branch.branches = branch.tokens[:length], {rest.tokens[0]: rest}
        return branch

    def _evict(self) -> None:
        while self.bytes > self.limit:
            leaves = [
                (branch.used, id(branch), parent, branch)
                for root in self._roots.values()
                for parent, branch in _below(root)
                if not branch.branches
            ]
            _, _, parent, oldest = min(leaves, key=lambda leaf: leaf[:2])
            del parent.branches[oldest.tokens[0]]
            self.bytes -= oldest.stored.nbytes


def _below(root: _Branch) -> Iterator[tuple[_Branch, _Branch]]:
    # all branches with their parents
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        for branch in parent.branches.values():
            yield parent, branch
            waiting.append(branch)
