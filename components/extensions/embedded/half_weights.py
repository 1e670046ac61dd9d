"""Multiply fp32 rows by weights in fp16, with FBGEMM's kernel: a step reads half of the bytes.

Sums are fp32. Rounding a weight changes it by at most 0.05 %; a row's result does not depend on the
number of rows or threads.
"""

from functools import cache

import torch  # noqa: TID253 - the engine is a process of its own
from torch.nn import functional  # noqa: TID253 - as above

from components.extensions.cpu.prefix_cache.weights import Multiply


@cache
@torch.inference_mode()
def works() -> bool:
    """Test whether torch has the kernel, which needs FBGEMM, so AVX2."""
    rows, weight = torch.linspace(-1, 1, 3 * 65).reshape(3, 65), torch.eye(33, 65) + 0.1
    try:
        product = half_multiply(weight, None)(rows)
    except (AttributeError, RuntimeError):  # the operation is missing, or unsupported
        return False
    return torch.allclose(
        product, functional.linear(rows, weight.half().float()), rtol=1e-5, atol=1e-5
    )


def half_multiply(weight: torch.Tensor, bias: torch.Tensor | None) -> Multiply:
    """Return the product of rows with a copy of a weight in fp16; for a CPU, where ``works``."""
    packed = torch.ops.quantized.linear_prepack_fp16(weight.detach().contiguous(), bias)
    multiply = torch.ops.quantized.linear_dynamic_fp16
    return lambda x: multiply(x, packed)
