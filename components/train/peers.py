"""The processes that train together, each on its part of every batch; one process is all there is.

Imported late, since it loads torch.
"""

from collections.abc import Collection

import torch  # noqa: TID253 - this module is itself imported late
from torch import distributed  # noqa: TID253 - as above


def count() -> int:
    """Count the processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    """Number this process among them; the first, 0, writes files and reports."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def are_expected() -> bool:
    """Tell whether a launcher has started several, which may not have found each other yet."""
    return distributed.is_torchelastic_launched()


def agree(weights: Collection[torch.Tensor]) -> None:
    """Make the weights those of the first process; all take part."""
    if count() > 1:
        for weight in weights:
            distributed.broadcast(weight.data, src=0)


def pool(
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
    if count() == 1:
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


def any_of(claim: bool, device: torch.device) -> bool:
    """Tell whether a claim is true in one of the processes; all of them take part."""
    if count() == 1:
        return claim
    claims = torch.tensor(int(claim), device=device)
    distributed.all_reduce(claims)
    return bool(claims)


def most(number: int, device: torch.device) -> int:
    """Give the highest of the processes' numbers; all of them take part."""
    if count() == 1:
        return number
    numbers = torch.tensor(number, device=device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return int(numbers)


def meet() -> None:
    """Wait until all of them are here."""
    if count() > 1:
        distributed.barrier()
