"""Block-diagonal attention for packed sequences, rotary embedding included.

Blocks never attend to each other, and on a CPU a masked score costs as much as any other: here,
attention costs the square of each block, not of the sequence. The last layer computes only the
tokens that predict a learned token.

PyTorch's operations copy keys and values for each query head and keep scores in fp32; on a CPU that
memory traffic costs more than the products. Here the layout is ``[key heads, tokens, queries per
key, width]``, of which a block is a view, and tensors saved for the backward pass keep the input's
precision.
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
JUST_LLAMA = (
    "llama",
    "qwen2",
)  # queries and keys are rotated and not otherwise changed (no QK norm)


def use_block_attention(model: "PreTrainedModel") -> None:
    """Replace the model's attention by block attention in place; no-op if it isn't Llama's kind."""
    if model.config.model_type not in LIKE_LLAMA or not can_pack_rows(model, sys.maxsize):
        return
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
    if model.config.model_type in JUST_LLAMA and not model.config.attention_dropout:
        layers: Any = model.base_model.layers
        for layer in layers:
            layer.self_attn.forward = partial(
                _attention_forward, layer.self_attn, layer.self_attn.forward
            )
        layers[-1].forward = partial(_last_layer_forward, layers[-1], layers[-1].forward)


def forward_kwargs(model: torch.nn.Module, micro_batch: "MicroBatch") -> dict[str, Any]:
    """Return the forward pass's keyword arguments for blocks and for the logits to compute."""
    config: Any = getattr(getattr(model, "module", model), "config", None)
    if getattr(config, "_attn_implementation", "") != NAME:
        return {"logits_to_keep": micro_batch["predicting"]}
    blocks = {"blocks": micro_batch["blocks"]}
    if config.model_type in JUST_LLAMA and not config.attention_dropout:
        return blocks | {
            "last_layer_tokens": micro_batch["query_tokens"],
            "logits_to_keep": micro_batch["query_index"],
        }
    return blocks | {"logits_to_keep": micro_batch["predicting"]}


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
    """Run the model's own eager attention in each block.

    Args:
        module: The attention layer.
        query: ``[1, heads, tokens, width]``.
        key: ``[1, key heads, tokens, width]``, as ``value``.
        value: See ``key``.
        attention_mask: Added to the scores, ``[1, 1, tokens, tokens]``.
        blocks: ``[blocks, 2 or more]``, see ``Block``; one block if ``None``.
        others: The model's other arguments.

    Returns:
        The attention's output, ``[1, tokens, heads, width]``, and ``None`` for its weights.
    """
    spans = [(0, query.shape[2])] if blocks is None else [block[:2] for block in blocks.tolist()]
    outputs = [
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
    return torch.cat(outputs, dim=1), None


def _attention_forward(
    layer: Any,  # noqa: ANN401 - one of several classes of transformers
    original_forward: Callable[..., tuple[torch.Tensor, None]],
    hidden_states: torch.Tensor,
    *,
    query_tokens: torch.Tensor | None = None,
    blocks: torch.Tensor | None = None,
    **others: Any,  # noqa: ANN401 - as above
) -> tuple[torch.Tensor, None]:
    """Compute an attention layer's output for ``query_tokens``, or for all tokens."""
    if blocks is None:
        return original_forward(hidden_states, **others)
    spans = blocks.tolist()
    if query_tokens is None:
        spans = [(*block[:2], *block[:2]) for block in spans]
    query_states = hidden_states if query_tokens is None else hidden_states[:, query_tokens]
    query = layer.q_proj(query_states)
    key, value = layer.k_proj(hidden_states), layer.v_proj(hidden_states)
    is_mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if is_mixed else query.dtype
    fused: Any = Attention.apply
    attended = fused(
        query[0].to(dtype),
        key[0].to(dtype),
        value[0].to(dtype),
        tuple(embedding[0] for embedding in others["position_embeddings"]),
        query_tokens,
        others["attention_mask"][0, 0],
        spans,
        HeadShape(layer.config.num_key_value_heads, layer.head_dim, layer.scaling),
    )
    return layer.o_proj(attended[None]), None


def _last_layer_forward(
    layer: Any,  # noqa: ANN401 - as above
    original_forward: Callable[..., torch.Tensor],
    hidden_states: torch.Tensor,
    *,
    last_layer_tokens: torch.Tensor | None = None,  # every layer gets it, only the last reads it
    **others: Any,  # noqa: ANN401 - as above
) -> torch.Tensor:
    """Compute the last layer's output for ``last_layer_tokens``, or for all tokens."""
    if last_layer_tokens is None:
        return original_forward(hidden_states, **others)
    normed = layer.input_layernorm(hidden_states)
    attended, _ = layer.self_attn(hidden_states=normed, query_tokens=last_layer_tokens, **others)
    residual = hidden_states[:, last_layer_tokens] + attended
    return residual + layer.mlp(layer.post_attention_layernorm(residual))


Block: TypeAlias = Sequence[int]
"""First and one past the last token of a block, then the same range of its query tokens."""


class HeadShape(NamedTuple):
    """A projection's columns; ``scale`` is the factor of the scores."""

    key_heads: int
    width: int
    scale: float


class Attention(torch.autograd.Function):
    """``softmax(scale R(q) R(k)^T) v`` in each block, where R rotates by the token's position."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rotations: tuple[torch.Tensor, torch.Tensor],
        query_tokens: torch.Tensor | None,
        mask: torch.Tensor,
        blocks: Sequence[Block],
        shape: HeadShape,
    ) -> torch.Tensor:
        """Return the attention's output, ``[query tokens, heads * width]``.

        Args:
            ctx: Autograd's.
            query: ``[query tokens, heads * width]``.
            key: ``[tokens, key heads * width]``, as ``value``.
            value: See ``key``.
            rotations: Cosines and sines per token, ``[tokens, width]``; both halves are equal.
            query_tokens: Sorted indices of the tokens that attend; all if ``None``.
            mask: Below zero where a token does not see another, ``[tokens, tokens]``.
            blocks: No token sees anything outside of its block.
            shape: The columns' heads.
        """
        query_rotations = tuple(
            (factor if query_tokens is None else factor[query_tokens]).float() * shape.scale
            for factor in rotations
        )
        hidden = (mask if query_tokens is None else mask[query_tokens]) < 0
        q = rotate(_by_key_head(query, shape), *query_rotations)
        k = rotate(_by_key_head(key, shape), *rotations)[:, :, 0]
        v = _by_key_head(value, shape)[:, :, 0].contiguous()
        output = torch.empty_like(q)
        saved: list[torch.Tensor] = []
        for first, last, start, end in blocks:
            scores = q[:, start:end].flatten(1, 2) @ k[:, first:last].transpose(1, 2)
            masked = hidden[start:end, None, first:last]
            scores.unflatten(1, (end - start, -1)).masked_fill_(masked, -torch.inf)
            weights = scores.softmax(-1)
            output[:, start:end] = (weights @ v[:, first:last]).view_as(output[:, start:end])
            saved.append(weights)
        ctx.save_for_backward(q, k, v, *rotations, *query_rotations, *saved)
        ctx.blocks, ctx.shape = blocks, shape
        return _by_token(output)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of ``query``, ``key`` and ``value``."""
        q, k, v, cos, sin, query_cos, query_sin, *saved = ctx.saved_tensors
        grad_output = _by_key_head(gradients[0], ctx.shape).contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for (first, last, start, end), weights in zip(ctx.blocks, saved, strict=True):
            grad_block = grad_output[:, start:end].flatten(1, 2)
            grad_v[:, first:last] = weights.transpose(1, 2) @ grad_block
            grad_weights = grad_block @ v[:, first:last].transpose(1, 2)
            grad_scores = torch.ops.aten._softmax_backward_data(
                grad_weights, weights, -1, weights.dtype
            )
            grad_q[:, start:end] = (grad_scores @ k[:, first:last]).view_as(grad_q[:, start:end])
            grad_k[:, first:last] = grad_scores.transpose(1, 2) @ q[:, start:end].flatten(1, 2)
        grad_q = rotate(grad_q, query_cos, -query_sin)
        grad_k = rotate(grad_k[:, :, None], cos, -sin)
        return _by_token(grad_q), _by_token(grad_k), _by_token(grad_v[:, :, None]), *[None] * 5


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate each token by its angles (RoPE, arXiv:2104.09864); negative sines rotate back.

    ``x`` is ``[key heads, tokens, queries per key, width]``; ``cos`` and ``sin`` are ``[tokens,
    width]``, with equal halves.
    """
    half = x.shape[-1] // 2
    low, high = x[..., :half].float(), x[..., half:].float()
    cos, sin = cos[:, None, :half].float(), sin[:, None, :half].float()
    rotated = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rotated[..., :half] = (low * cos).addcmul_(high, sin, value=-1)
    rotated[..., half:] = high.mul_(cos).addcmul_(low, sin)
    return rotated


def _by_key_head(x: torch.Tensor, shape: HeadShape) -> torch.Tensor:
    """View ``[tokens, heads * width]`` as ``[key heads, tokens, queries per key, width]``."""
    return x.view(len(x), shape.key_heads, -1, shape.width).transpose(0, 1)


def _by_token(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1)
