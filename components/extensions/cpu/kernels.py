"""CPU only: fused LoRA linears and norms, and data-parallel threads over micro-batches."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import PeftModel  # noqa: TID253 - as above
from peft.tuners.adalora.layer import AdaLoraLayer  # noqa: TID253 - as above
from peft.tuners.lora.layer import LoraLayer  # noqa: TID253 - as above

from components.extensions.cpu import attention
from components.extensions.cpu.attention import LIKE_LLAMA
from components.models.base import ADAPTER
from components.train import process_group
from components.train.micro_batches import MicroBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prepare(adapted: PeftModel, *, caches_head: bool) -> int:
    """Replace the layers that there are kernels for, in place.

    With ``caches_head``, cache the output layer's weight in bf16; return the cache's bytes.
    """
    attention.use_block_attention(cast("PreTrainedModel", adapted.get_base_model()))
    use_fused_layers(adapted)
    return cache_head(adapted) if caches_head else 0


def inputs(model: torch.nn.Module, micro_batch: MicroBatch) -> dict[str, Any]:
    """Return the additional keyword arguments of a prepared model's forward pass."""
    return attention.forward_kwargs(model, micro_batch)


class CpuThreads:
    """Data-parallel threads that live as long as the training."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool

    def backward(
        self,
        loss_of: Callable[[MicroBatch], torch.Tensor],
        micro_batches: Sequence[MicroBatch],
        weights: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Add the gradients of the batch's loss to the weights' ``grad`` and return the loss.

        ``loss_of`` returns a micro-batch's part of the loss, each computed in one thread. Gradients
        are added in the order of the micro-batches, so that equal batches give equal bits.
        """

        def gradients_of(batch: MicroBatch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            loss = loss_of(batch)
            return loss.detach(), torch.autograd.grad(loss, weights)

        results = list(self.pool.map(gradients_of, micro_batches))
        parts = (gradients for _, gradients in results)
        for weight, *gradients in zip(weights, *parts, strict=True):
            total = sum(gradients[1:], start=gradients[0])
            weight.grad = total if weight.grad is None else weight.grad + total
        return torch.stack([loss for loss, _ in results]).sum()


def thread_count(model: torch.nn.Module) -> int:
    """Return torch's thread count; 1 on CUDA, with dropout and for a sharded base."""
    on_cpu = all(weight.device.type == "cpu" for weight in model.parameters())
    # Threads would draw dropout's random numbers in any order, so that a resumed run would differ
    # from an uninterrupted one. A sharded layer, gathered for one thread, is freed under the next.
    can_split = on_cpu and not _has_dropout(model) and not process_group.is_sharded(model)
    return torch.get_num_threads() if can_split else 1


@contextmanager
def open_threads(count: int) -> Generator[CpuThreads | None]:
    """Open ``count`` data-parallel threads of one torch thread each; yield ``None`` for one."""
    if count == 1:
        yield None
        return
    with ThreadPoolExecutor(count, initializer=partial(torch.set_num_threads, 1)) as pool:
        yield CpuThreads(pool)
    torch.set_num_threads(count)  # some of torch's libraries applied the threads' 1 to the process


def _has_dropout(model: torch.nn.Module) -> bool:
    config = getattr(model, "config", None)
    if any(getattr(config, name, 0) for name in ("attention_dropout", "dropout")):  # of a function
        return True
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


HEAD_BUFFER = "weight_bf16"  # name of the output layer's cached bf16 weight

NORMS = ("input_layernorm", "post_attention_layernorm")
"""Norms of Llama-like layers that only linear layers read; other models use these names, too."""


def use_fused_layers(adapted: PeftModel) -> None:
    """Replace every plain LoRA layer on a CPU by the fused one in place; others stay PEFT's.

    In Llama-like models, norms round their output once for all the linear layers that read it.
    """
    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    plain = [layer for layer in layers if _is_plain(layer)]
    for layer in plain:
        layer.forward = partial(_lora_forward, layer, layer.forward)
    if plain and adapted.config.model_type in LIKE_LLAMA:
        for name, module in adapted.named_modules():
            if name.endswith(NORMS):
                module.forward = partial(_norm_forward, module, module.forward)


def cache_head(adapted: PeftModel) -> int:
    """Cache the output layer's weight in bf16 and return the cache's bytes.

    It was loaded from bf16, and is in fp32 only because it is tied to the embeddings; without the
    cache each step rounds it again.
    """
    head: Any = cast("PreTrainedModel", adapted.get_base_model()).get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.requires_grad:
        return 0
    head.register_buffer(HEAD_BUFFER, head.weight.bfloat16(), persistent=False)
    cached: Any = partial(_head_forward, head, head.forward)
    head.forward = cached
    return head.get_buffer(HEAD_BUFFER).nbytes


def _head_forward(
    head: torch.nn.Linear, original_forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return original_forward(x)
    return torch.nn.functional.linear(x, head.get_buffer(HEAD_BUFFER), head.bias)


def _norm_forward(
    norm: Any,  # noqa: ANN401 - one of several classes of transformers
    original_forward: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
) -> torch.Tensor:
    """Round the output as autocast would in each layer that reads it."""
    is_mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if is_mixed else x.dtype
    if x.dtype != torch.float32 or norm.weight.requires_grad:
        return original_forward(x).to(dtype)
    fused: Any = Norm.apply
    return fused(x, norm.weight, norm.variance_epsilon, dtype)


def _is_plain(layer: LoraLayer) -> bool:
    base = layer.get_base_layer()
    return (
        type(base) is torch.nn.Linear
        and not isinstance(layer, AdaLoraLayer)
        and base.weight.device.type == "cpu"
        and not base.weight.requires_grad
        and ADAPTER not in layer.lora_variant
        and list(layer.lora_A) == [ADAPTER]
        and isinstance(layer.lora_dropout[ADAPTER], torch.nn.Identity)
        and getattr(layer.lora_B[ADAPTER], "bias", None) is None
    )


def _lora_forward(
    layer: LoraLayer,
    original_forward: Callable[..., torch.Tensor],
    x: torch.Tensor,
    **others: object,
) -> torch.Tensor:
    base: Any = layer.get_base_layer()
    is_mixed = torch.is_autocast_enabled("cpu")
    computed = torch.get_autocast_dtype("cpu") if is_mixed else x.dtype  # not that of a wide head
    if layer.disable_adapters or layer.merged or others or base.weight.dtype != computed:
        return original_forward(x, **others)
    a: Any = layer.lora_A[ADAPTER]
    b: Any = layer.lora_B[ADAPTER]
    fused: Any = LoraLinear.apply
    return fused(
        x.to(base.weight.dtype), base.weight, base.bias, a.weight, b.weight, layer.scaling[ADAPTER]
    )


class Norm(torch.autograd.Function):
    """RMS norm ``weight x / sqrt(mean(x^2) + epsilon)`` (arXiv:1910.07467, eq. 4), rounded once."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        x: torch.Tensor,
        weight: torch.Tensor,
        epsilon: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Return the norm in ``dtype``; ``x [..., width]`` is fp32, ``weight [width]`` frozen."""
        inverse = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        ctx.save_for_backward(x, weight, inverse)
        rounded = torch.empty(x.shape, dtype=dtype, device=x.device)
        return torch.mul(x * inverse, weight, out=rounded)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of ``x``."""
        x, weight, inverse = ctx.saved_tensors
        grad_normed = gradients[0] * weight
        along_x = (grad_normed * x).sum(-1, keepdim=True) * inverse**3 / x.shape[-1]
        return grad_normed.mul_(inverse).addcmul_(x, along_x, value=-1), None, None, None


class LoraLinear(torch.autograd.Function):
    """``x W^T + bias + scale (x A^T) B^T``; A and B are trained."""

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
        """Return the layer's output ``[..., out]`` for ``x [..., in]``.

        ``weight [out, in]`` and ``bias [out]`` are frozen; ``a`` is ``[r, in]``, ``b [out, r]``.
        """
        rows = x.reshape(-1, x.shape[-1])
        a_cast, b_cast = a.to(x.dtype), b.to(x.dtype)
        low = rows @ a_cast.T
        output = torch.nn.functional.linear(rows, weight, bias)
        output.addmm_(low, b_cast.T, alpha=scale)
        ctx.save_for_backward(rows, weight, a_cast, b_cast, low)
        ctx.scale, ctx.shape, ctx.precision = scale, x.shape, a.dtype
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - autograd's own
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of ``x``, ``a`` and ``b``."""
        rows, weight, a_cast, b_cast, low = ctx.saved_tensors
        grad_output = gradients[0].reshape(-1, weight.shape[0])
        grad_low = grad_output @ b_cast * ctx.scale
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_output @ weight).addmm_(grad_low, a_cast).view(ctx.shape)
        grad_a = (grad_low.T @ rows).to(ctx.precision)
        grad_b = (grad_output.T @ low).to(ctx.precision) * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None
