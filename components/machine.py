"""Say what computed: Python, the libraries and the device, without loading torch."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components.schema import Json

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "safetensors",
)
"""Those whose version may move the weights of a training."""


def describe() -> dict[str, Json]:
    """Describe this process's environment."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def device(proc: Path = Path("/proc")) -> str:
    """Name the GPUs as their driver does, or the processor."""
    gpus = [
        found.group(1)
        for file in sorted(proc.glob("driver/nvidia/gpus/*/information"))
        if (found := re.search(r"^Model:\s*(.+)$", file.read_text(), re.MULTILINE))
    ]
    if gpus:
        return ", ".join(gpus)
    cpus = proc / "cpuinfo"
    named = (
        re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(), re.MULTILINE)
        if (cpus.is_file())
        else None
    )
    return named.group(1) if named else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
