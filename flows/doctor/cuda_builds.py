"""Check that torch's build, the NVIDIA driver, the GPUs and bitsandbytes go together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from components.models.device import Graphics
from flows.doctor.finding import CheckResult, fine, wrong

CudaVersion: TypeAlias = tuple[int, int]

MINIMUM_DRIVERS = {11: 450, 12: 525, 13: 580}
"""The lowest branch of the Linux driver for each major version of CUDA (NVIDIA's table of minor
version compatibility)."""


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """A build of torch on PyTorch's index; it has kernels from ``lowest`` to ``highest``."""

    index: str
    cuda: CudaVersion
    lowest: tuple[int, int]
    highest: tuple[int, int]


# Both exist for every torch from 2.9 on.
TORCH_BUILDS = (
    TorchBuild("cu130", (13, 0), lowest=(7, 5), highest=(12, 1)),
    TorchBuild("cu126", (12, 6), lowest=(5, 0), highest=(9, 0)),
)
TORCH_INDEX = "https://download.pytorch.org/whl"


@dataclass(frozen=True, slots=True)
class Compute:
    """What computes here.

    ``cards`` are the machine's GPUs by their driver, ``driver`` its version (``None``: unknown),
    ``gpus`` those that torch can use, ``kernels`` the architectures that torch's build has code for
    (``sm_90``), ``libraries`` the versions of CUDA that bitsandbytes has a library for, and
    ``four_bit_trouble`` why it can't hold weights in 4 bits. ``products`` is the type of a
    training's products.
    """

    torch: str
    cuda: CudaVersion | None
    driver: str | None
    cards: tuple[Graphics, ...]
    gpus: tuple[Graphics, ...]
    kernels: tuple[str, ...]
    bitsandbytes: str
    libraries: frozenset[CudaVersion]
    four_bit_trouble: str | None
    products: str


def check_gpus(compute: Compute) -> CheckResult:
    """Check that torch can use the GPUs; otherwise name the build of torch that can."""
    named = f"torch {compute.torch}"
    if not compute.cards and not compute.gpus:
        return fine("gpu", f"none here; {named} trains on the processor in {compute.products}")
    cards = ", ".join(card.name for card in compute.cards)
    if compute.cuda is None:
        return wrong("gpu", f"{cards}, but {named} was built without CUDA", _torch_command(compute))
    named += f" (CUDA {_dotted(compute.cuda)})"
    if not compute.gpus:
        minimum = MINIMUM_DRIVERS.get(compute.cuda[0])
        branch = _branch(compute.driver)
        if minimum is not None and branch is not None and branch < minimum:
            state = f"{cards} with driver {compute.driver}, but {named} needs {minimum} or newer"
            return wrong("gpu", state, _torch_command(compute))
        return wrong(
            "gpu",
            f"{cards}, but {named} sees none",
            "look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES",
        )
    foreign = [gpu for gpu in compute.gpus if not _has_kernels(gpu, compute.kernels)]
    if foreign:
        names = ", ".join(f"{gpu.name} (compute capability {_capability(gpu)})" for gpu in foreign)
        return wrong("gpu", f"{named} has no kernels for {names}", _torch_command(compute))
    return fine("gpu", f"{named} uses {', '.join(gpu.name for gpu in compute.gpus)}")


def check_four_bit(compute: Compute) -> CheckResult:
    """Check that weights can be held in 4 bits, as QLoRA requires, where torch computes."""
    cuda, trouble = compute.cuda, compute.four_bit_trouble
    if cuda is None or not compute.cards:
        if trouble is None:
            return fine("bitsandbytes", "4-bit weights work")
        return _four_bit_failed(trouble)
    # Some versions load the library of another minor version; none loads another major version's.
    pairs = {each for each in compute.libraries if each[0] == cuda[0]}
    if not pairs or (trouble is not None and cuda not in pairs):
        listed = ", ".join(map(_dotted, sorted(compute.libraries))) or "no version of CUDA"
        return wrong(
            "bitsandbytes",
            f"bitsandbytes {compute.bitsandbytes} has libraries for {listed}, and torch "
            f"{compute.torch} was built with CUDA {_dotted(cuda)}",
            _pair_command(compute, cuda),
        )
    if trouble is not None:
        return _four_bit_failed(trouble)
    if not compute.gpus:  # it was tried on the processor
        return fine("bitsandbytes", f"has a library for CUDA {_dotted(cuda)}")
    return fine("bitsandbytes", f"4-bit weights work with CUDA {_dotted(cuda)}")


def _four_bit_failed(trouble: str) -> CheckResult:
    return wrong(
        "bitsandbytes",
        f"4-bit weights don't work: {trouble}",
        "pip install --force-reinstall --no-deps bitsandbytes, or set `bnb_4bit_quant_type: null` "
        "under train",
    )


def _torch_command(compute: Compute) -> str:
    """Return the command that installs a build for this driver and these GPUs, or what is needed.

    A pin without ``+cu130`` would be satisfied by the build that is there.
    """
    cards = compute.gpus or compute.cards
    if (build := _fitting_build(TORCH_BUILDS, compute.driver, cards)) is not None:
        return _install(compute, build)
    if (build := _fitting_build(TORCH_BUILDS, None, cards)) is not None:
        minimum = MINIMUM_DRIVERS[build.cuda[0]]
        return f"a driver of {minimum} or newer, then {_install(compute, build)}"
    names = ", ".join(card.name for card in cards)
    return f"hide some GPUs by CUDA_VISIBLE_DEVICES: no build of torch has kernels for {names}"


def _pair_command(compute: Compute, cuda: CudaVersion) -> str:
    """Return the command for a torch that goes with this bitsandbytes, or for a newer one of it."""
    matching = [build for build in TORCH_BUILDS if build.cuda in compute.libraries]
    build = _fitting_build(matching, compute.driver, compute.gpus or compute.cards)
    upgrade = "pip install --upgrade --no-deps bitsandbytes"
    if build is None:
        return upgrade
    is_behind = cuda > max(compute.libraries)
    return f"{upgrade}, or {_install(compute, build)}" if is_behind else _install(compute, build)


def _fitting_build(
    builds: Iterable[TorchBuild], driver: str | None, cards: Sequence[Graphics]
) -> TorchBuild | None:
    branch = _branch(driver)
    for build in builds:
        runs = branch is None or branch >= MINIMUM_DRIVERS[build.cuda[0]]
        known = [card.capability for card in cards if card.capability is not None]
        if runs and all(build.lowest <= capability <= build.highest for capability in known):
            return build
    return None


def _install(compute: Compute, build: TorchBuild) -> str:
    version = compute.torch.partition("+")[0]
    return f"pip install torch=={version}+{build.index} --index-url {TORCH_INDEX}/{build.index}"


def _has_kernels(gpu: Graphics, kernels: Sequence[str]) -> bool:
    """Return whether a build has machine code for a GPU, or PTX that its driver can compile.

    Machine code runs on the same major version from its own minor version on, PTX on all later.
    """
    if gpu.capability is None or not kernels:
        return True
    for kernel in kernels:
        kind, _, digits = kernel.partition("_")
        number = "".join(filter(str.isdigit, digits))  # without the suffix of sm_90a
        capability = (int(number[:-1]), int(number[-1]))
        if kind == "compute" and gpu.capability >= capability:
            return True
        if gpu.capability[0] == capability[0] and gpu.capability >= capability:
            return True
    return False


def _branch(driver: str | None) -> int | None:
    return int(driver.partition(".")[0]) if driver else None


def _dotted(version: CudaVersion) -> str:
    return ".".join(map(str, version))


def _capability(gpu: Graphics) -> str:
    return _dotted(gpu.capability) if gpu.capability else "unknown"
