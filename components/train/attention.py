"""Attention within the blocks of a packed sequence, for CPUs.

Tokens of different blocks never see each other, and on a CPU the work of hiding them from each
other is that of computing them. Per block, attention costs the square of the block, not of the
sequence. In the last layer only the tokens that predict something go on: no other asks anything, or
has anything to say.
Imported late, since it loads torch.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this module is itself imported late
from transformers import AttentionInterface  # noqa: TID253 - as above
from transformers.models.llama.modeling_llama import eager_attention_forward  # noqa: TID253

from components.train.blocks import Attention, Shape
from components.train.packable import packs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from components.train.batches import Share

NAME = "blocks"
LIKE_LLAMA = ("llama", "qwen2", "qwen3", "smollm3")
JUST_LLAMA = ("llama", "qwen2")
"""Whose queries and keys are turned by their position, and nothing else is done to them."""


def use(model: "PreTrainedModel") -> None:
    """Let a model that is trained on a CPU attend block by block, if its attention is Llama's."""
    is_llamas = model.config.model_type in LIKE_LLAMA and packs(model, sys.maxsize)
    if model.device.type != "cpu" or not is_llamas:
        return
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
    if model.config.model_type in JUST_LLAMA and not model.config.attention_dropout:
        layers: Any = model.base_model.layers
        for layer in layers:
            layer.self_attn.forward = partial(_attend, layer.self_attn, layer.self_attn.forward)
        layers[-1].forward = partial(_last, layers[-1], layers[-1].forward)


def given(model: torch.nn.Module, share: "Share") -> dict[str, Any]:
    """Give what a model has to be told of the blocks, and which logits are wanted of it."""
    config: Any = getattr(getattr(model, "module", model), "config", None)
    if getattr(config, "_attn_implementation", "") != NAME:
        return {"logits_to_keep": share["predicting"]}
    told = {"blocks": share["blocks"]}
    if config.model_type in JUST_LLAMA and not config.attention_dropout:
        return told | {"kept": share["kept"], "logits_to_keep": share["asked"]}
    return told | {"logits_to_keep": share["predicting"]}


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    blocks: torch.Tensor | None = None,
    **others: Any,  # noqa: ANN401 - it is passed on to the model's own
) -> tuple[torch.Tensor, None]:
    """Attend as the model would, but apart in each block.

    Args:
        module: The attention's layer.
        query: ``[1, heads, tokens, width]``, as are ``key`` and ``value``, but for fewer heads.
        key: See ``query``.
        value: See ``query``.
        attention_mask: Added to the scores, ``[1, 1, tokens, tokens]``.
        blocks: First and one past the last token of each, ``[blocks, 2 or more]``; all are one if
            ``None``.
        others: What the model's attention wants besides.

    Returns:
        What was attended to, ``[1, tokens, heads, width]``.
    """
    spans = [(0, query.shape[2])] if blocks is None else [one[:2] for one in blocks.tolist()]
    found = [
        eager_attention_forward(
            module,
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            None if attention_mask is None else attention_mask[:, :, start:end, start:end],
            **others,
        )[0]
        for start, end in spans
    ]
    return torch.cat(found, dim=1), None


def _attend(
    layer: Any,  # noqa: ANN401 - one of several classes of transformers
    by_transformers: Callable[..., tuple[torch.Tensor, None]],
    hidden_states: torch.Tensor,
    *,
    asking: torch.Tensor | None = None,
    blocks: torch.Tensor | None = None,
    **others: Any,  # noqa: ANN401 - as above
) -> tuple[torch.Tensor, None]:
    """Do what an attention layer does, for the tokens that are ``asking`` or for all."""
    if blocks is None:
        return by_transformers(hidden_states, **others)
    spans = blocks.tolist()
    if asking is None:
        spans = [(*one[:2], *one[:2]) for one in spans]
    asked = hidden_states if asking is None else hidden_states[:, asking]
    query, key, value = (
        layer.q_proj(asked),
        layer.k_proj(hidden_states),
        layer.v_proj(hidden_states),
    )
    is_mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if is_mixed else query.dtype
    fused: Any = Attention.apply
    found = fused(
        query[0].to(dtype),
        key[0].to(dtype),
        value[0].to(dtype),
        tuple(one[0] for one in others["position_embeddings"]),
        asking,
        others["attention_mask"][0, 0],
        spans,
        Shape(layer.config.num_key_value_heads, layer.head_dim, layer.scaling),
    )
    return layer.o_proj(found[None]), None


def _last(
    layer: Any,  # noqa: ANN401 - as above
    by_transformers: Callable[..., torch.Tensor],
    hidden_states: torch.Tensor,
    *,
    kept: torch.Tensor | None = None,
    **others: Any,  # noqa: ANN401 - as above
) -> torch.Tensor:
    """Do what the last layer does, for the tokens that are ``kept`` or for all."""
    if kept is None:
        return by_transformers(hidden_states, **others)
    normed = layer.input_layernorm(hidden_states)
    attended, _ = layer.self_attn(hidden_states=normed, asking=kept, **others)
    found = hidden_states[:, kept] + attended
    return found + layer.mlp(layer.post_attention_layernorm(found))
