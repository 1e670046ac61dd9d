"""First weights of an adapter that are computed from the base's, which itself stays as it is.

PiSSA and OLoRA move a part of a weight W into the adapter: the model computes (W - s B0 A0) + s B A
and trains A and B. PEFT writes W - s B0 A0 over the base, which then is no reference for
preferences any more, and which a quantized base can't hold. Here the adapter is of twice the rank
and one half of it is held: s [B, -B0] [A; A0] is the same function on the unchanged base, and is
what PEFT's own conversion of such an adapter saves.
Imported late, since it loads torch.
"""

from collections.abc import Callable, Generator
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft.tuners.lora.layer import LoraLayer  # noqa: TID253 - as above
from peft.utils.integrations import dequantize_module_weight  # noqa: TID253 - as above

from components import base as bases
from components.adapted import ADAPTER
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora.dora import DoraLinearLayer

DRAWN_BY_PEFT = (True, "gaussian")
"""First weights that PEFT draws itself, whatever holds the base's."""

Factors: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""``A`` ``[r, in]`` and ``B`` ``[out, r]`` of a layer, in fp32."""


def alpha(recipe: Recipe) -> float:
    """Give the alpha that scales the adapter of this rank as the recipe's own would be."""
    if not recipe.holds_a_half:
        return recipe.lora_alpha
    return recipe.lora_alpha * (sqrt(2) if recipe.use_rslora else 2)


def by_peft(recipe: Recipe) -> bool | str:
    """Give the first weights that PEFT makes; ``start`` puts the recipe's in their place."""
    start = recipe.init_lora_weights
    return start if start in (*DRAWN_BY_PEFT, "eva") else True


def start(adapted: "PeftModel", recipe: Recipe) -> None:
    """Set the first weights of every layer.

    Raises:
        ValueError: The rank is higher than a layer has.
    """
    compute = _factors(recipe, Path(str(adapted.peft_config[ADAPTER].base_model_name_or_path)))
    for name, layer in layers(adapted):
        weight = dequantize_module_weight(layer.get_base_layer()).detach().float()
        if recipe.r > min(weight.shape) and recipe.init_lora_weights != "orthogonal":
            raise ValueError(
                f"init_lora_weights {recipe.init_lora_weights} takes {recipe.r} directions out of "
                f"{name}, which has {min(weight.shape)}: lower r, or name other target_modules"
            )
        first, second = compute(name, weight, layer.scaling[ADAPTER])
        if recipe.holds_a_half:
            first, second = torch.cat([first, first]), torch.cat([second, -second], dim=1)
        a, b = _weights(layer)
        a.data.copy_(first)
        b.data.copy_(second)
        if recipe.use_dora:
            lengths = cast("DoraLinearLayer", layer.lora_magnitude_vector[ADAPTER])
            lengths.update_layer(
                base_layer=layer.get_base_layer(),
                lora_A=a,
                lora_B=b,
                scaling=layer.scaling[ADAPTER],
            )


def hold(adapted: "PeftModel", r: int) -> None:
    """Keep the second half of each layer's ranks from ever learning: its gradient is zero.

    Args:
        adapted: A base with an adapter of rank ``2 * r``.
        r: How many ranks learn.
    """
    for _, layer in layers(adapted):
        a, b = _weights(layer)
        a.register_hook(partial(_of_first, r=r, dimension=0))
        b.register_hook(partial(_of_first, r=r, dimension=1))


def layers(adapted: "PeftModel") -> Generator[tuple[str, LoraLayer]]:
    """Give each layer with an adapter, by the name that the base has for it."""
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            yield name.removeprefix("base_model.model."), layer


def pissa(weight: torch.Tensor, r: int, scale: float, rounds: int | None = None) -> Factors:
    """Take the ``r`` greatest singular values and their vectors (arXiv:2404.02948, equation 2).

    Args:
        weight: ``[out, in]``.
        r: How many.
        scale: What the adapter's output is multiplied by.
        rounds: Power iterations of the randomized decomposition; the exact one if not given.
    """
    if rounds is None:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
    else:
        left, values, right = torch.svd_lowrank(weight, r, niter=rounds)
        right = right.T
    root = (values[:r] / scale).sqrt()
    return root[:, None] * right[:r], left[:, :r] * root


def olora(weight: torch.Tensor, r: int) -> Factors:
    """Take the first columns of Q and rows of R of the QR decomposition (arXiv:2406.01775)."""
    left, right = torch.linalg.qr(weight)
    return right[:r], left[:, :r]


def orthogonal(weight: torch.Tensor, r: int) -> Factors:
    """Draw both factors so that their product is zero and neither is, as PEFT does.

    PEFT's own would take the type of the weight, which for 4 bits is no number.
    """
    directions, _ = torch.linalg.qr(torch.randn(r, r))
    a = (torch.randn(weight.shape[1], r // 2) @ directions[0::2]).T / 10
    b = torch.randn(weight.shape[0], r // 2) @ directions[1::2] / 10
    return a.to(weight.device), b.to(weight.device)


def loftq(weight: torch.Tensor, stored: torch.Tensor, r: int, scale: float) -> Factors:
    """Make up for as much of the quantization's error as ``r`` ranks can (arXiv:2310.08659).

    One round: further ones would quantize the base anew, and the adapter would fit no other copy.

    Args:
        weight: What the quantized weight stands for, ``[out, in]``.
        stored: The weight before it was quantized.
        r: How many ranks.
        scale: What the adapter's output is multiplied by.
    """
    return pissa(stored.to(weight) - weight, r, scale)


def _factors(recipe: Recipe, base: Path) -> Callable[[str, torch.Tensor, float], Factors]:
    """Give what computes a layer's factors from its name, its weight and its scale."""
    kind, r = str(recipe.init_lora_weights), recipe.r
    if kind == "olora":
        return lambda _, weight, scale: olora(weight, r)
    if kind == "orthogonal":
        return lambda _, weight, scale: orthogonal(weight, r)
    if kind == "loftq":
        return lambda name, weight, scale: loftq(
            weight, bases.stored(base, f"{name}.weight"), r, scale
        )
    rounds = int(kind.removeprefix("pissa_niter_")) if "niter" in kind else None
    return lambda _, weight, scale: pissa(weight, r, scale, rounds)


def _weights(layer: LoraLayer) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    a, b = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    return a.get_parameter("weight"), b.get_parameter("weight")


def _of_first(gradient: torch.Tensor, r: int, dimension: int) -> torch.Tensor:
    """Zero the gradient of all but the first ``r`` along a dimension."""
    held = gradient.clone()
    held.narrow(dimension, r, gradient.shape[dimension] - r).zero_()
    return held
