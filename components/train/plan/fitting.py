"""Which batch fits a worker's memory, and what its time costs."""

from collections.abc import Callable

from pydantic import Field

from components.schema import Config


class Worker(Config):
    """The machine that trains, where it isn't the one that plans; it changes no adapter."""

    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of the worker's GPU in GB (10^9 bytes): ``flywheel train --plan`` plans for it, on
    whatever machine; without it for this machine's GPU, or for its main memory if it has none."""

    price_per_hour: float | None = Field(default=None, gt=0)
    """What the worker costs an hour, in your currency: the plan says what the training costs."""


def splits(step_size: int) -> list[int]:
    """List the batch sizes that a step of so many rows can be split into, the smallest first."""
    return [size for size in range(1, step_size + 1) if step_size % size == 0]


def largest(step_size: int, need: Callable[[int], int], free: int) -> int | None:
    """Find the largest batch that fits; ``None`` if not even one row does.

    Args:
        step_size: Rows in a step of the optimizer.
        need: The bytes that a batch of so many rows takes; more for more rows. It is asked seldom.
        free: The bytes there are.
    """
    sizes = splits(step_size)
    if need(sizes[-1]) <= free:
        return sizes[-1]
    low, high = -1, len(sizes) - 1  # sizes[low] fits, sizes[high] doesn't
    while high - low > 1:
        middle = (low + high) // 2
        if need(sizes[middle]) <= free:
            low = middle
        else:
            high = middle
    return sizes[low] if low >= 0 else None


def cost(seconds: float, worker: Worker) -> float | None:
    """Give the price of so much time, in the currency of ``price_per_hour``."""
    return None if worker.price_per_hour is None else worker.price_per_hour * seconds / 3600
