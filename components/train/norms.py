"""A frozen RMS norm as one step forward and one back, for CPUs.

Written out as PyTorch operations it passes over its input, and over copies of it, about twice as
often. Its weight learns nothing, so only the input has a gradient.
Imported late, since it loads torch.
"""

from typing import Any

import torch  # noqa: TID253 - this module is itself imported late


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
