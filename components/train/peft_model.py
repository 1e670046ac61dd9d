"""Attach an adapter, or full fine-tuning, as a PEFT model; save, average and restore it."""

import re
import shutil
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import (  # noqa: TID253 - as above
    EvaConfig,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from peft.tuners.ln_tuning.layer import LNTuningLayer  # noqa: TID253 - as above
from transformers import set_seed  # noqa: TID253 - as above

from components.models import base as bases
from components.models import device
from components.models.base import ADAPTER
from components.models.device import Computing
from components.train import device_engine, init_weights, rank_allocation
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from components.train.training_examples import Tokens


def tie_embeddings(adapted: PeftModel) -> None:
    """Tie the trained copies of embedding and output layer if the base's are tied."""
    base = cast("PreTrainedModel", adapted.get_base_model())
    if not base.config.tie_word_embeddings:
        return
    inputs, outputs = base.get_input_embeddings(), base.get_output_embeddings()
    assert isinstance(inputs, LNTuningLayer)
    assert isinstance(outputs, LNTuningLayer)
    weight = inputs.ln_tuning_layers[ADAPTER].get_parameter("weight")
    outputs.ln_tuning_layers[ADAPTER].register_parameter("weight", weight)


@contextmanager
def hidden_from_trl(adapted: PeftModel) -> Generator[None]:
    """Hide the output layer while TRL creates its trainer.

    TRL refuses to train it, since TRL's loss reads the base's weight; ours uses the model's logits.
    """
    adapted.get_output_embeddings = lambda: None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del adapted.get_output_embeddings


def _require_linear(model: "PreTrainedModel", recipe: Recipe) -> None:
    """Raise ``ValueError`` if first weights can't be computed from a module's weights."""
    if not isinstance(recipe.target_modules, list) or recipe.init_lora_weights in (True, "eva"):
        return
    ends = tuple(f".{name}" for name in recipe.target_modules)
    for name, module in model.named_modules():
        if f".{name}".endswith(ends) and isinstance(module, torch.nn.Embedding):
            raise ValueError(
                f"init_lora_weights {recipe.init_lora_weights} is computed from the weights of "
                f"linear layers, and target_modules names {name}: leave it out, or take true"
            )


def _last_names(modules: Iterable[str]) -> str:
    names = sorted({name.rpartition(".")[2] for name in modules} - {""})
    return ", ".join(name for name in names if not name.isdigit())


def _require_targets(adapted: PeftModel, recipe: Recipe, modules: Sequence[str]) -> None:
    """Raise ``ValueError`` if a name or a layer got no adapter: PEFT refuses only if none did."""
    tuner: Any = adapted.base_model
    targeted: list[str] = tuner.targeted_module_names
    # The configuration's names: PEFT replaces those of modules that transformers has merged.
    names: set[str] = tuner.peft_config[ADAPTER].target_modules
    for name in sorted(names) if isinstance(recipe.target_modules, list) else ():
        if not any(f".{place}".endswith(f".{name}") for place in targeted):
            raise ValueError(
                f"target_modules names {name}, which this base doesn't have; it has "
                f"{_last_names(modules)}"
            )
    for layer in recipe.layers_to_transform or []:
        if not any(f".{layer}." in place for place in targeted):
            raise ValueError(
                f"layers_to_transform names layer {layer}, where this base has none of the "
                "target_modules; the first layer is 0"
            )


def attach_trainable(
    model: "PreTrainedModel",
    recipe: Recipe,
    rows: "Sequence[Tokens]" = (),
    *,
    warm_start: Path | None = None,
    checkpoint: Path | None = None,
    computing: Computing | None = None,
) -> PeftModel:
    """Freeze the base and add the recipe's trainable weights in fp32, without changing its answers.

    Args:
        model: The base, loaded for training.
        recipe: The method, its shape and its first weights.
        rows: The training's rows, for ``init_lora_weights: eva``.
        warm_start: An adapter of the same shape with the first weights.
        checkpoint: The checkpoint to resume from, whose weights the trainer loads later.
        computing: How it will be computed; this machine's best way if ``None``.

    Raises:
        ValueError: The recipe does not match the base.
    """
    set_seed(recipe.seed)
    computing = computing or device.best_computing()
    adapted = _wrap_base(model, recipe, checkpoint, widens=computing.widens)
    if not torch.cuda.is_available():
        bases.dequantize(adapted)
    if checkpoint is None or warm_start is not None or not recipe.starts_as_base:
        _set_first_weights(adapted, recipe, rows, warm_start)
    if recipe.has_frozen_half:
        init_weights.freeze_second_half(adapted, recipe.r)
    keep_in_fp32(adapted)
    # A plan's model is on meta, and a base that will be sharded is still in the host's memory.
    place = "cuda" if torch.cuda.is_available() else model.device.type
    if engine := device_engine.for_device(place):
        is_mixed = computing.products != "fp32"
        engine.prepare(adapted, caches_head=is_mixed and recipe.fsdp is None)
    return adapted


def _set_first_weights(
    adapted: PeftModel, recipe: Recipe, rows: "Sequence[Tokens]", warm_start: Path | None
) -> None:
    if warm_start is not None:
        load_weights(adapted, warm_start)
    elif recipe.init_lora_weights == "eva":
        init_weights.set_eva_weights(adapted, rows, recipe)
    elif recipe.init_lora_weights is not True:
        init_weights.set_init_weights(adapted, recipe)


def _wrap_base(
    model: "PreTrainedModel", recipe: Recipe, checkpoint: Path | None, *, widens: bool
) -> PeftModel:
    _require_linear(model, recipe)
    modules = [name for name, _ in model.named_modules()]
    if widens and getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # norms, trained whole
        adapted = get_peft_model(model, _lora_config(model, recipe, checkpoint))
    assert isinstance(adapted, PeftModel)
    adapted.create_or_update_model_card = _skip_model_card
    if recipe.method == "full":
        tie_embeddings(adapted)
    else:
        _require_targets(adapted, recipe, modules)
    if recipe.method == "adalora":
        rank_allocation.freeze_rank_counts(adapted)
    return adapted


def _skip_model_card(output_dir: str) -> None:
    # An empty form, which took a quarter of the time of a small training's checkpoints.
    pass


def _lora_config(model: "PreTrainedModel", recipe: Recipe, checkpoint: Path | None) -> PeftConfig:
    if recipe.method == "full":
        return LNTuningConfig(task_type="CAUSAL_LM", target_modules=_whole_modules(model))
    if recipe.method == "adalora":
        config = rank_allocation.adalora_config(recipe)
        config.exclude_modules = _towers(model)
        return config
    takes_rows = recipe.init_lora_weights == "eva"
    if checkpoint is not None and takes_rows:
        return init_weights.eva_config(checkpoint)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=init_weights.scaled_alpha(recipe),  # pyright: ignore[reportArgumentType] - PEFT writes floats
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        init_lora_weights="eva" if takes_rows else True,
        eva_config=EvaConfig() if takes_rows else None,
        target_modules=recipe.target_modules,
        exclude_modules=_towers(model),
        layers_to_transform=recipe.layers_to_transform,
    )


def _whole_modules(model: "PreTrainedModel") -> list[str]:
    """List the modules with weights of their own, but for those that no text passes.

    Raises:
        ValueError: One has others within, which PEFT can't copy one by one.
    """
    beside = _towers(model)
    names = [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
        and not (beside and re.fullmatch(beside, name))
    ]
    for name in names:
        place = name
        while place := place.rpartition(".")[0]:
            if place in names:
                raise ValueError(
                    f"method full copies each module with weights, but {place} of this base has "
                    f"weights of its own and {name} within: take method lora"
                )
    return names


def _towers(model: "PreTrainedModel") -> str | None:
    """Return a pattern of the modules that no text passes, such as the vision tower of Gemma 3.

    What is trained of theirs would stay as it is, take memory, and not be loaded by vLLM.
    """
    decoder: object = model.get_decoder()
    names = dict(model.named_modules())
    place = next((name for name, module in names.items() if module is decoder), "")
    parent, _, own = place.rpartition(".")
    if not parent:
        return None
    beside = rf"{re.escape(parent)}\.(?!{re.escape(own)}(\.|$)).*"
    has_layers = any(
        isinstance(module, torch.nn.Linear) and re.fullmatch(beside, name)
        for name, module in names.items()
    )
    return beside if has_layers else None


def load_weights(adapted: PeftModel, folder: Path) -> None:
    """Set the weights to those of an adapter folder.

    Raises:
        ValueError: It has another shape.
    """
    loaded = load_peft_weights(str(folder), device="cpu")
    current = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    shapes, expected = (
        {(name, weight.shape) for name, weight in weights.items()} for weights in (loaded, current)
    )
    if different := sorted({name for name, _ in shapes ^ expected}):
        raise ValueError(
            f"starting from {folder}: its shape is not that of the recipe's adapter, at "
            f"{different[0]} and {len(different) - 1} more; leave out warm_start"
        )
    set_peft_model_state_dict(adapted, loaded)


def keep_in_fp32(adapted: PeftModel) -> None:
    """Undo TRL's cast of a 4-bit base's adapter to bf16, where small steps round away.

    A resumed run loads its adapter in fp32, so it would differ from an uninterrupted one. Call it
    before the optimizer is created, which keeps references to the weights.
    """
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def average_weights(adapted: PeftModel, checkpoints: list[Path]) -> None:
    """Set the adapter to the mean of its and its checkpoints' weights (arXiv:1803.05407)."""
    final = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    saved = [load_peft_weights(str(checkpoint), device="cpu") for checkpoint in checkpoints]
    mean = {
        name: torch.stack([weight.cpu(), *(weights[name] for weights in saved)]).mean(0)
        for name, weight in final.items()
    }
    set_peft_model_state_dict(adapted, mean)


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write PEFT's two files, which load on the unchanged base without our code."""
    adapted.save_pretrained(str(folder), save_embedding_layers=False)


def keep_weights(adapted: PeftModel, folder: Path) -> None:
    """Save the adapter's weights; the folder appears only when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    for earlier in (partial, folder):
        shutil.rmtree(earlier, ignore_errors=True)
    save_adapter(adapted, partial)
    partial.replace(folder)


def restore_weights(adapted: PeftModel, folder: Path) -> None:
    """Set the adapter to the weights of ``keep_weights`` or of a checkpoint."""
    set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))


def count_trained(adapted: PeftModel) -> int:
    """Count the trained parameters."""
    return sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
