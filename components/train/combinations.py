"""Say which knobs of a recipe can't work together, and what would."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.train.recipe import Recipe

OF_LORA = ("r", "use_rslora", "use_dora", "init_lora_weights")
OF_ADAPTERS = ("lora_alpha", "lora_dropout", "target_modules", "layers_to_transform")


def objection(recipe: "Recipe") -> str | None:
    """Object to the first combination that can't work."""
    return next(filter(None, _objections(recipe)), None)


def _objections(recipe: "Recipe") -> Iterable[str | None]:
    yield _layers_of_no_modules(recipe)
    yield _early_stopping(recipe)
    yield _fsdp(recipe)
    yield {"lora": _lora, "adalora": _adalora, "full": _full}[recipe.method](recipe)
    if recipe.warm_start and recipe.method == "adalora":
        yield "warm_start wants method lora or full: what AdaLoRA has pruned can't be pruned again"
    if recipe.warm_start and recipe.init_lora_weights is not True:
        yield (
            "warm_start takes the first weights from the champion: leave out init_lora_weights, "
            f"found {recipe.init_lora_weights}"
        )


def _layers_of_no_modules(recipe: "Recipe") -> str | None:
    if recipe.layers_to_transform is None or not isinstance(recipe.target_modules, str):
        return None
    return (
        "layers_to_transform wants target_modules by name, such as [q_proj, v_proj], "
        f"found {recipe.target_modules}"
    )


def _early_stopping(recipe: "Recipe") -> str | None:
    if recipe.early_stopping_patience is None:
        return None
    if recipe.eval_steps is None:
        return "early_stopping_patience wants eval_steps, such as save_steps"
    if recipe.average_checkpoints > 1:
        return (
            "early_stopping_patience takes the one checkpoint that measured best, "
            "average_checkpoints the mean of the last: leave one of them out"
        )
    if recipe.method == "adalora":
        return "method adalora settles its ranks at its end: leave out early_stopping_patience"
    return None


def _fsdp(recipe: "Recipe") -> str | None:
    if recipe.fsdp is None:
        return None
    if recipe.method == "full":
        return (
            "fsdp splits the frozen base, and method full trains a copy of each of its weights, "
            "which every process holds: leave out fsdp, or take method lora"
        )
    if recipe.init_lora_weights == "eva":
        return (
            "fsdp leaves no process the whole base, through which init_lora_weights eva would "
            "look at the rows: leave out one of them"
        )
    return None


def _lora(recipe: "Recipe") -> str | None:
    if changed := _changed(recipe, ("adalora",)):
        return f"{changed} is of method adalora, found method lora"
    if recipe.init_lora_weights == "orthogonal" and recipe.r % 2:
        return f"init_lora_weights orthogonal wants an even r, found {recipe.r}"
    if recipe.init_lora_weights == "loftq" and recipe.bnb_4bit_quant_type is None:
        return (
            "init_lora_weights loftq makes up for what quantization loses: it wants "
            "bnb_4bit_quant_type nf4 or fp4, or take pissa"
        )
    return None


def _adalora(recipe: "Recipe") -> str | None:
    if changed := _changed(recipe, OF_LORA):
        return f"method adalora has ranks and first weights of its own: leave out {changed}"
    return None


def _full(recipe: "Recipe") -> str | None:
    of_adapters = (*OF_LORA, *OF_ADAPTERS, "modules_to_save", "adalora")
    if changed := _changed(recipe, of_adapters):
        return f"method full trains every weight as it is: leave out {changed}"
    if recipe.bnb_4bit_quant_type is not None:
        return (
            "method full can't train weights of 4 bits, which a step would not change: it wants "
            "bnb_4bit_quant_type null"
        )
    return None


def _changed(recipe: "Recipe", names: Iterable[str]) -> str:
    """List those knobs that are not at their default."""
    fields = type(recipe).model_fields
    return ", ".join(
        name
        for name in names
        if getattr(recipe, name) != fields[name].get_default(call_default_factory=True)
    )
