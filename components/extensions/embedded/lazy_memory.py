"""Memory that is given back: tensors of zeros that take it only where written, and freed heap."""

import ctypes
import math
import mmap
from collections.abc import Sequence

import torch  # noqa: TID253 - the engine is a process of its own

_MAP_NORESERVE = 0x4000  # asm-generic/mman.h; Python names it from 3.13
_libc = ctypes.CDLL(None, use_errno=True)


def lazy_zeros(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return zeros of the type and device of ``like``; on a CPU untouched pages take no memory."""
    size = math.prod(shape) * like.itemsize
    if like.device.type != "cpu" or not size:
        return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    pages = mmap.mmap(-1, size, flags=flags)
    pages.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page for a slot's first tokens would take 2 MiB
    return torch.frombuffer(pages, dtype=like.dtype).view(tuple(shape))


def trim_heap() -> None:
    """Give the pages of freed memory back, which glibc keeps for what comes next."""
    _libc.malloc_trim(0)


def release(part: torch.Tensor) -> None:
    """Set a contiguous part of lazy zeros to zero again, and give its whole pages back."""
    part.zero_()
    if part.device.type != "cpu":
        return
    start = -(-part.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (part.data_ptr() + part.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
