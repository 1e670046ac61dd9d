"""First weights of an adapter computed from the base: PiSSA, OLoRA, LoftQ, orthogonal, EVA."""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import EvaConfig, LoraConfig, initialize_lora_eva_weights  # noqa: TID253 - as above
from peft.tuners.lora.layer import LoraLayer  # noqa: TID253 - as above
from peft.utils.integrations import dequantize_module_weight  # noqa: TID253 - as above

from components.models import base as bases
from components.models.base import ADAPTER
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora.dora import DoraLinearLayer

    from components.train.training_examples import Tokens


DRAWN_BY_PEFT = (True, "gaussian")
"""First weights that PEFT draws itself, whatever holds the base's."""

Factors: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""``A`` ``[r, in]`` and ``B`` ``[out, r]`` of a layer, in fp32."""


def scaled_alpha(recipe: Recipe) -> float:
    """Give the alpha that scales the adapter of this rank as the recipe's own would be."""
    if not recipe.has_frozen_half:
        return recipe.lora_alpha
    return recipe.lora_alpha * (sqrt(2) if recipe.use_rslora else 2)


def peft_init(recipe: Recipe) -> bool | str:
    """Give the first weights that PEFT makes; ``start`` puts the recipe's in their place."""
    start = recipe.init_lora_weights
    return start if start in (*DRAWN_BY_PEFT, "eva") else True


def set_init_weights(adapted: "PeftModel", recipe: Recipe) -> None:
    """Set the first weights of every layer.

    Raises:
        ValueError: The rank is higher than a layer has.
    """
    compute = _factor_function(
        recipe, Path(str(adapted.peft_config[ADAPTER].base_model_name_or_path))
    )
    for name, layer in adapter_layers(adapted):
        weight = dequantize_module_weight(layer.get_base_layer()).detach().float()
        if recipe.r > min(weight.shape) and recipe.init_lora_weights != "orthogonal":
            raise ValueError(
                f"init_lora_weights {recipe.init_lora_weights} takes {recipe.r} directions out of "
                f"{name}, which has {min(weight.shape)}: lower r, or name other target_modules"
            )
        first, second = compute(name, weight, layer.scaling[ADAPTER])
        if recipe.has_frozen_half:
            first, second = torch.cat([first, first]), torch.cat([second, -second], dim=1)
        a, b = _layer_weights(layer)
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


def freeze_second_half(adapted: "PeftModel", r: int) -> None:
    """Keep the second half of each layer's ranks from ever learning: its gradient is zero.

    Args:
        adapted: A base with an adapter of rank ``2 * r``.
        r: How many ranks learn.
    """
    for _, layer in adapter_layers(adapted):
        a, b = _layer_weights(layer)
        a.register_hook(partial(_mask_gradient, r=r, dimension=0))
        b.register_hook(partial(_mask_gradient, r=r, dimension=1))


def adapter_layers(adapted: "PeftModel") -> Generator[tuple[str, LoraLayer]]:
    """Give each layer with an adapter, by the name that the base has for it."""
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            yield name.removeprefix("base_model.model."), layer


def pissa_factors(weight: torch.Tensor, r: int, scale: float, rounds: int | None = None) -> Factors:
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


def olora_factors(weight: torch.Tensor, r: int) -> Factors:
    """Take the first columns of Q and rows of R of the QR decomposition (arXiv:2406.01775)."""
    left, right = torch.linalg.qr(weight)
    return right[:r], left[:, :r]


def orthogonal_factors(weight: torch.Tensor, r: int) -> Factors:
    """Draw both factors so that their product is zero and neither is, as PEFT does.

    PEFT's own would take the type of the weight, which for 4 bits is no number.
    """
    directions, _ = torch.linalg.qr(torch.randn(r, r))
    a = (torch.randn(weight.shape[1], r // 2) @ directions[0::2]).T / 10
    b = torch.randn(weight.shape[0], r // 2) @ directions[1::2] / 10
    return a.to(weight.device), b.to(weight.device)


def loftq_factors(weight: torch.Tensor, stored: torch.Tensor, r: int, scale: float) -> Factors:
    """Make up for as much of the quantization's error as ``r`` ranks can (arXiv:2310.08659).

    One round: further ones would quantize the base anew, and the adapter would fit no other copy.

    Args:
        weight: What the quantized weight stands for, ``[out, in]``.
        stored: The weight before it was quantized.
        r: How many ranks.
        scale: What the adapter's output is multiplied by.
    """
    return pissa_factors(stored.to(weight) - weight, r, scale)


def _factor_function(recipe: Recipe, base: Path) -> Callable[[str, torch.Tensor, float], Factors]:
    """Give what computes a layer's factors from its name, its weight and its scale."""
    kind, r = str(recipe.init_lora_weights), recipe.r
    if kind == "olora":
        return lambda _, weight, scale: olora_factors(weight, r)
    if kind == "orthogonal":
        return lambda _, weight, scale: orthogonal_factors(weight, r)
    if kind == "loftq":
        return lambda name, weight, scale: loftq_factors(
            weight, bases.read_weight(base, f"{name}.weight"), r, scale
        )
    rounds = int(kind.removeprefix("pissa_niter_")) if "niter" in kind else None
    return lambda _, weight, scale: pissa_factors(weight, r, scale, rounds)


def _layer_weights(layer: LoraLayer) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    a, b = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    return a.get_parameter("weight"), b.get_parameter("weight")


def _mask_gradient(gradient: torch.Tensor, r: int, dimension: int) -> torch.Tensor:
    """Zero the gradient of all but the first ``r`` along a dimension."""
    held = gradient.clone()
    held.narrow(dimension, r, gradient.shape[dimension] - r).zero_()
    return held


PaddedBatch: TypeAlias = dict[str, torch.Tensor]

IGNORED = -100  # the label of what is no answer: its inputs are not looked at

FEWEST_ROWS, ENOUGH_ROWS = 4, 16
"""How many answer tokens there have to be for each component that is looked for, and as many as
are looked at."""

LARGEST_BATCH = 16_384  # tokens that are computed for it at a time, padding included


def set_eva_weights(adapted: "PeftModel", rows: "Sequence[Tokens]", recipe: Recipe) -> None:
    """Set the first weights and the ranks from the answers of some rows.

    PEFT adds batch upon batch until the components settle, which noisy ones may never do. Here it
    is given one batch, drawn from all rows, which settles at its second look.

    Raises:
        ValueError: There are too few to find so many components in.
    """
    components = int(recipe.r * EvaConfig().rho)
    sample = _draw_rows(rows, components * ENOUGH_ROWS, recipe.seed)
    answers = sum(map(_answer_length, sample))
    if answers < components * FEWEST_ROWS:
        raise ValueError(
            f"init_lora_weights eva looks for {components} components and wants "
            f"{components * FEWEST_ROWS} tokens of answers to find them in, found {answers}: "
            "lower r, or take another"
        )
    initialize_lora_eva_weights(
        adapted, dataloader=[_pad_rows(sample)], forward_fn=_forward_layers, show_progress_bar=False
    )


def eva_config(checkpoint: Path) -> LoraConfig:
    """Read which ranks a training that goes on has found."""
    config = LoraConfig.from_pretrained(str(checkpoint))
    assert isinstance(config, LoraConfig)
    config.inference_mode = False
    return config


def _forward_layers(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> None:
    """Compute all layers, as in training, and few logits, which nobody reads."""
    with torch.autocast(batch["input_ids"].device.type, dtype=torch.bfloat16):
        model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=1,
            use_cache=False,
        )


def _draw_rows(rows: "Sequence[Tokens]", count: int, seed: int) -> "list[Tokens]":
    """Draw rows until they have enough answer tokens, or more would be too much at a time."""
    drawn: list[Tokens] = []
    longest = answers = 0
    for row in random.Random(seed).sample(rows, len(rows)):
        longest = max(longest, len(row.input_ids))
        if answers >= count or longest * (len(drawn) + 1) > LARGEST_BATCH:
            break
        drawn.append(row)
        answers += _answer_length(row)
    return drawn


def _answer_length(row: "Tokens") -> int:
    return sum(last - first for first, last in row.learned)


def _pad_rows(rows: "Sequence[Tokens]") -> PaddedBatch:
    """Pad the rows on the right."""
    shape = len(rows), max(len(row.input_ids) for row in rows)
    ids, seen = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for number, row in enumerate(rows):
        end = len(row.input_ids)
        ids[number, :end] = torch.tensor(row.input_ids)
        seen[number, :end] = 1
        for first, last in row.learned:
            labels[number, first:last] = ids[number, first:last]
    return {"input_ids": ids, "attention_mask": seen, "labels": labels}
