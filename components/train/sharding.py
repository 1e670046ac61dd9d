"""Split the frozen base over the processes that train together, so that none has to hold it all.

PyTorch's ``fully_shard`` (FSDP2) gathers a layer's weights before the layer computes and lets go of
them when it has, forward and back. It gathers whatever bits it is given, so that 4-bit weights
travel as they are. What is trained is small: each process has all of it, and ``peers`` pools its
gradients, so nothing else of a training knows of the split, but that all processes must compute
equally often.
Imported late, since it loads torch.
"""

from typing import Any

import torch  # noqa: TID253 - this module is itself imported late
from bitsandbytes.nn.modules import Linear4bit, Params4bit  # noqa: TID253 - as above
from peft import PeftModel  # noqa: TID253 - as above
from torch.distributed.device_mesh import init_device_mesh  # noqa: TID253 - as above
from torch.distributed.fsdp import FSDPModule, fully_shard  # noqa: TID253 - as above
from torch.distributed.tensor import DTensor  # noqa: TID253 - as above

from components.train import peers

RANK_COUNTS = ".ranknum."
"""AdaLoRA's own numbers, frozen, which its allocator reads between the steps."""


def shard(adapted: PeftModel, device: torch.device) -> None:
    """Leave this process its part of the base, and all of the adapter, on its device.

    Layer after layer is put there whole before it is split: the device never holds two.

    Args:
        adapted: The base with its adapter, equal in every process, in the host's memory if the
            device's would not hold it.
        device: Where this process computes.
    """
    mesh = init_device_mesh(device.type, (peers.count(),))
    own = {
        weight
        for name, weight in adapted.named_parameters()
        if weight.requires_grad or RANK_COUNTS in name
    }
    for weight in own:
        weight.data = weight.data.to(device)
    _keep_constants(adapted, device)
    base: Any = adapted.get_base_model()
    layers = [one for one in adapted.modules() if type(one).__name__ in _layers(base)]
    for module in (*layers, adapted):  # the last one takes what no layer has
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=own)
    base.hf_device_map = {"": device}  # Accelerate refuses one that was left on the host


def is_sharded(model: torch.nn.Module) -> bool:
    """Tell whether the model's base is split over the processes."""
    return isinstance(model, FSDPModule)


def held(model: torch.nn.Module) -> int:
    """Count the bytes of frozen weights that this process holds while no layer computes."""
    frozen = (weight for weight in model.parameters() if not weight.requires_grad)
    parts = (one.to_local() if isinstance(one, DTensor) else one for one in frozen)
    return sum(one.numel() * one.element_size() for one in parts)


def _layers(base: Any) -> set[str]:  # noqa: ANN401 - its attribute is transformers' own
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
