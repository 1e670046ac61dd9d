"""Attention within the blocks of a packed sequence, for CPUs.

Tokens of different blocks never see each other, and on a CPU the work of hiding them from each
other is that of computing them. Per block, attention costs the square of the block, not of the
sequence.
Imported late, since it loads torch.
"""

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this module is itself imported late
from transformers import AttentionInterface  # noqa: TID253 - as above
from transformers.models.llama.modeling_llama import eager_attention_forward  # noqa: TID253

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "blocks"
LIKE_LLAMA = ("llama", "qwen2", "qwen3", "smollm3")


def use(model: "PreTrainedModel") -> None:
    """Let a model that is trained on a CPU attend block by block, if its attention is Llama's."""
    if model.device.type == "cpu" and model.config.model_type in LIKE_LLAMA:
        AttentionInterface.register(NAME, attend)
        model.set_attn_implementation(NAME)


def given(model: torch.nn.Module, blocks: torch.Tensor) -> dict[str, torch.Tensor]:
    """Give what a model has to be told of the blocks: nothing, if it does not attend by them."""
    config: Any = getattr(getattr(model, "module", model), "config", None)
    return {"blocks": blocks} if getattr(config, "_attn_implementation", "") == NAME else {}


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
        blocks: First and one past the last token of each, ``[blocks, 2]``; all are one if ``None``.
        others: What the model's attention wants besides.

    Returns:
        What was attended to, ``[1, tokens, heads, width]``.
    """
    spans = [(0, query.shape[2])] if blocks is None else blocks.tolist()
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
