"""Whether a model can have several rows in one sequence, told apart by a mask and by positions."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FULL, BOUNDED = {"full_attention"}, {"sliding_attention", "chunked_attention"}
"""What transformers calls layers that see all that a mask shows, and such as see so many tokens."""


def packs(model: "torch.nn.Module", longest: int) -> bool:
    """Tell whether a model can have rows of up to ``longest`` tokens in one sequence.

    It has to know where a token stands from ``position_ids`` alone, as rotary embeddings do (ALiBi
    counts the places in between), and each of its layers has to see all that the mask shows, and
    nothing else: not so convolutions, states that are carried along, or windows shorter than a row.
    """
    config: Any = getattr(getattr(model, "module", model), "config", None)
    is_rotary = getattr(config, "rope_parameters", None) and not getattr(config, "alibi", False)
    if not is_rotary or getattr(model, "_is_stateful", False):
        return False
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    window: int = next(filter(None, windows), 0)
    kinds = set(getattr(config, "layer_types", None) or (BOUNDED if window else FULL))
    return kinds <= FULL or (kinds <= FULL | BOUNDED and longest <= window)
