"""Attach an adapter, or full fine-tuning, as a PEFT model; save, average and restore it."""

import shutil
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

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
from components.models.base import ADAPTER
from components.train import cpu_engine, init_weights, rank_allocation
from components.train.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from components.train.training_examples import Tokens


def full_config(model: "PreTrainedModel") -> LNTuningConfig:
    """Name every module that has weights of its own."""
    names = [name for name, module in model.named_modules() if _owns_weights(module)]
    return LNTuningConfig(task_type="CAUSAL_LM", target_modules=names)


def tie_embeddings(adapted: "PeftModel") -> None:
    """Let the copies of embedding and output layer be one weight where the base's are one."""
    base = cast("PreTrainedModel", adapted.get_base_model())
    if not base.config.tie_word_embeddings:
        return
    inputs, outputs = base.get_input_embeddings(), base.get_output_embeddings()
    assert isinstance(inputs, LNTuningLayer)
    assert isinstance(outputs, LNTuningLayer)
    weight = inputs.ln_tuning_layers[ADAPTER].get_parameter("weight")
    outputs.ln_tuning_layers[ADAPTER].register_parameter("weight", weight)


@contextmanager
def hidden_from_trl(adapted: "PeftModel") -> Generator[None]:
    """Hide the output layer while TRL makes a trainer.

    It refuses one that is trained, since its own loss reads the weight of the base's; ours asks the
    model for its logits.
    """
    adapted.get_output_embeddings = lambda: None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del adapted.get_output_embeddings


def require_trainable(model: "PreTrainedModel", names: Sequence[str]) -> None:
    """Refuse ``modules_to_save`` that the base hasn't got, or holds in 4 bits.

    Raises:
        ValueError: It says which, and what could be named.
    """
    for wanted in names:
        found = {name: one for name, one in model.named_modules() if name.endswith(wanted)}
        if not found:
            known = sorted({name.rpartition(".")[2] for name, _ in model.named_modules()} - {""})
            raise ValueError(
                f"modules_to_save names {wanted}, which this base hasn't got; it has "
                f"{', '.join(one for one in known if not one.isdigit())}"
            )
        for name, module in found.items():
            if not all(weight.is_floating_point() for weight in module.parameters()):
                raise ValueError(
                    f"modules_to_save names {wanted}, and {name} is held in 4 bits, which a step "
                    "would not change: set bnb_4bit_quant_type to null, or give it an adapter"
                )


def _owns_weights(module: "torch.nn.Module") -> bool:
    return next(module.parameters(recurse=False), None) is not None


def attach_trainable(
    model: "PreTrainedModel",
    recipe: Recipe,
    rows: "Sequence[Tokens]" = (),
    *,
    warm_start: Path | None = None,
    checkpoint: Path | None = None,
) -> PeftModel:
    """Add what is to be trained, in fp32, to the frozen base, which answers as before without it.

    Args:
        model: The base, loaded for training.
        recipe: The method, its shape and its first weights.
        rows: What will be trained on; ``init_lora_weights: eva`` looks at it.
        warm_start: An adapter of the same shape whose weights are the first ones.
        checkpoint: Where the training goes on; the trainer loads its weights over the first ones.

    Raises:
        ValueError: The recipe wants what this base hasn't got.
    """
    set_seed(recipe.seed)
    adapted = _wrap_base(model, recipe, checkpoint)
    if not torch.cuda.is_available():
        bases.dequantize(adapted)
    if checkpoint is None or warm_start is not None:
        _set_first_weights(adapted, recipe, rows, warm_start)
    if recipe.has_frozen_half:
        init_weights.freeze_second_half(adapted, recipe.r)
    keep_in_fp32(adapted)
    # A plan's model is on no device yet, and a base that is split waits on the host for its GPUs.
    device = "cuda" if torch.cuda.is_available() else model.device.type
    if engine := cpu_engine.for_device(device):
        engine.prepare(adapted, caches_head=recipe.fsdp is None)
    return adapted


def _set_first_weights(
    adapted: PeftModel, recipe: Recipe, rows: "Sequence[Tokens]", warm_start: Path | None
) -> None:
    """Set the first weights, unless they are those that PEFT has drawn."""
    if warm_start is not None:
        load_weights(adapted, warm_start)
    elif recipe.init_lora_weights == "eva":
        init_weights.set_eva_weights(adapted, rows, recipe)
    elif recipe.init_lora_weights not in init_weights.DRAWN_BY_PEFT:
        init_weights.set_init_weights(adapted, recipe)


def _wrap_base(model: "PreTrainedModel", recipe: Recipe, checkpoint: Path | None) -> PeftModel:
    require_trainable(model, recipe.modules_to_save or [])
    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # norms, trained whole
        adapted = get_peft_model(model, _lora_config(model, recipe, checkpoint))
    assert isinstance(adapted, PeftModel)
    if recipe.method == "full":
        tie_embeddings(adapted)
    if recipe.method == "adalora":
        rank_allocation.freeze_rank_counts(adapted)
    return adapted


def _lora_config(model: "PreTrainedModel", recipe: Recipe, checkpoint: Path | None) -> PeftConfig:
    if recipe.method == "full":
        return full_config(model)
    if recipe.method == "adalora":
        return rank_allocation.adalora_config(recipe, ties=_keeps_tied(model, recipe))
    if checkpoint is not None and recipe.init_lora_weights == "eva":
        return init_weights.eva_config(checkpoint)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=init_weights.scaled_alpha(recipe),  # pyright: ignore[reportArgumentType] - PEFT writes floats
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        init_lora_weights=init_weights.peft_init(recipe),  # pyright: ignore[reportArgumentType] - a str
        eva_config=EvaConfig() if recipe.init_lora_weights == "eva" else None,
        target_modules=recipe.target_modules,
        layers_to_transform=recipe.layers_to_transform,
        modules_to_save=recipe.modules_to_save,
        ensure_weight_tying=_keeps_tied(model, recipe),
    )


def _keeps_tied(model: "PreTrainedModel", recipe: Recipe) -> bool:
    """Tell whether trained copies of embedding and output layer are to stay one, as the base's."""
    return bool(recipe.modules_to_save) and bool(model.config.tie_word_embeddings)


def load_weights(adapted: PeftModel, folder: Path) -> None:
    """Set the weights to those of an adapter folder.

    Raises:
        ValueError: It is of another shape.
    """
    given = load_peft_weights(str(folder), device="cpu")
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    other = sorted(
        name
        for name in given.keys() | wanted.keys()
        if name not in given or name not in wanted or given[name].shape != wanted[name].shape
    )
    if other:
        raise ValueError(
            f"starting from {folder}: it is of another shape than the recipe's adapter, at "
            f"{other[0]} and {len(other) - 1} more; leave out warm_start"
        )
    set_peft_model_state_dict(adapted, given)


def keep_in_fp32(adapted: PeftModel) -> None:
    """Undo TRL's cast: it turns the adapter of a 4-bit base to bf16, where small steps round away.

    A resumed run loads its adapter in fp32, so the cast also kept it from ending where an
    undisturbed one does. Called before the optimizer is made, which holds on to the weights.
    """
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def average_weights(adapted: PeftModel, checkpoints: list[Path]) -> None:
    """Set the adapter to the mean of its weights and those of its checkpoints.

    Averaging the weights of one run's later steps: Izmailov et al., arXiv:1803.05407.
    """
    final = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    saved = [load_peft_weights(str(one), device="cpu") for one in checkpoints]
    mean = {
        name: torch.stack([weight.cpu(), *(one[name] for one in saved)]).mean(0)
        for name, weight in final.items()
    }
    set_peft_model_state_dict(adapted, mean)


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write PEFT's two files, which load on the unchanged base without our code."""
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # an empty model card


def keep_weights(adapted: PeftModel, folder: Path) -> None:
    """Save the adapter's weights; the folder appears only when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    for left in (partial, folder):
        shutil.rmtree(left, ignore_errors=True)
    save_adapter(adapted, partial)
    partial.replace(folder)


def restore_weights(adapted: PeftModel, folder: Path) -> None:
    """Set the adapter to weights that were kept, or to those of a checkpoint."""
    set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))


def count_trained(adapted: PeftModel) -> int:
    """Count the parameters that are trained."""
    return sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
