"""Measure the house: `python -m tests.house` prints its size and bounds, counted from the tree.

It exits with 1 if a number is above its ceiling, which is lowered as the house gets smaller and
never raised; lines and words are rounded up, so that a mend has room. ``aim`` is where the number
is to come down to, and ``REASONS`` says what keeps it above.
"""

import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill, indent

import typer.main
from pydantic import BaseModel

from components.serve.settings import ServeSettings
from flows import settings
from flows.workload_file import Workload

ROOT = Path(__file__).parents[1]
FLOWS = ("canary", "export.py", "prune", "search.py")  # of extensions
EXTENSIONS = (ROOT / "components" / "extensions", *(ROOT / "flows" / name for name in FLOWS))
SHARING = re.compile(r"object_store|(?<![b/])lake(?![sd2\".])", re.IGNORECASE)
"""But for digests by BLAKE2, the page on lakes, and what prompts talk about."""

REASONS = {
    "source lines, core": "more than half are curation, serving, the command line, collecting,"
    " training and evaluation, as features that a page names: the next cut ends one of them",
    "modules": "they have 190 lines each; at the aims for lines and modules they would have 220",
    "test lines": "some 14 a test; tests of what a page promises go only with the promise",
    "modules loaded by flows.workload_file": "the models of what a workload sets up check its file,"
    " a module a part, and bring those of the files that they name",
    "settings in files": "nearly a third are the recipe's and those of logs in a form of one's own;"
    " each has a default",
    "variables": "four are Compose's and three the LiteLLM bridge's; the program reads the others",
    "commands": "pending, approve and reject do what the form in the Prefect UI does, for those"
    " without a browser",
    "words on pages": "an eighth are the tests that hold the promises; the rest is what, how and"
    " limits",
}
"""What keeps a number above its aim."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One number of the house.

    ``before`` is what it was when the house had doubled, ``None`` where it was not counted then.
    """

    name: str
    before: int | None
    aim: int
    ceiling: int
    now: int


def measured() -> list[Bound]:
    """Return every number, counted now."""
    core, outside = _parts(_modules("components", "flows"))
    tests = _modules("tests")
    shared = [len(SHARING.findall(path.read_text())) for path in core]
    pages = [path for path in _files("*.md") if path != ROOT / "README.md"]
    variables = sum(name.startswith("FLYWHEEL_") for name in settings.VARIABLES)
    return [
        Bound("source lines, core", None, 62_000, 85_050, _lines(core)),
        Bound("source lines, extensions", None, 20_000, 20_000, _lines(outside)),
        Bound("modules", 558, 370, 546, len(core) + len(outside)),
        Bound("test lines", 101_532, 65_000, 103_000, _lines(tests)),
        Bound("store and lake, mentions outside", 325, 0, 0, sum(shared)),
        Bound(
            "modules loaded by flows.workload_file",
            149,
            40,
            44,
            _closure("flows.workload_file"),
        ),
        Bound(
            "modules loaded by flows.promote",
            334,
            130,
            122,
            _closure("flows.promote"),
        ),
        Bound("settings in files", 267, 130, 278, _settings()),
        Bound("variables", 27, 15, 22, variables),
        Bound("commands", 60, 40, 43, _commands()),
        Bound("lines of the README", 200, 90, 90, _lines([ROOT / "README.md"])),
        Bound(
            "words on pages",
            50_216,
            20_000,
            24_500,
            sum(len(path.read_text().split()) for path in pages),
        ),
    ]


def _files(pattern: str) -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", pattern], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return (ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists())


def _modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in _files(f"{package}/**.py")]


def _parts(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    outside = [path for path in paths if any(map(path.is_relative_to, EXTENSIONS))]
    return [path for path in paths if path not in outside], outside


def _lines(paths: list[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def _closure(module: str) -> int:
    code = (
        f"import sys, {module}; "
        "print(sum(name.startswith(('components.', 'flows.')) for name in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(ended.stdout)


def _settings() -> int:
    known: set[type[BaseModel]] = set()
    for model in (Workload, ServeSettings):
        known |= _models(model, known)
    return sum(len(model.model_fields) for model in known)


def _models(annotation: object, known: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in known:
            return known
        known = known | {annotation}
        for field in annotation.model_fields.values():
            known |= _models(field.annotation, known)
    for part in typing.get_args(annotation):
        known |= _models(part, known)
    return known


def _commands() -> int:
    from flows.cli.main import app

    group = typer.main.get_command(app)
    return sum(1 for _ in _leaves(group))


def _leaves(command: object) -> Iterator[object]:
    below = getattr(command, "commands", None)
    if below is None:
        yield command
        return
    for each in below.values():
        yield from _leaves(each)


def main() -> int:
    """Print the table; return the exit code."""
    bounds = measured()
    sys.stdout.write(f"{'':<40}{'before':>9}{'now':>9}{'aim':>9}\n")
    sys.stdout.writelines(map(row, bounds))
    return 1 if any(each.now > each.ceiling for each in bounds) else 0


def row(bound: Bound) -> str:
    """Return the line of a number, and below it what keeps it above its aim."""
    before = "" if bound.before is None else f"{bound.before:,}"
    mark = f"  above its ceiling, {bound.ceiling:,}" if bound.now > bound.ceiling else ""
    why = REASONS.get(bound.name, "no reason is given")
    below = f"{indent(fill(why, 92), '    ')}\n" if bound.now > bound.aim else ""
    return f"{bound.name:<40}{before:>9}{bound.now:>9,}{bound.aim:>9,}{mark}\n{below}"


if __name__ == "__main__":
    sys.exit(main())
