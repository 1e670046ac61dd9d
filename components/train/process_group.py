"""Several training processes: pooled gradients and a sharded base."""

from collections.abc import Collection
from typing import Any

import torch  # noqa: TID253 - this module is itself imported late
from bitsandbytes.nn.modules import Linear4bit, Params4bit  # noqa: TID253 - as above
from peft import PeftModel  # noqa: TID253 - as above
from torch import distributed  # noqa: TID253 - as above
from torch.distributed.device_mesh import init_device_mesh  # noqa: TID253 - as above
from torch.distributed.fsdp import FSDPModule, fully_shard  # noqa: TID253 - as above


def process_count() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_number() -> int:
    """Return this process's number; the first, 0, writes files and reports."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def are_peers_expected() -> bool:
    """Return whether a launcher started several processes, even if they aren't connected yet."""
    return distributed.is_torchelastic_launched()


def broadcast_weights(weights: Collection[torch.Tensor]) -> None:
    """Set all processes' weights to the first one's; collective."""
    if process_count() > 1:
        for weight in weights:
            distributed.broadcast(weight.data, src=0)


def pool_gradients(
    weights: Collection[torch.Tensor], loss: torch.Tensor, normalizer: torch.Tensor
) -> torch.Tensor:
    """Average the gradients, in place, and the loss over all processes; collective.

    Args:
        weights: The trained weights.
        loss: The mean loss of this process's part.
        normalizer: The part's weight; 0 for a process without examples.

    Returns:
        The mean loss of all parts.
    """
    if process_count() == 1:
        return loss
    gradients = [
        torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights
    ]
    figures = torch.stack([loss.float(), torch.ones_like(loss)])
    flat = torch.cat([*(gradient.flatten().float() for gradient in gradients), figures])
    flat *= normalizer.to(flat)
    distributed.all_reduce(flat)
    flat /= flat[-1].clone()
    *pieces, figures = flat.split([*(gradient.numel() for gradient in gradients), 2])
    for weight, piece in zip(weights, pieces, strict=True):
        weight.grad = piece.view_as(weight).to(weight.dtype)
    return figures[0].clone()


def any_process(claim: bool, device: torch.device) -> bool:
    """Return whether a claim is true in any of the processes; collective."""
    if process_count() == 1:
        return claim
    claims = torch.tensor(int(claim), device=device)
    distributed.all_reduce(claims)
    return bool(claims)


def highest_number(number: int, device: torch.device) -> int:
    """Return the highest of the processes' numbers; collective."""
    if process_count() == 1:
        return number
    numbers = torch.tensor(number, device=device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return int(numbers)


def barrier() -> None:
    """Wait for all processes."""
    if process_count() > 1:
        distributed.barrier()


RANK_COUNTS = ".ranknum."  # AdaLoRA's frozen numbers, which its allocator reads between steps


def shard_base(adapted: PeftModel, device: torch.device) -> None:
    """Move this process's shard of the base, and the whole adapter, to its device.

    Each layer is moved whole and then split, so the device never has two whole layers.

    Args:
        adapted: The base with its adapter, equal in every process; in the host's memory if it
            exceeds the device's.
        device: This process's.
    """
    mesh = init_device_mesh(device.type, (process_count(),))
    own = {
        weight
        for name, weight in adapted.named_parameters()
        if weight.requires_grad or RANK_COUNTS in name
    }
    for weight in own:
        weight.data = weight.data.to(device)
    _keep_constants(adapted, device)
    base: Any = adapted.get_base_model()
    layer_classes: set[str] = set(base._no_split_modules or ())
    layers = [module for module in adapted.modules() if type(module).__name__ in layer_classes]
    for module in (*layers, adapted):  # the last one shards the weights outside of layers
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=own)
    base.hf_device_map = {"": device}  # Accelerate refuses a model on the host


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether the model's base is sharded over the processes."""
    return isinstance(model, FSDPModule)


def _keep_constants(adapted: PeftModel, device: torch.device) -> None:
    # A sharded weight loses its quantization constants, which are no parameters and stay whole;
    # bitsandbytes then looks for them in the layer.
    linear: list[Any] = [module for module in adapted.modules() if isinstance(module, Linear4bit)]
    for layer in linear:
        if isinstance(layer.weight, Params4bit):
            layer.quant_state = layer.weight.quant_state
            layer.quant_state.to(device)
            layer.weight = torch.nn.Parameter(layer.weight.data, requires_grad=False)
