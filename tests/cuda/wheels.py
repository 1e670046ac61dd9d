"""What a machine without a package index lacks: wheels, in portions that can be carried there.

The machine has torch for its own CUDA, and more; `pip list --format json` there says what.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOTS = (
    "trl",
    "bitsandbytes",
    "peft",
    "accelerate",
    "transformers",
    "datasets",
    "lm-eval",
    "duckdb",
    "pyarrow",
    "pydantic",
    "psutil",
    "scipy",
    "typer",
    "jinja2",
    "httpx",
    "pyyaml",
    "llguidance",
    "jsonschema-rs",
    "zstandard",
    "pytest",
    "pytest-timeout",
    "hypothesis",
)
"""What the steps import, by distribution."""

GPU_ONLY = {"liger-kernel": "0.8.5"}
"""What the steps take if it is there and no CPU has a use for, with its version."""

LEFT_OUT = ("torch", "triton")
"""With their dependencies: the machine's own fit its driver."""

PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)

PORTION = 56 * 2**20
"""Bytes of a portion: 64 MiB may be carried at once, the project's files among them."""


@dataclass(frozen=True)
class Piece:
    """A wheel, or a part of one that is larger than a portion."""

    name: str
    size: int
    start: int = 0


def required(python: str, has: Mapping[str, str]) -> dict[str, str]:
    """Return the versions, by distribution, of what a machine with ``has`` lacks.

    The versions are those installed here; a version there that a requirement allows stays.
    """
    environment: dict[str, str] = {
        name: str(value) for name, value in default_environment().items()
    }
    environment |= {"python_version": python, "python_full_version": f"{python}.0"}
    needed = {name: version for name, version in GPU_ONLY.items() if has.get(name) != version}
    waiting = [Requirement(name) for name in ROOTS]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT or name.startswith("nvidia-"):
            continue
        known = has.get(name)
        if known is not None and requirement.specifier.contains(known, prereleases=True):
            continue
        if name in seen:
            continue
        seen.add(name)
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # of another platform, or an extra that nobody uses
            continue
        needed[name] = installed.version
        for text in installed.requires or []:
            inner = Requirement(text)
            extras = [*requirement.extras, ""]
            if inner.marker is None or any(
                inner.marker.evaluate({**environment, "extra": extra}) for extra in extras
            ):
                waiting.append(inner)
    return dict(sorted(needed.items()))


def download(versions: Mapping[str, str], python: str, folder: Path) -> Iterator[str]:
    """Download each wheel that ``folder`` lacks; yield the requirements that have none.

    Of a release without wheels one is built, if it has no compiled code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    binary = ["download", "--only-binary=:all:", "--implementation", "cp", *platforms]
    binary += ["--python-version", python, "--dest", str(folder)]
    for name, version in versions.items():
        pattern = f"{name.replace('-', '_')}-{version}-*"
        if any(folder.glob(f"{pattern}.whl")) or _pip(*binary, f"{name}=={version}"):
            continue
        _pip("wheel", "--wheel-dir", str(folder), f"{name}=={version}")
        for built in folder.glob(f"{pattern}.whl"):
            if not built.stem.endswith("-none-any"):  # for this machine's Python
                built.unlink()
        if not any(folder.glob(f"{pattern}.whl")):
            yield f"{name}=={version}"


def _pip(*words: str) -> bool:
    command = [sys.executable, "-m", "pip", words[0], "--quiet", "--no-deps", *words[1:]]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def portions(wheels: Sequence[Path], most: int = PORTION) -> list[list[Piece]]:
    """Share wheels out into as few portions as first-fit finds, the largest wheels first.

    A wheel larger than a portion is cut into pieces, which `cat` joins.
    """
    pieces = [
        Piece(wheel.name, min(most, size - start), start)
        for wheel in wheels
        for size in [wheel.stat().st_size]
        for start in range(0, size, most)
    ]
    shared: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: (-piece.size, piece.name, piece.start)):
        fitting = (each for each in shared if sum(p.size for p in each) + piece.size <= most)
        portion = next(fitting, None)
        if portion is None:
            shared.append(portion := [])
        portion.append(piece)
    return shared


def write_portions(wheels: Path, shared: Sequence[Sequence[Piece]], folder: Path) -> None:
    """Write each portion into a folder of its number; pieces end with where they start."""
    for number, portion in enumerate(shared, 1):
        place = folder / f"portion-{number}"
        place.mkdir(parents=True, exist_ok=True)
        for piece in portion:
            with (wheels / piece.name).open("rb") as whole:
                whole.seek(piece.start)
                content = whole.read(piece.size)
            is_whole = (wheels / piece.name).stat().st_size == piece.size
            name = piece.name if is_whole else f"{piece.name}.{piece.start:012d}"
            (place / name).write_bytes(content)


def read_list(path: Path | None) -> dict[str, str]:
    """Read the output of `pip list --format json`; without one, a machine has torch only."""
    if path is None:
        return {}
    return {
        canonicalize_name(each["name"]): each["version"] for each in json.loads(path.read_text())
    }
