"""First weights of an adapter computed from the base: PiSSA, LoftQ, EVA."""

import random
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import EvaConfig, LoraConfig, initialize_lora_eva_weights  # noqa: TID253 - as above
from peft.tuners.lora.layer import LoraLayer  # noqa: TID253 - as above
from peft.utils.integrations import dequantize_module_weight  # noqa: TID253 - as above

from components.models import base as bases
from components.models import device
from components.models.base import ADAPTER
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora.dora import DoraLinearLayer

    from components.train.training_examples import Tokens


Factors: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""``A`` ``[r, in]`` and ``B`` ``[out, r]`` of a layer, in fp32."""


def scaled_alpha(recipe: Recipe) -> float:
    """Return the alpha that scales the adapter's actual rank as the recipe's alpha scales ``r``."""
    if not recipe.has_frozen_half:
        return recipe.lora_alpha
    return recipe.lora_alpha * (sqrt(2) if recipe.use_rslora else 2)


def set_init_weights(adapted: "PeftModel", recipe: Recipe) -> None:
    """Set the first weights of every layer to those of PiSSA or LoftQ.

    PEFT's own would change the base (PiSSA), or need a GPU and ignore the scale (LoftQ).

    Raises:
        ValueError: The rank exceeds that of a layer's weight.
    """
    base = Path(str(adapted.peft_config[ADAPTER].base_model_name_or_path))
    for name, layer in adapter_layers(adapted):
        weight = dequantize_module_weight(layer.get_base_layer()).detach().float()
        if getattr(layer, "fan_in_fan_out", False):  # GPT-2's layers hold their weight transposed
            weight = weight.T
        if recipe.r > min(weight.shape):
            raise ValueError(
                f"init_lora_weights {recipe.init_lora_weights} takes {recipe.r} directions from "
                f"{name}, which has {min(weight.shape)}: lower r, or name other target_modules"
            )
        first, second = _factors(recipe, base, name, weight, layer.scaling[ADAPTER])
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
    """Zero the gradients of all but the first ``r`` ranks of an adapter of rank ``2 * r``."""
    for _, layer in adapter_layers(adapted):
        a, b = _layer_weights(layer)
        a.register_hook(partial(_mask_gradient, r=r, dimension=0))
        b.register_hook(partial(_mask_gradient, r=r, dimension=1))


def adapter_layers(adapted: "PeftModel") -> Generator[tuple[str, LoraLayer]]:
    """Yield each layer with an adapter and its name in the base."""
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            yield name.removeprefix("base_model.model."), layer


def pissa_factors(weight: torch.Tensor, r: int, scale: float, rounds: int | None = None) -> Factors:
    """Return the ``r`` greatest singular values and their vectors (arXiv:2404.02948, equation 2).

    Args:
        weight: ``[out, in]``.
        r: The number of ranks.
        scale: The factor of the adapter's output.
        rounds: Power iterations of the randomized decomposition; the exact one by default.
    """
    if rounds is None:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
    else:
        left, values, right = torch.svd_lowrank(weight, r, niter=rounds)
        right = right.T
    root = (values[:r] / scale).sqrt()
    return root[:, None] * right[:r], left[:, :r] * root


def _factors(recipe: Recipe, base: Path, name: str, weight: torch.Tensor, scale: float) -> Factors:
    kind, r = str(recipe.init_lora_weights), recipe.r
    if kind == "loftq":
        # the quantization error (arXiv:2310.08659) in one round: more would quantize the base
        # again, and the adapter would fit no other copy of it
        stored = bases.read_weight(base, f"{name}.weight")
        return pissa_factors(stored.to(weight) - weight, r, scale)
    rounds = int(kind.removeprefix("pissa_niter_")) if "niter" in kind else None
    return pissa_factors(weight, r, scale, rounds)


def _layer_weights(layer: LoraLayer) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    a, b = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    return a.get_parameter("weight"), b.get_parameter("weight")


def _mask_gradient(gradient: torch.Tensor, r: int, dimension: int) -> torch.Tensor:
    masked = gradient.clone()
    masked.narrow(dimension, r, gradient.shape[dimension] - r).zero_()
    return masked


IGNORED = -100  # label outside of answers: EVA skips these inputs

FEWEST_TOKENS, ENOUGH_TOKENS = 4, 16  # answer tokens per component: the minimum, and the aim

LARGEST_BATCH = 16_384  # tokens of EVA's batch, with padding


def set_eva_weights(adapted: "PeftModel", rows: "Sequence[Tokens]", recipe: Recipe) -> None:
    """Set the first weights and the ranks from the answers of some rows.

    PEFT adds batches until the components converge, which noisy ones may never do. One batch drawn
    from all rows converges when PEFT sees it again.

    Raises:
        ValueError: There are too few answer tokens for this many components.
    """
    components = int(recipe.r * EvaConfig().rho)
    sample = _draw_rows(rows, components * ENOUGH_TOKENS, recipe.seed)
    answers = sum(map(_answer_length, sample))
    if answers < components * FEWEST_TOKENS:
        raise ValueError(
            f"init_lora_weights eva looks for {components} components and needs "
            f"{components * FEWEST_TOKENS} tokens of answers, found {answers}: lower r, or take "
            "another"
        )
    initialize_lora_eva_weights(
        adapted, dataloader=[_pad_rows(sample)], forward_fn=_forward_layers, show_progress_bar=False
    )


def eva_config(checkpoint: Path) -> LoraConfig:
    """Return the configuration with the ranks that EVA found before the checkpoint."""
    config = LoraConfig.from_pretrained(str(checkpoint))
    assert isinstance(config, LoraConfig)
    config.inference_mode = False
    return config


def _forward_layers(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> None:
    products = device.best_computing().products
    half = torch.float16 if products == "fp16" else torch.bfloat16
    kind = batch["input_ids"].device.type
    with torch.autocast(kind, dtype=half, enabled=products != "fp32"):
        model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=1,  # nobody reads them
            use_cache=False,
        )


def _draw_rows(rows: "Sequence[Tokens]", count: int, seed: int) -> "list[Tokens]":
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


def _pad_rows(rows: "Sequence[Tokens]") -> dict[str, torch.Tensor]:
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
