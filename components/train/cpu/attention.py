"""Attention within the blocks of a packed sequence, rotary embedding included.

Tokens of different blocks never see each other, and on a CPU the work of hiding them from each
other is that of computing them. Per block, attention costs the square of the block, not of the
sequence. In the last layer only the tokens that predict something go on: no other asks anything, or
has anything to say. Written out as PyTorch operations, attention copies keys and values for each
head that reads them, and holds scores in fp32; on a CPU that memory traffic costs more than the
products. Here queries of one key stand together, in the order ``[key heads, tokens, queries of a
key, width]``, of which a block is a view, and what is kept for the way back is in the input's
precision.
Imported late, since it loads torch.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch  # noqa: TID253 - this module is itself imported late
from transformers import AttentionInterface  # noqa: TID253 - as above
from transformers.models.llama.modeling_llama import eager_attention_forward  # noqa: TID253

from components.train.packing import can_pack_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from components.train.micro_batches import MicroBatch

NAME = "blocks"
LIKE_LLAMA = ("llama", "qwen2", "qwen3", "smollm3")
JUST_LLAMA = ("llama", "qwen2")
"""Whose queries and keys are turned by their position, and nothing else is done to them."""


def use(model: "PreTrainedModel") -> None:
    """Let a model that is trained on a CPU attend block by block, if its attention is Llama's."""
    is_llamas = model.config.model_type in LIKE_LLAMA and can_pack_rows(model, sys.maxsize)
    if not is_llamas:
        return
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
    if model.config.model_type in JUST_LLAMA and not model.config.attention_dropout:
        layers: Any = model.base_model.layers
        for layer in layers:
            layer.self_attn.forward = partial(_attend, layer.self_attn, layer.self_attn.forward)
        layers[-1].forward = partial(_last, layers[-1], layers[-1].forward)


def given(model: torch.nn.Module, share: "MicroBatch") -> dict[str, Any]:
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
        HeadShape(layer.config.num_key_value_heads, layer.head_dim, layer.scaling),
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


Block: TypeAlias = Sequence[int]
"""First and one past the last token of a block, and of its tokens that ask."""


class HeadShape(NamedTuple):
    """How the layer's columns are shared out."""

    key_heads: int
    width: int
    scale: float
    """What scores are multiplied by."""


class Attention(torch.autograd.Function):
    """``softmax(scale R(q) R(k)^T) v`` of each block, where R turns by the token's position."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        kept: torch.Tensor | None,
        mask: torch.Tensor,
        blocks: Sequence[Block],
        shape: HeadShape,
    ) -> torch.Tensor:
        """Attend, block by block.

        Args:
            ctx: Autograd's.
            query: ``[asking tokens, heads * width]``.
            key: ``[tokens, key heads * width]``, as is ``value``.
            value: See ``key``.
            turns: Cosines and sines of each token, ``[tokens, width]``, equal in both halves of it.
            kept: The tokens that ask, ascending; all if ``None``.
            mask: Below zero where a token does not see another, ``[tokens, tokens]``.
            blocks: Outside of which no token sees another.
            shape: How the columns are shared out.

        Returns:
            ``[asking tokens, heads * width]``.
        """
        asking = tuple((one if kept is None else one[kept]).float() * shape.scale for one in turns)
        hidden = (mask if kept is None else mask[kept]) < 0
        q = turned(_by_key_head(query, shape), *asking)
        k = turned(_by_key_head(key, shape), *turns)[:, :, 0]
        v = _by_key_head(value, shape)[:, :, 0].contiguous()
        found = torch.empty_like(q)
        shares: list[torch.Tensor] = []
        for first, last, start, end in blocks:
            asked = q[:, start:end].flatten(1, 2)
            scores = asked @ k[:, first:last].transpose(1, 2)
            seen = hidden[start:end, None, first:last]
            scores.unflatten(1, (end - start, -1)).masked_fill_(seen, -torch.inf)
            share = scores.softmax(-1)
            found[:, start:end] = (share @ v[:, first:last]).view_as(found[:, start:end])
            shares.append(share)
        ctx.save_for_backward(q, k, v, *turns, *asking, *shares)
        ctx.blocks, ctx.shape = blocks, shape
        return _by_token(found)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Give the gradients of ``query``, ``key`` and ``value``."""
        q, k, v, cos, sin, asking_cos, asking_sin, *shares = ctx.saved_tensors
        given = _by_key_head(gradients[0], ctx.shape).contiguous()
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for (first, last, start, end), share in zip(ctx.blocks, shares, strict=True):
            here = given[:, start:end].flatten(1, 2)
            of_v[:, first:last] = share.transpose(1, 2) @ here
            of_share = here @ v[:, first:last].transpose(1, 2)
            of_scores = torch.ops.aten._softmax_backward_data(of_share, share, -1, share.dtype)
            of_q[:, start:end] = (of_scores @ k[:, first:last]).view_as(of_q[:, start:end])
            of_k[:, first:last] = of_scores.transpose(1, 2) @ q[:, start:end].flatten(1, 2)
        of_q = turned(of_q, asking_cos, -asking_sin)
        of_k = turned(of_k[:, :, None], cos, -sin)
        return _by_token(of_q), _by_token(of_k), _by_token(of_v[:, :, None]), *[None] * 5


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each token by its angles (RoPE, arXiv:2104.09864); by the negative sines, back.

    Args:
        x: ``[key heads, tokens, queries of a key, width]``.
        cos: ``[tokens, width]``, as is ``sin``, equal in both halves of the width.
        sin: See ``cos``.
    """
    half = x.shape[-1] // 2
    low, high = x[..., :half].float(), x[..., half:].float()
    cos, sin = cos[:, None, :half].float(), sin[:, None, :half].float()
    found = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    found[..., :half] = (low * cos).addcmul_(high, sin, value=-1)
    found[..., half:] = high.mul_(cos).addcmul_(low, sin)
    return found


def _by_key_head(x: torch.Tensor, shape: HeadShape) -> torch.Tensor:
    """View ``[tokens, heads * width]`` as ``[key heads, tokens, queries of a key, width]``."""
    return x.view(len(x), shape.key_heads, -1, shape.width).transpose(0, 1)


def _by_token(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1)
