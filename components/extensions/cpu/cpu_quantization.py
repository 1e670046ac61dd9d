"""Quantize weights to 4 bits on a CPU as bitsandbytes does, bit for bit, in a sixth of its time.

bitsandbytes searches each weight's code with ``torch.bucketize``, 30 ns a weight. Here NumPy
compares the weights of a piece with one boundary between codes after another, 5 ns a weight.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

OPERATION = "bitsandbytes::quantize_4bit"

PIECE = 2**15
"""Weights that are quantized at once: a core's cache holds them, and torch starts no threads."""


@cache
def install() -> bool:
    """Let bitsandbytes quantize so on CPUs, in this process; return whether it does.

    It doesn't where bitsandbytes has a kernel for CPUs itself, or other results.
    """
    import torch
    from bitsandbytes.functional import get_4bit_type

    internals: Any = torch._C  # pyright: ignore[reportPrivateUsage]
    if internals._dispatch_has_kernel_for_dispatch_key(OPERATION, "CPU"):
        return False
    for kind in ("nf4", "fp4"):
        code = get_4bit_type(kind, device="cpu")
        weights = _probe(_boundaries(code)[0])
        expected = bitsandbytes_own(weights, 64, kind, torch.uint8)
        if not all(map(torch.equal, _quantize(weights, 64, code), expected)):
            return False
    torch.library.register_kernel(OPERATION, "cpu", _kernel)
    return True


def _probe(boundaries: "torch.Tensor") -> "torch.Tensor":
    """Return blocks of 64 weights: boundaries and their neighbours, others, and zeros."""
    import torch

    above, below = (torch.nextafter(boundaries, torch.tensor(end)) for end in (2.0, -2.0))
    near = torch.nn.functional.pad(torch.cat([boundaries, above, below]), (0, 19), value=1.0)
    return torch.stack([near, torch.linspace(-0.0173, 0.0141, 64), torch.zeros(64)])


def _kernel(
    weights: "torch.Tensor", blocksize: int, quant_type: str, quant_storage: "torch.dtype"
) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch
    from bitsandbytes.functional import get_4bit_type

    if weights.numel() % blocksize or quant_storage != torch.uint8:
        return bitsandbytes_own(weights, blocksize, quant_type, quant_storage)
    code = get_4bit_type(quant_type, device="cpu")
    return _quantize(weights, blocksize, code)


def bitsandbytes_own(*arguments: object) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return what bitsandbytes' own kernel returns for the arguments of ``OPERATION``."""
    import torch

    operation: Any = torch.ops.bitsandbytes.quantize_4bit.default
    internals: Any = torch._C  # pyright: ignore[reportPrivateUsage]
    keys = internals.DispatchKeySet(internals.DispatchKey.CompositeExplicitAutograd)
    return operation.redispatch(keys, *arguments)


def _boundaries(code: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the boundaries between the code's sorted values, and the index of each value."""
    order = code.argsort()
    return (code[order[:-1]] + code[order[1:]]) / 2, order


def _quantize(
    weights: "torch.Tensor", blocksize: int, code: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the packed codes ``[weights / 2, 1]`` and each block's largest absolute weight."""
    import torch

    boundaries, order = (part.numpy() for part in _boundaries(code))
    pairs = (order[:, None] << 4 | order).astype(np.uint8).ravel()  # two indices in one byte
    blocks = weights.reshape(-1, blocksize)
    packed = np.empty(weights.numel() // 2, np.uint8)
    largest = torch.empty(len(blocks))
    rows, done = max(1, PIECE // blocksize), 0
    for piece, most in zip(blocks.split(rows), largest.split(rows), strict=True):
        floats = piece.float()
        torch.amax(floats.abs(), 1, out=most)
        scaled = (floats * (1 / most.clamp(min=1e-38)).unsqueeze(1)).clamp(-1, 1).view(-1).numpy()
        indices, least = (
            np.full(scaled.shape, len(boundaries), np.uint8),
            np.empty_like(scaled, bool),
        )
        for boundary in boundaries:  # NaN is above all of them, as bucketize has it
            np.less_equal(scaled, boundary, out=least)
            indices -= least.view(np.uint8)
        both = (indices[::2] << 4) | indices[1::2]
        np.take(pairs, both, out=packed[done : done + len(both)])
        done += len(both)
    return torch.from_numpy(packed).unsqueeze(1), largest
