"""Attention within blocks as one step forward and one back, rotary embedding included, for CPUs.

Written out as PyTorch operations it copies keys and values for each head that reads them, and holds
scores in fp32; on a CPU that memory traffic costs more than the products. Here queries of one key
stand together, in the order ``[key heads, tokens, queries of a key, width]``, of which a block is a
view, and what is kept for the way back is in the input's precision.
Imported late, since it loads torch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch  # noqa: TID253 - this module is itself imported late

Block: TypeAlias = Sequence[int]
"""First and one past the last token of a block, and of its tokens that ask."""


class Shape(NamedTuple):
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
        shape: Shape,
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
        q = turned(_apart(query, shape), *asking)
        k = turned(_apart(key, shape), *turns)[:, :, 0]
        v = _apart(value, shape)[:, :, 0].contiguous()
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
        return _together(found)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Give the gradients of ``query``, ``key`` and ``value``."""
        q, k, v, cos, sin, asking_cos, asking_sin, *shares = ctx.saved_tensors
        given = _apart(gradients[0], ctx.shape).contiguous()
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
        return _together(of_q), _together(of_k), _together(of_v[:, :, None]), *[None] * 5


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


def _apart(x: torch.Tensor, shape: Shape) -> torch.Tensor:
    """View ``[tokens, heads * width]`` as ``[key heads, tokens, queries of a key, width]``."""
    return x.view(len(x), shape.key_heads, -1, shape.width).transpose(0, 1)


def _together(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1)
