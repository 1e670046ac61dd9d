"""Several training processes: pooled gradients and a sharded base."""

from collections.abc import Collection
from typing import Any

import torch  # noqa: TID253 - this module is itself imported late
from bitsandbytes.nn.modules import Linear4bit, Params4bit  # noqa: TID253 - as above
from peft import PeftModel  # noqa: TID253 - as above
from torch import distributed  # noqa: TID253 - as above
from torch.distributed.device_mesh import init_device_mesh  # noqa: TID253 - as above
from torch.distributed.fsdp import FSDPModule, fully_shard  # noqa: TID253 - as above
from torch.distributed.tensor import DTensor  # noqa: TID253 - as above


def process_count() -> int:
    """Count the processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_number() -> int:
    """Number this process among them; the first, 0, writes files and reports."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def are_peers_expected() -> bool:
    """Tell whether a launcher has started several, which may not have found each other yet."""
    return distributed.is_torchelastic_launched()


def broadcast_weights(weights: Collection[torch.Tensor]) -> None:
    """Make the weights those of the first process; all take part."""
    if process_count() > 1:
        for weight in weights:
            distributed.broadcast(weight.data, src=0)


def pool_gradients(
    weights: Collection[torch.Tensor], loss: torch.Tensor, whole: torch.Tensor
) -> torch.Tensor:
    """Make the gradients and the loss of each process's part those of all parts; all take part.

    Args:
        weights: What is learned; their gradients are changed in place.
        loss: The mean loss of this process's part.
        whole: How much it is the mean of; 0 for a process that had nothing to learn from.

    Returns:
        The mean loss of all parts.
    """
    if process_count() == 1:
        return loss
    found = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]
    figures = torch.stack([loss.float(), torch.ones_like(loss)])
    flat = torch.cat([*(grad.flatten().float() for grad in found), figures])
    flat *= whole.to(flat)
    distributed.all_reduce(flat)
    flat /= flat[-1].clone()
    *pieces, figures = flat.split([*(grad.numel() for grad in found), 2])
    for weight, piece in zip(weights, pieces, strict=True):
        weight.grad = piece.view_as(weight).to(weight.dtype)
    return figures[0].clone()


def any_process(claim: bool, device: torch.device) -> bool:
    """Tell whether a claim is true in one of the processes; all of them take part."""
    if process_count() == 1:
        return claim
    claims = torch.tensor(int(claim), device=device)
    distributed.all_reduce(claims)
    return bool(claims)


def highest_number(number: int, device: torch.device) -> int:
    """Give the highest of the processes' numbers; all of them take part."""
    if process_count() == 1:
        return number
    numbers = torch.tensor(number, device=device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return int(numbers)


def barrier() -> None:
    """Wait until all of them are here."""
    if process_count() > 1:
        distributed.barrier()


RANK_COUNTS = ".ranknum."
"""AdaLoRA's own numbers, frozen, which its allocator reads between the steps."""


def shard_base(adapted: PeftModel, device: torch.device) -> None:
    """Leave this process its part of the base, and all of the adapter, on its device.

    Layer after layer is put there whole before it is split: the device never holds two.

    Args:
        adapted: The base with its adapter, equal in every process, in the host's memory if the
            device's would not hold it.
        device: Where this process computes.
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
    layers = [one for one in adapted.modules() if type(one).__name__ in _layer_classes(base)]
    for module in (*layers, adapted):  # the last one takes what no layer has
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=own)
    base.hf_device_map = {"": device}  # Accelerate refuses one that was left on the host


def is_sharded(model: torch.nn.Module) -> bool:
    """Tell whether the model's base is split over the processes."""
    return isinstance(model, FSDPModule)


def held_bytes(model: torch.nn.Module) -> int:
    """Count the bytes of frozen weights that this process holds while no layer computes."""
    frozen = (weight for weight in model.parameters() if not weight.requires_grad)
    parts = (one.to_local() if isinstance(one, DTensor) else one for one in frozen)
    return sum(one.numel() * one.element_size() for one in parts)


def _layer_classes(base: Any) -> set[str]:  # noqa: ANN401 - its attribute is transformers' own
    """Name the classes of what transformers keeps together, which are a model's layers."""
    return set(base._no_split_modules or ())


def _keep_constants(adapted: PeftModel, device: torch.device) -> None:
    """Give each 4-bit layer its quantization's constants, which are no parameters and stay whole.

    A split weight knows them no more; bitsandbytes looks for them in the layer then.
    """
    linear: list[Any] = [one for one in adapted.modules() if isinstance(one, Linear4bit)]
    for layer in linear:
        if isinstance(layer.weight, Params4bit):
            layer.quant_state = layer.weight.quant_state
            layer.quant_state.to(device)
            layer.weight = torch.nn.Parameter(layer.weight.data, requires_grad=False)
