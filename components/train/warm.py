"""Decide whether a training can go on from an earlier adapter."""

from collections.abc import Mapping

from pydantic import ValidationError

from components.schema import Json
from components.train.recipe import Recipe

SHAPE = (
    "method",
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "target_modules",
    "layers_to_transform",
    "modules_to_save",
)
"""What must be equal for one adapter's weights to mean the same in another."""


def objection(recipe: Recipe, base: str, earlier: Mapping[str, Json]) -> str | None:
    """Say why an adapter can't be gone on from; ``None`` if it can.

    Args:
        recipe: How the new adapter is to be trained.
        base: The content hash of its base.
        earlier: The manifest of the adapter to go on from.
    """
    if earlier["base"] != base:
        return f"it is of another base ({earlier['base']}, now {base})"
    try:
        before = Recipe.model_validate(earlier["recipe"])
    except ValidationError:
        return "its recipe has settings that there are no more"
    if before.method == "adalora" or str(before.init_lora_weights).startswith(
        ("pissa", "olora", "eva")
    ):
        return "its ranks are not those of its recipe, for they were shared out or doubled"
    if before.init_lora_weights == "loftq" and before.precision != recipe.precision:
        return f"it makes up for what {before.precision} loses, found {recipe.precision} now"
    for name in SHAPE:
        was, wanted = getattr(before, name), getattr(recipe, name)
        if was != wanted:
            return f"its {name} is {was}, the recipe's {wanted}"
    return None
