"""A tree of token ids, so that what several rows begin with is computed once.

Rows that begin alike (one system prompt, the same tools, a question with its choices) share a
branch up to where they part. The nodes are numbered as a walk through the tree meets them, parents
first, and so in packs of any size: what a pack needs of those before it is one path from the root.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late
from numpy.typing import NDArray
from transformers import DynamicCache  # noqa: TID253 - as above
from transformers.cache_utils import DynamicLayer  # noqa: TID253 - as above

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


if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from peft import PeftModel
    from transformers import PreTrainedModel

    Model: TypeAlias = PreTrainedModel | PeftModel

KeysAndValues: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]
"""Of each layer, ``[heads, tokens, width]``."""

PROBE = ((1, 2), ((3, 4, 5, 6, 7, 8, 9, 10), (11, 12, 13), (14,)))
"""What the rows of a trial begin with, and how each goes on: as parts of the vocabulary, in 16ths.
A row that saw what is hidden from it would read eight tokens of another one first."""

NOISE = 1 / 10
"""How far what rounding does may move a model's word, of how far seeing hidden tokens does."""

NATS = 0.02
"""How far rounding to 16 bits may move it at all: the divergence of a next token's distribution."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model made of one pack.

    ``logits`` are those of the wanted ``nodes`` in the pack, ``[nodes, vocabulary]``, in fp32.
    """

    pack: Pack
    nodes: Ints
    logits: torch.Tensor
    cache: DynamicCache

    def behind(self, node: int) -> KeysAndValues:
        """Give the keys and values of a node of the pack and of all before it in its row."""
        layers = _layers(self.cache)
        columns = np.flatnonzero(self.pack.seen[node - self.pack.start])
        seen = torch.from_numpy(columns).to(layers[0].keys.device)
        return [(layer.keys[0, :, seen], layer.values[0, :, seen]) for layer in layers]


@torch.inference_mode()
def read(model: "Model", tree: Tree, wanted: Ints, room: int) -> Iterator[Reading]:
    """Have a model read a tree.

    Args:
        model: A causal language model that ``can_pack``.
        tree: What is to be read.
        wanted: The nodes whose logits are wanted, sorted.
        room: How many tokens are read at once.
    """
    cache, dtype = DynamicCache(config=model.config), dtype_of(model)
    for pack in packs(tree, room):
        first, last = np.searchsorted(wanted, [pack.start, pack.stop])
        nodes = wanted[first:last]
        seen = model(
            input_ids=_on(model, tree.tokens[pack.start : pack.stop])[None],
            position_ids=_on(model, tree.positions[pack.start : pack.stop])[None],
            attention_mask=hiding(torch.from_numpy(pack.seen).to(model.device), dtype)[None, None],
            cache=cache,
            use_cache=True,
            logits_to_keep=_on(model, nodes - pack.start),
        )
        yield Reading(pack, nodes, seen.logits[0].float(), cache)
        kept = _on(model, pack.kept)
        for layer in _layers(cache):
            layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]


def hiding(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Make what is added to attention's scores, so that it sees what it may and nothing else."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )


def dtype_of(model: "Model") -> torch.dtype:
    """Name what a model computes in."""
    return cast("torch.Tensor", model.get_input_embeddings().weight).dtype


@torch.inference_mode()
def can_pack(model: "Model", way: "AbstractContextManager[object]") -> bool:
    """Tell whether a model reads rows in a tree, in this way, as it reads them alone, by trying.

    One whose layers see only a window or keep a state does not, nor one that takes positions from
    somewhere else, nor one that does not heed the mask. The rows of the trial share a pack, and are
    read in several as well. In fp32 the logits are the same; in 16 bits, where rounding moves them,
    what is said differs far less than if nothing were hidden, or it can't be told and is refused.
    """
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return False
    rows = _probe(model)
    tree = grow(rows)
    nodes = np.concatenate([tree.last(at, len(row)) for at, row in enumerate(rows)])
    alone = torch.cat([model(_on(model, np.array([row]))).logits[0].float() for row in rows])
    with way:
        together = [_all(model, tree, room)[nodes] for room in _rooms(tree)]
        unhidden = _all_unhidden(model, tree)[nodes]
    if dtype_of(model).itemsize >= torch.float32.itemsize:
        tolerance = 100 * torch.finfo(torch.float32).eps
        limit = tolerance * float(alone.abs().max())
        return all(torch.allclose(one, alone, rtol=tolerance, atol=limit) for one in together)
    moved = max(_divergence(alone, one) for one in together)
    return moved < min(NATS, NOISE * _divergence(alone, unhidden))


def _probe(model: "Model") -> list[list[int]]:
    """Make the rows of a trial of tokens from all over the vocabulary, so that they differ."""
    size = len(cast("torch.Tensor", model.get_input_embeddings().weight))
    before, branches = PROBE
    return [[size * part // 16 for part in (*before, *branch)] for branch in branches]


def _rooms(tree: Tree) -> tuple[int, ...]:
    """Read the tree at once, and cut in the middle of its first branch."""
    return len(tree.tokens), len(tree.tokens) // 2


def _all(model: "Model", tree: Tree, room: int) -> torch.Tensor:
    """Give the logits of all nodes of a tree, ``[nodes, vocabulary]``."""
    wanted = np.arange(len(tree.tokens))
    return torch.cat([one.logits for one in read(model, tree, wanted, room)])


def _all_unhidden(model: "Model", tree: Tree) -> torch.Tensor:
    """Give the logits of all nodes, each of which sees every one before it."""
    seen = torch.ones(len(tree.tokens), len(tree.tokens), dtype=torch.bool, device=model.device)
    mask = hiding(seen.tril(), dtype_of(model))[None, None]
    tokens, positions = (_on(model, one)[None] for one in (tree.tokens, tree.positions))
    return model(tokens, position_ids=positions, attention_mask=mask).logits[0].float()


def _divergence(logits: torch.Tensor, other: torch.Tensor) -> float:
    """Give the largest Kullback-Leibler divergence of two models' words, over the places."""
    logs, others = logits.log_softmax(-1), other.log_softmax(-1)
    return float((logs.exp() * (logs - others)).sum(-1).max())


def _on(model: "Model", numbers: Ints) -> torch.Tensor:
    return torch.from_numpy(numbers).to(model.device)


def _layers(cache: DynamicCache) -> "list[Any]":
    """List a cache's layers, which pyright thinks may hold nothing."""
    return cache.layers
