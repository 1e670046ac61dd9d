"""A tree of token ids, so that shared prefixes of rows are computed once.

Rows with a common prefix (one system prompt, the same tools, a question with its choices) share a
branch. The nodes are numbered depth first, parents first, so the tree can be cut into packs of any
size: a pack needs only one path from the root from the packs before it.
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

ROOT = -1  # the parent of a row's first token


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows as one tree.

    For each node: its token id, its position in its rows, its parent's number or ``ROOT``, and the
    end of its branch (one past its last descendant), all ``[nodes]``. ``leaves`` are the numbers
    of the rows' last tokens, in the order of the rows.
    """

    tokens: Ints
    positions: Ints
    parents: Ints
    ends: Ints
    leaves: Ints

    def last(self, row: int, count: int) -> list[int]:
        """List the nodes of the last ``count`` tokens of a row, in order."""
        nodes = [int(self.leaves[row])]
        while len(nodes) < count:
            nodes.append(int(self.parents[nodes[-1]]))
        return nodes[::-1]


@dataclass(frozen=True, slots=True)
class Pack:
    """Nodes that are computed in one forward pass, from ``start`` to one before ``stop``.

    ``columns`` are the nodes whose keys and values are available: the path to ``start`` and the
    pack's own. ``seen`` is the attention mask, ``[nodes, columns]``, and ``kept`` the indices in
    ``columns`` of the path to the next pack.
    """

    start: int
    stop: int
    columns: Ints
    seen: NDArray[np.bool_]
    kept: Ints


def grow(rows: Sequence[Row]) -> Tree:
    """Build a tree of rows of token ids, none empty; sorted rows make the smallest tree.

    Each row shares its common prefix with the row before it.
    """
    known = [0, *(common_prefix(row, following) for row, following in pairwise(rows))]
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
    """Cut a tree into packs of at most ``room`` nodes."""
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
    """Order rows from long to short, keeping families of shared prefixes together."""
    groups = families(rows)
    groups.sort(key=lambda family: -max(len(rows[row]) for row in family))
    return [row for family in groups for row in family]


if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from peft import PeftModel
    from transformers import PreTrainedModel

    Model: TypeAlias = PreTrainedModel | PeftModel

KeysAndValues: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]
"""Per layer, ``[heads, tokens, width]``."""

PROBE = ((1, 2), ((3, 4, 5, 6, 7, 8, 9, 10), (11, 12, 13), (14,)))
"""The common prefix of the test's rows, and their continuations, as fractions of the vocabulary in
16ths. A row that ignored the mask would see eight tokens of another row first."""

NOISE = 1 / 10  # the largest divergence by rounding, as a share of the divergence without a mask

NATS = 0.02
"""The largest Kullback-Leibler divergence of a next token's distribution by rounding to 16 bits."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A model's output for one pack.

    ``logits`` are those of the requested ``nodes`` in the pack, ``[nodes, vocabulary]``, in fp32.
    """

    pack: Pack
    nodes: Ints
    logits: torch.Tensor
    cache: DynamicCache

    def behind(self, node: int) -> KeysAndValues:
        """Return the keys and values of a node of the pack and of its ancestors."""
        layers = _layers(self.cache)
        columns = np.flatnonzero(self.pack.seen[node - self.pack.start])
        seen = torch.from_numpy(columns).to(layers[0].keys.device)
        return [(layer.keys[0, :, seen], layer.values[0, :, seen]) for layer in layers]


@torch.inference_mode()
def read(model: "Model", tree: Tree, scored: Ints, room: int) -> Iterator[Reading]:
    """Run a model that ``can_pack`` on a tree, in packs of at most ``room`` tokens.

    Logits are computed of the nodes ``scored``, which are sorted.
    """
    cache, dtype = DynamicCache(config=model.config), dtype_of(model)
    for pack in packs(tree, room):
        first, last = np.searchsorted(scored, [pack.start, pack.stop])
        nodes = scored[first:last]
        output = model(
            input_ids=_on(model, tree.tokens[pack.start : pack.stop])[None],
            position_ids=_on(model, tree.positions[pack.start : pack.stop])[None],
            attention_mask=hiding(torch.from_numpy(pack.seen).to(model.device), dtype)[None, None],
            cache=cache,
            use_cache=True,
            logits_to_keep=_on(model, nodes - pack.start),
        )
        yield Reading(pack, nodes, output.logits[0].float(), cache)
        kept = _on(model, pack.kept)
        for layer in _layers(cache):
            layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]


def hiding(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive attention mask for a boolean one."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )


def dtype_of(model: "Model") -> torch.dtype:
    """Return the dtype that a model computes in."""
    return cast("torch.Tensor", model.get_input_embeddings().weight).dtype


@torch.inference_mode()
def can_pack(model: "Model", way: "AbstractContextManager[object]") -> bool:
    """Test whether a model computes the same on a tree, within ``way``, as on separate rows.

    Models with sliding windows, recurrent states or their own positions do not, nor do those that
    ignore the mask. The test's rows share one pack, and are also read in several packs. In fp32
    the logits must be equal; in 16 bits, where they are rounded, the divergence must be far
    smaller than without a mask, otherwise the model fails.
    """
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return False
    rows = _probe(model)
    tree = grow(rows)
    nodes = np.concatenate([tree.last(at, len(row)) for at, row in enumerate(rows)])
    alone = torch.cat([model(_on(model, np.array([row]))).logits[0].float() for row in rows])
    with way:
        # in one pack, and cut in the middle of its first branch
        rooms = (len(tree.tokens), len(tree.tokens) // 2)
        together = [_all(model, tree, room)[nodes] for room in rooms]
        unhidden = _all_unhidden(model, tree)[nodes]
    if dtype_of(model).itemsize >= torch.float32.itemsize:
        tolerance = 100 * torch.finfo(torch.float32).eps
        limit = tolerance * float(alone.abs().max())
        return all(torch.allclose(packed, alone, rtol=tolerance, atol=limit) for packed in together)
    rounding = max(_divergence(alone, packed) for packed in together)
    return rounding < min(NATS, NOISE * _divergence(alone, unhidden))


def _probe(model: "Model") -> list[list[int]]:
    size = len(cast("torch.Tensor", model.get_input_embeddings().weight))
    prefix, branches = PROBE
    return [[size * part // 16 for part in (*prefix, *branch)] for branch in branches]


def _all(model: "Model", tree: Tree, room: int) -> torch.Tensor:
    nodes = np.arange(len(tree.tokens))
    return torch.cat([reading.logits for reading in read(model, tree, nodes, room)])


def _all_unhidden(model: "Model", tree: Tree) -> torch.Tensor:
    # with only a causal mask, not the tree's
    seen = torch.ones(len(tree.tokens), len(tree.tokens), dtype=torch.bool, device=model.device)
    mask = hiding(seen.tril(), dtype_of(model))[None, None]
    tokens, positions = _on(model, tree.tokens)[None], _on(model, tree.positions)[None]
    return model(tokens, position_ids=positions, attention_mask=mask).logits[0].float()


def _divergence(logits: torch.Tensor, other: torch.Tensor) -> float:
    # the largest Kullback-Leibler divergence of next tokens, in nats
    logs, others = logits.log_softmax(-1), other.log_softmax(-1)
    return float((logs.exp() * (logs - others)).sum(-1).max())


def _on(model: "Model", numbers: Ints) -> torch.Tensor:
    return torch.from_numpy(numbers).to(model.device)


def _layers(cache: DynamicCache) -> "list[Any]":
    return cache.layers  # Any: pyright thinks that their keys may be None
