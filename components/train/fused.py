"""A frozen linear layer with its LoRA in one step forward and one back, for CPUs.

PEFT computes ``x W + s (x A) B`` in ten operations, several of which copy the layer's whole input
or output; on a CPU each of those costs memory traffic, and a small model is made of little else.
Here the low-rank product is added in place, and the backward pass is written out. The matrices are
multiplied in the input's precision, as autocast has PEFT do it; gradients are in the weights' own.
Imported late, since it loads torch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch  # noqa: TID253 - this module is itself imported late
from peft import PeftModel  # noqa: TID253 - as above
from peft.tuners.adalora.layer import AdaLoraLayer  # noqa: TID253 - as above
from peft.tuners.lora.layer import LoraLayer  # noqa: TID253 - as above

NAME = "default"
"""How PEFT names an adapter that was given no name."""

NORMS = ("input_layernorm", "post_attention_layernorm")
"""The norms of Llama's kind of layer that only linear layers read."""


def use(adapted: PeftModel) -> None:
    """Compute every plain LoRA of a model on a CPU in one step; others stay PEFT's.

    What a norm gives to several of them is rounded for all of them at once.
    """
    plain = [one for one in adapted.modules() if isinstance(one, LoraLayer) and _is_plain(one)]
    for layer in plain:
        layer.forward = partial(_forward, layer, layer.forward)
    if plain:
        for name, module in adapted.named_modules():
            if name.endswith(NORMS):
                module.register_forward_hook(_rounded)


def _rounded(_module: torch.nn.Module, _given: object, output: torch.Tensor) -> torch.Tensor:
    """Round to what autocast rounds to in each layer that reads it."""
    is_mixed = torch.is_autocast_enabled("cpu")
    return output.to(torch.get_autocast_dtype("cpu")) if is_mixed else output


def _is_plain(layer: LoraLayer) -> bool:
    base = layer.get_base_layer()
    return (
        isinstance(base, torch.nn.Linear)
        and not isinstance(layer, AdaLoraLayer)
        and base.weight.device.type == "cpu"
        and not base.weight.requires_grad
        and type(base) is torch.nn.Linear
        and NAME not in layer.lora_variant
        and list(layer.lora_A) == [NAME]
        and isinstance(layer.lora_dropout[NAME], torch.nn.Identity)
        and getattr(layer.lora_B[NAME], "bias", None) is None
    )


def _forward(
    layer: LoraLayer,
    by_peft: Callable[..., torch.Tensor],
    x: torch.Tensor,
    **others: object,
) -> torch.Tensor:
    base: Any = layer.get_base_layer()
    fits = x.dtype == base.weight.dtype or torch.is_autocast_enabled("cpu")
    if layer.disable_adapters or layer.merged or others or not fits:
        return by_peft(x, **others)
    a: Any = layer.lora_A[NAME]
    b: Any = layer.lora_B[NAME]
    fused: Any = LoraLinear.apply
    return fused(
        x.to(base.weight.dtype), base.weight, base.bias, a.weight, b.weight, layer.scaling[NAME]
    )


class LoraLinear(torch.autograd.Function):
    """``x W^T + bias + scale (x A^T) B^T``, of which A and B learn."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Compute the layer.

        Args:
            ctx: Autograd's.
            x: ``[..., in]``.
            weight: ``[out, in]``, frozen.
            bias: ``[out]``, frozen, or ``None``.
            a: ``[r, in]``.
            b: ``[out, r]``.
            scale: What the low-rank product is multiplied by.
        """
        rows = x.reshape(-1, x.shape[-1])
        near, far = a.to(x.dtype), b.to(x.dtype)
        low = rows @ near.T
        found = torch.nn.functional.linear(rows, weight, bias)
        found.addmm_(low, far.T, alpha=scale)
        ctx.save_for_backward(rows, weight, near, far, low)
        ctx.scale, ctx.shape, ctx.precision = scale, x.shape, a.dtype
        return found.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Give the gradients of ``x``, ``a`` and ``b``."""
        rows, weight, near, far, low = ctx.saved_tensors
        given = gradients[0].reshape(-1, weight.shape[0])
        below = given @ far * ctx.scale
        back = None
        if ctx.needs_input_grad[0]:
            back = (given @ weight).addmm_(below, near).view(ctx.shape)
        of_a = (below.T @ rows).to(ctx.precision)
        of_b = (given.T @ low).to(ctx.precision) * ctx.scale
        return back, None, None, of_a, of_b, None
