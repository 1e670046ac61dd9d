"""Compute a batch on a CPU in lanes: each takes a share of it, on a thread of its own.

Torch's own threads split every operation and wait for one another after each. A small model has
many small operations, and whatever else runs on the machine makes all of them wait. A lane waits
once a step. ``tests/benchmarks/lanes.py`` times both, alone and beside a busy process.
Imported late, since it loads torch.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch  # noqa: TID253 - this module is itself imported late

from components.train import sharding
from components.train.batches import Share


class Lanes:
    """Threads that live as long as the training."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.threads = threads

    def backward(
        self,
        loss_of: Callable[[Share], torch.Tensor],
        shares: Sequence[Share],
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
    fits = on_cpu and not _draws(model) and not sharding.is_sharded(model)
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
    loss_of: Callable[[Share], torch.Tensor], weights: Sequence[torch.Tensor], share: Share
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    loss = loss_of(share)
    return loss.detach(), torch.autograd.grad(loss, weights)


def _draws(model: torch.nn.Module) -> bool:
    """Tell whether the model draws random numbers while it trains."""
    if getattr(getattr(model, "config", None), "attention_dropout", 0):
        return True
    return any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in model.modules())
