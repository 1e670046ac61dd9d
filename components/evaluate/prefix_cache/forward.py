"""Have a model read a tree of prefixes, pack by pack, with each token computed once.

A pack is one sequence without padding: a mask says for each token which others are before it in its
rows, and its position is the one that it has there, so it becomes what it would in a row of its
own. Only the path to the next pack is kept of the keys and values.
Imported late, since it loads torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late
from transformers import DynamicCache  # noqa: TID253 - as above
from transformers.cache_utils import DynamicLayer  # noqa: TID253 - as above

from components.evaluate.prefix_cache.tree import Ints, Pack, Tree, grow, packs

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


def _divergence(one: torch.Tensor, other: torch.Tensor) -> float:
    """Give the largest Kullback-Leibler divergence of two models' words, over the places."""
    logs, others = one.log_softmax(-1), other.log_softmax(-1)
    return float((logs.exp() * (logs - others)).sum(-1).max())


def _on(model: "Model", numbers: Ints) -> torch.Tensor:
    return torch.from_numpy(numbers).to(model.device)


def _layers(cache: DynamicCache) -> "list[Any]":
    """List a cache's layers, which pyright thinks may hold nothing."""
    return cache.layers
