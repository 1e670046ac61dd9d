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

from components.evaluate.prefixes import Ints, Pack, Tree, grow, packs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from peft import PeftModel
    from transformers import PreTrainedModel

    Model: TypeAlias = PreTrainedModel | PeftModel

KeysAndValues: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]
"""Of each layer, ``[heads, tokens, width]``."""

PROBE = ([5, 6, 7, 8], [5, 6, 9, 10])
"""Two rows that begin alike, to try a model with."""


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
    somewhere else.
    """
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return False
    tree = grow(PROBE)
    with way:
        together = [one.logits for one in read(model, tree, tree.leaves, len(tree.tokens) - 2)]
    alone = [model(_on(model, np.array([row]))).logits[0, -1].float() for row in PROBE]
    tolerance = 100 * torch.finfo(dtype_of(model)).eps
    return torch.allclose(
        torch.cat(together),
        torch.stack(alone),
        rtol=tolerance,
        atol=tolerance * float(alone[0].abs().max()),
    )


def _on(model: "Model", numbers: Ints) -> torch.Tensor:
    return torch.from_numpy(numbers).to(model.device)


def _layers(cache: DynamicCache) -> "list[Any]":
    """List a cache's layers, which pyright thinks may hold nothing."""
    return cache.layers
