"""CPU only: fused LoRA linears and norms, and data-parallel threads that each take a share."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import PeftModel  # noqa: TID253 - as above
from peft.tuners.adalora.layer import AdaLoraLayer  # noqa: TID253 - as above
from peft.tuners.lora.layer import LoraLayer  # noqa: TID253 - as above

from components.train import process_group
from components.train.cpu.attention import LIKE_LLAMA
from components.train.micro_batches import MicroBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lanes:
    """Threads that live as long as the training."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.threads = threads

    def backward(
        self,
        loss_of: Callable[[MicroBatch], torch.Tensor],
        shares: Sequence[MicroBatch],
        weights: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Add the gradients of the summed losses of a batch's shares, and give that sum.

        The gradients are added in the order of the shares, so that equal batches give equal bits.

        Args:
            loss_of: The loss of a share; those of a batch's shares sum up to the whole's.
            shares: What a lane computes at a time.
            weights: The leaves whose ``grad`` is added to.
        """
        found = list(self.threads.map(partial(_gradients, loss_of, weights), shares))
        for weight, *gradients in zip(weights, *(gradients for _, gradients in found), strict=True):
            total = sum(gradients[1:], start=gradients[0])
            weight.grad = total if weight.grad is None else weight.grad + total
        return torch.stack([loss for loss, _ in found]).sum()


def count(model: torch.nn.Module) -> int:
    """Count a lane for each thread that torch would use; on CUDA and with dropout there is one.

    Lanes would draw dropout's random numbers in whatever order they come to it, and a resumed run
    could not end where an undisturbed one does. Nor can they share a layer that is gathered from
    other processes for one of them, and gone again for the next.
    """
    on_cpu = all(weight.device.type == "cpu" for weight in model.parameters())
    fits = on_cpu and not _draws(model) and not process_group.is_sharded(model)
    return torch.get_num_threads() if fits else 1


@contextmanager
def opened(lanes: int) -> Generator[Lanes | None]:
    """Open so many lanes; for one there is no need."""
    if lanes == 1:
        yield None
        return
    with ThreadPoolExecutor(lanes, initializer=partial(torch.set_num_threads, 1)) as threads:
        yield Lanes(threads)
    torch.set_num_threads(lanes)  # some of torch's libraries took the lanes' 1 for the process's


def _gradients(
    loss_of: Callable[[MicroBatch], torch.Tensor],
    weights: Sequence[torch.Tensor],
    share: MicroBatch,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    loss = loss_of(share)
    return loss.detach(), torch.autograd.grad(loss, weights)


def _draws(model: torch.nn.Module) -> bool:
    """Tell whether the model draws random numbers while it trains."""
    if getattr(getattr(model, "config", None), "attention_dropout", 0):
        return True
    return any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in model.modules())


NAME = "default"
"""How PEFT names an adapter that was given no name."""

HELD = "held"
"""What a weight in bf16 is called beside the same in fp32."""

NORMS = ("input_layernorm", "post_attention_layernorm")
"""The norms of Llama's kind of layer that only linear layers read; others use these names, too."""


def use(adapted: PeftModel) -> None:
    """Compute every plain LoRA of a model on a CPU in one step; others stay PEFT's.

    What a norm gives to several of them is rounded for all of them at once, if it is Llama's.
    """
    plain = [one for one in adapted.modules() if isinstance(one, LoraLayer) and _is_plain(one)]
    for layer in plain:
        layer.forward = partial(_forward, layer, layer.forward)
    if plain and adapted.config.model_type in LIKE_LLAMA:
        for name, module in adapted.named_modules():
            if name.endswith(NORMS):
                module.forward = partial(_normed, module, module.forward)


def hold_head(adapted: PeftModel) -> int:
    """Hold the output layer's weight in bf16, too, instead of rounding all of it in each step.

    It came from bf16, and is fp32 only since it is the embeddings' weight as well. Return the bytes
    that are held.
    """
    head: Any = cast("PreTrainedModel", adapted.get_base_model()).get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.requires_grad:
        return 0
    head.register_buffer(HELD, head.weight.bfloat16(), persistent=False)
    rounded: Any = partial(_said, head, head.forward)
    head.forward = rounded
    return head.get_buffer(HELD).nbytes


def _said(
    head: torch.nn.Linear, by_torch: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return by_torch(x)
    return torch.nn.functional.linear(x, head.get_buffer(HELD), head.bias)


def _normed(
    norm: Any,  # noqa: ANN401 - one of several classes of transformers
    by_transformers: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
) -> torch.Tensor:
    """Round to what autocast rounds to in each layer that reads it."""
    is_mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if is_mixed else x.dtype
    if x.dtype != torch.float32 or norm.weight.requires_grad:
        return by_transformers(x).to(dtype)
    fused: Any = Norm.apply
    return fused(x, norm.weight, norm.variance_epsilon, dtype)


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


class Norm(torch.autograd.Function):
    """``weight x / sqrt(mean(x^2) + epsilon)`` (arXiv:1910.07467, equation 4), rounded at once."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        x: torch.Tensor,
        weight: torch.Tensor,
        epsilon: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Compute the norm.

        Args:
            ctx: Autograd's.
            x: ``[..., width]``, in fp32.
            weight: ``[width]``, frozen.
            epsilon: Keeps what is almost zero from being divided by itself.
            dtype: What the result is in.
        """
        inverse = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        ctx.save_for_backward(x, weight, inverse)
        found = torch.empty(x.shape, dtype=dtype, device=x.device)
        return torch.mul(x * inverse, weight, out=found)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Give the gradient of ``x``."""
        x, weight, inverse = ctx.saved_tensors
        given = gradients[0] * weight
        along = (given * x).sum(-1, keepdim=True) * inverse**3 / x.shape[-1]
        return given.mul_(inverse).addcmul_(x, along, value=-1), None, None, None


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
