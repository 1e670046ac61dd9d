"""Check that an adapter is sound, fits its base and changes its answers, before it is scored."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from components.store.manifest import AdapterManifest

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS_FILE = "adapter_model.safetensors"

PROBE_TEXT = "The quick brown fox jumps over the lazy dog."
"""Any text will do: weights that are not zero move the logits of every one."""

LAST_FACTORS = (".lora_B.", ".lora_E")
"""LoRA's factors that begin as zero, and AdaLoRA's: until one of them moves, nothing is added."""

SHOWN = 3
"""So many of the tensors that are wrong are named."""


class AdapterNotAppliedError(ValueError):
    """An adapter whose scores would not be its own."""


def require_base(adapter: Path, record: AdapterManifest, base_hash: str) -> None:
    """Refuse an adapter that was trained on another base.

    Args:
        adapter: Its folder.
        record: Its manifest.
        base_hash: The content hash of the base that it is to be put on.

    Raises:
        NotAppliedError: The hashes differ, or its manifest names none.
    """
    trained_on = record.base
    if trained_on != base_hash:
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: it was trained on base "
            f"{trained_on or '(not recorded)'}, and would be put on {base_hash}; measure it "
            "on its own base"
        )


def require_sound(adapter: Path) -> None:
    """Refuse weights that are no numbers, or that add nothing.

    Raises:
        NotAppliedError: With the names of such tensors.
    """
    broken: list[str] = []
    last: dict[str, bool] = {}
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
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
    """Name the modules that an adapter has weights for, by the last part of their names."""
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        named = [name.partition(".lora_")[0] for name in file.keys()]  # noqa: SIM118 - as above
    return sorted({name.rpartition(".")[2] for name in named})


def require_fitting(adapter: Path, base: Path) -> None:
    """Refuse an adapter whose weights are not those that its configuration wants on its base.

    Where transformers puts it on, that is seen there; here no weight of the base is loaded.

    Raises:
        NotAppliedError: With the names of weights that are too many or missing, or of modules that
            the base hasn't got.
    """
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(base, local_files_only=True)
        )
        try:
            worn = get_peft_model(shape, PeftConfig.from_pretrained(str(adapter)))
        except ValueError as error:
            raise AdapterNotAppliedError(
                f"evaluating {adapter}: it does not fit the base: {error}"
            ) from error
    wanted = {*get_peft_model_state_dict(worn, save_embedding_layers=False)}
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        named = set(file.keys())
    if lost := sorted(named - wanted):
        raise AdapterNotAppliedError(_unmatched(adapter, lost))
    if missing := sorted(wanted - named):
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: it does not fit the base: {_named(missing)} are missing"
        )


def probe_logits(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> "torch.Tensor":
    """Give the logits of the last token of ``PROBE``, ``[vocabulary]``."""
    import torch

    ids = tokenizer(PROBE_TEXT, return_tensors="pt")["input_ids"]
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

    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        named = set(file.keys())
    taken = {*get_peft_model_state_dict(worn, save_embedding_layers=False), *worn.state_dict()}
    if lost := sorted(named - taken):
        raise AdapterNotAppliedError(_unmatched(adapter, lost))
    if probe_logits(worn, tokenizer).equal(bare):
        raise AdapterNotAppliedError(
            f"evaluating {adapter}: with it on, the base's logits of a text are what they were "
            "without it, to the last bit; its weights are too small for this precision"
        )


def _unmatched(adapter: Path, tensors: list[str]) -> str:
    return (
        f"evaluating {adapter}: {_named(tensors)} match no module of the base, so they would be "
        "left out; it was trained on another architecture, or renamed"
    )


def _named(tensors: list[str]) -> str:
    more = len(tensors) - SHOWN
    shown = ", ".join(tensors[:SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
