"""Whether this machine has room, and whether its GPUs and 4-bit weights can be used."""

from dataclasses import dataclass

from flows.doctor.finding import Finding, fine, note, wrong

GIB = 2**30
FULL, NARROW = 2 * GIB, 10 * GIB
"""Free bytes below which a turn's checkpoints and snapshots may not fit, and soon won't."""


@dataclass(frozen=True, slots=True)
class Compute:
    """What can compute here."""

    torch: str
    driver_gpus: int
    """GPUs that the kernel's driver shows."""
    gpus: tuple[str, ...]
    """Names of those that torch can use."""
    has_cuda_build: bool
    four_bit_trouble: str | None
    """Why bitsandbytes can't hold weights in 4 bits."""


def disk(home: str, free: int) -> Finding:
    """Look at the space that is left."""
    said = f"{free / GIB:.1f} GiB free under {home}"
    remedy = "make room: old snapshots, adapters and jobs/ of the home can be made again"
    if free < FULL:
        return wrong("disk", said, remedy)
    return note("disk", said, remedy) if free < NARROW else fine("disk", said)


def gpus(found: Compute) -> Finding:
    """Look at whether the GPUs that are there can be used."""
    if found.gpus:
        return fine("gpu", f"torch {found.torch} uses {', '.join(found.gpus)}")
    if not found.driver_gpus:
        return fine("gpu", f"none here; torch {found.torch} trains on the processor")
    if not found.has_cuda_build:
        return wrong(
            "gpu",
            f"{found.driver_gpus} GPU(s), but torch {found.torch} was built without CUDA",
            "install the CUDA build of torch (infra/Dockerfile, target cuda)",
        )
    return wrong(
        "gpu",
        f"{found.driver_gpus} GPU(s), but torch {found.torch} sees none",
        "look at `nvidia-smi`, at CUDA_VISIBLE_DEVICES, and for a driver as new as torch's CUDA",
    )


def four_bit(found: Compute) -> Finding:
    """Look at whether weights can be held in 4 bits, as QLoRA wants."""
    if found.four_bit_trouble is None:
        return fine("bitsandbytes", "4-bit weights work")
    return wrong(
        "bitsandbytes",
        f"4-bit weights don't work: {found.four_bit_trouble}",
        "pip install --force-reinstall bitsandbytes, or set `precision: bf16` under train",
    )
