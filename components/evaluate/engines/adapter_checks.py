"""Check that an adapter is valid, fits its base and changes its logits, before it is scored."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS_FILE = "adapter_model.safetensors"

PROBE_TEXT = "The quick brown fox jumps over the lazy dog."
"""Any text works: weights other than zero change its logits."""

LAST_FACTORS = (".lora_B.", ".lora_E")
"""The factors of LoRA and AdaLoRA that are initialised to zero, so the adapter adds nothing."""

SHOWN = 3  # the most tensors that a message names


class AdapterNotAppliedError(ValueError):
    """Raised for an adapter that does not fit its base or has no effect."""


def require_sound(adapter: Path) -> None:
    """Check that all weights are finite and that not all last factors are zero.

    Raises:
        AdapterNotAppliedError: With the names of invalid tensors.
    """
    broken: list[str] = []
    last: dict[str, bool] = {}
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is not a mapping
            tensor = file.get_tensor(name)
            if not tensor.isfinite().all():
                broken.append(name)
            if any(factor in name for factor in LAST_FACTORS):
                last[name] = bool(tensor.any())
    if broken:
        raise AdapterNotAppliedError(f"evaluating {adapter}: {_named(broken)} hold NaN or infinity")
    if last and not any(last.values()):
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: {_named([*last])} are all zero, as before the first step, so "
            "it adds nothing to its base; train it"
        )


def adapter_modules(adapter: Path) -> list[str]:
    """List the last name parts of the modules that an adapter has weights for."""
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        modules = [name.partition(".lora_")[0] for name in file.keys()]  # noqa: SIM118 - as above
    return sorted({name.rpartition(".")[2] for name in modules})


def require_fitting(adapter: Path, base: Path) -> None:
    """Check that an adapter has exactly the weights that its configuration requires on its base.

    For vLLM: no weight of the base is loaded. The transformers engine checks it on attaching.

    Raises:
        AdapterNotAppliedError: With the names of extra or missing weights, or of modules that the
            base lacks.
    """
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(base, local_files_only=True)
        )
        try:
            adapted = get_peft_model(shape, PeftConfig.from_pretrained(str(adapter)))
        except ValueError as error:
            raise AdapterNotAppliedError(
                f"evaluating {adapter}: it does not fit the base: {error}"
            ) from error
    expected = {*get_peft_model_state_dict(adapted, save_embedding_layers=False)}
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        present = set(file.keys())
    if extra := sorted(present - expected):
        raise AdapterNotAppliedError(_unmatched(adapter, extra))
    if missing := sorted(expected - present):
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: it does not fit the base: {_named(missing)} are missing"
        )


def probe_logits(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> "torch.Tensor":
    """Return the logits of the last token of ``PROBE_TEXT``, ``[vocabulary]``."""
    import torch

    ids = tokenizer(PROBE_TEXT, return_tensors="pt")["input_ids"]
    assert isinstance(ids, torch.Tensor)
    with torch.inference_mode():
        return model(input_ids=ids.to(model.device)).logits[0, -1]


def require_applied(
    adapted: "PeftModel",
    adapter: Path,
    tokenizer: "PreTrainedTokenizerBase",
    base_logits: "torch.Tensor",
) -> None:
    """Check that an adapter is attached with all its weights and changes the base's logits.

    ``base_logits`` are the base's ``probe_logits`` without the adapter.

    Raises:
        AdapterNotAppliedError: Weights match no module, or the logits are unchanged.
    """
    from peft import get_peft_model_state_dict

    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        present = set(file.keys())
    attached = {
        *get_peft_model_state_dict(adapted, save_embedding_layers=False),
        *adapted.state_dict(),
    }
    if extra := sorted(present - attached):
        raise AdapterNotAppliedError(_unmatched(adapter, extra))
    if probe_logits(adapted, tokenizer).equal(base_logits):
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: with it attached, the base's logits of a text are identical "
            "to those without it; its weights are too small for this precision"
        )


def _unmatched(adapter: Path, tensors: list[str]) -> str:
    return (
        f"evaluating {adapter}: {_named(tensors)} match no module of the base, so they would be "
        "ignored; it was trained on another architecture, or its weights were renamed"
    )


def _named(tensors: list[str]) -> str:
    more = len(tensors) - SHOWN
    shown = ", ".join(tensors[:SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
