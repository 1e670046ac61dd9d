"""``flywheel doctor``: what is insecure, broken or unreachable here, and what would run."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import settings

if TYPE_CHECKING:
    from flows.doctor.finding import Finding

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)

COLOURS = {"wrong": "red", "note": "yellow", "fine": "green"}


@app.command()
def doctor(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Workload files besides the scheduled ones."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Name everything insecure, broken or unreachable, with its fix, and say what would run.

    Exit code 1 where something must be fixed; what may be meant so is only noted.
    """
    from flows.doctor import examine

    home = settings.load()
    workloads = sorted(set(home.workloads.glob("*.yaml")) | set(configs or ()))
    found = list(examine.examine(home, os.environ, workloads))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        _show(found)
        _show_plans(workloads)
    raise typer.Exit(1 if any(one.level == "wrong" for one in found) else 0)


def _show(found: "Iterable[Finding]") -> None:
    for one in found:
        colour = COLOURS[one.level]
        console.print(f"[{colour}]{one.level:<5}[/{colour}]", end="  ")
        console.print(f"{one.about}: {one.found}", markup=False, soft_wrap=True)
        if one.fix:
            console.print(f"       fix: {one.fix}", markup=False, soft_wrap=True)


def _show_plans(workloads: Iterable[Path]) -> None:
    from flows import config
    from flows.doctor import examine

    console.print("\nWhat would run:" if workloads else "\nNo workload is scheduled.")
    for path in workloads:
        try:
            said = examine.plan(config.read(path))
        except config.ConfigError as error:
            said = f"{path.stem}: nothing, its file has {len(error.mistakes)} mistake(s)"
        console.print(f"  {said}", markup=False, soft_wrap=True)
