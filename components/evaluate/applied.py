"""See that an adapter is really applied before it is scored: otherwise the base would be, twice.

What its files tell is read before a base is loaded; what only the two together tell, with the
adapter on and on one short text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from components.schema import Json

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "adapter_model.safetensors"

PROBE = "The quick brown fox jumps over the lazy dog."
"""Any text will do: weights that are not zero move the logits of every one."""

LAST_FACTORS = (".lora_B.", ".lora_E")
"""LoRA's factors that begin as zero, and AdaLoRA's: until one of them moves, nothing is added."""

SHOWN = 3
"""So many of the tensors that are wrong are named."""


class NotAppliedError(ValueError):
    """An adapter whose scores would not be its own."""


def require_base(adapter: Path, record: Mapping[str, Json], base_hash: str) -> None:
    """Refuse an adapter that was trained on another base.

    Args:
        adapter: Its folder.
        record: Its manifest.
        base_hash: The content hash of the base that it is to be put on.

    Raises:
        NotAppliedError: The hashes differ, or its manifest names none.
    """
    trained_on = record.get("base")
    if trained_on != base_hash:
        raise NotAppliedError(
            f"evaluating {adapter}: it was trained on base "
            f"{trained_on or 'that nothing recorded'}, and would be put on {base_hash}; measure it "
            "on its own base"
        )


def require_sound(adapter: Path) -> None:
    """Refuse weights that are no numbers, or that add nothing.

    Raises:
        NotAppliedError: With the names of such tensors.
    """
    broken: list[str] = []
    last: dict[str, bool] = {}
    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            tensor = file.get_tensor(name)
            if not tensor.isfinite().all():
                broken.append(name)
            if any(factor in name for factor in LAST_FACTORS):
                last[name] = bool(tensor.any())
    if broken:
        raise NotAppliedError(f"evaluating {adapter}: {_named(broken)} hold NaN or infinity")
    if last and not any(last.values()):
        raise NotAppliedError(
            f"evaluating {adapter}: {_named([*last])} are all zero, as before the first step, so "
            "it adds nothing to its base; train it"
        )


def probe(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> "torch.Tensor":
    """Give the logits of the last token of ``PROBE``, ``[vocabulary]``."""
    import torch

    ids = tokenizer(PROBE, return_tensors="pt")["input_ids"]
    assert isinstance(ids, torch.Tensor)
    with torch.inference_mode():
        return model(input_ids=ids.to(model.device)).logits[0, -1]


def require_applied(
    worn: "PeftModel",
    adapter: Path,
    tokenizer: "PreTrainedTokenizerBase",
    bare: "torch.Tensor",
) -> None:
    """Refuse an adapter that did not come to lie on the base, or that changes nothing there.

    Args:
        worn: The base with the adapter on.
        adapter: Its folder.
        tokenizer: The base's.
        bare: What ``probe`` gave of the base without it.

    Raises:
        NotAppliedError: Weights match no module, or the logits of a text are what they were.
    """
    from peft import get_peft_model_state_dict

    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        named = set(file.keys())
    taken = {*get_peft_model_state_dict(worn, save_embedding_layers=False), *worn.state_dict()}
    if lost := sorted(named - taken):
        raise NotAppliedError(
            f"evaluating {adapter}: {_named(lost)} match no module of the base, so they would be "
            "left out; it was trained on another architecture, or renamed"
        )
    if probe(worn, tokenizer).equal(bare):
        raise NotAppliedError(
            f"evaluating {adapter}: with it on, the base's logits of a text are what they were "
            "without it, to the last bit; its weights are too small for this precision"
        )


def _named(tensors: list[str]) -> str:
    more = len(tensors) - SHOWN
    shown = ", ".join(tensors[:SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
