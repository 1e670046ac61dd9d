"""Put the adapter on the base, keep it in fp32, set it to a mean of checkpoints, and save it.

Imported late, since it loads torch.
"""

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late
from peft import (  # noqa: TID253 - as above
    EvaConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from transformers import set_seed  # noqa: TID253 - as above

from components import base as bases
from components.train import cpu_engine, eva, ranks, starts, whole
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from components.train.lessons import Tokens


def attach(
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
    adapted = _wrap(model, recipe, checkpoint)
    if not torch.cuda.is_available():
        bases.dequantize(adapted)
    if checkpoint is None or warm_start is not None:
        _start(adapted, recipe, rows, warm_start)
    if recipe.holds_a_half:
        starts.hold(adapted, recipe.r)
    hold_in_fp32(adapted)
    if engine := cpu_engine.for_device("cuda" if torch.cuda.is_available() else "cpu"):
        engine.prepare(adapted, holds_head=recipe.fsdp is None)
    return adapted


def _start(
    adapted: PeftModel, recipe: Recipe, rows: "Sequence[Tokens]", warm_start: Path | None
) -> None:
    """Set the first weights, unless they are those that PEFT has drawn."""
    if warm_start is not None:
        load(adapted, warm_start)
    elif recipe.init_lora_weights == "eva":
        eva.start(adapted, rows, recipe)
    elif recipe.init_lora_weights not in starts.DRAWN_BY_PEFT:
        starts.start(adapted, recipe)


def _wrap(model: "PreTrainedModel", recipe: Recipe, checkpoint: Path | None) -> PeftModel:
    whole.require_trainable(model, recipe.modules_to_save or [])
    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # norms, trained whole
        adapted = get_peft_model(model, _config(model, recipe, checkpoint))
    assert isinstance(adapted, PeftModel)
    if recipe.method == "full":
        whole.tie(adapted)
    if recipe.method == "adalora":
        ranks.freeze_counts(adapted)
    return adapted


def _config(model: "PreTrainedModel", recipe: Recipe, checkpoint: Path | None) -> PeftConfig:
    if recipe.method == "full":
        return whole.config(model)
    if recipe.method == "adalora":
        return ranks.config(recipe, ties=_ties(model, recipe))
    if checkpoint is not None and recipe.init_lora_weights == "eva":
        return eva.config_of(checkpoint)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=starts.alpha(recipe),  # pyright: ignore[reportArgumentType] - PEFT writes floats
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        init_lora_weights=starts.by_peft(recipe),  # pyright: ignore[reportArgumentType] - a str
        eva_config=EvaConfig() if recipe.init_lora_weights == "eva" else None,
        target_modules=recipe.target_modules,
        layers_to_transform=recipe.layers_to_transform,
        modules_to_save=recipe.modules_to_save,
        ensure_weight_tying=_ties(model, recipe),
    )


def _ties(model: "PreTrainedModel", recipe: Recipe) -> bool:
    """Tell whether trained copies of embedding and output layer are to stay one, as the base's."""
    return bool(recipe.modules_to_save) and bool(model.config.tie_word_embeddings)


def load(adapted: PeftModel, folder: Path) -> None:
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


def hold_in_fp32(adapted: PeftModel) -> None:
    """Undo TRL's cast: it turns the adapter of a 4-bit base to bf16, where small steps round away.

    A resumed run loads its adapter in fp32, so the cast also kept it from ending where an
    undisturbed one does. Called before the optimizer is made, which holds on to the weights.
    """
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def average(adapted: PeftModel, checkpoints: list[Path]) -> None:
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


def save(adapted: PeftModel, folder: Path) -> None:
    """Write PEFT's two files, which load on the unchanged base without our code."""
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # an empty model card


def keep(adapted: PeftModel, folder: Path) -> None:
    """Save the adapter's weights; the folder appears only when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    for left in (partial, folder):
        shutil.rmtree(left, ignore_errors=True)
    save(adapted, partial)
    partial.replace(folder)


def restore(adapted: PeftModel, folder: Path) -> None:
    """Set the adapter to weights that were kept, or to those of a checkpoint."""
    set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))


def size(adapted: PeftModel) -> int:
    """Count the parameters that are trained."""
    return sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
