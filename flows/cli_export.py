"""``flywheel export``: what was collected, as lines that any Flywheel loads again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import settings

if TYPE_CHECKING:
    from components.collect.record import Kind

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The file to write, packed if it ends in `.gz`.")],
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Write feedback instead of interactions.")
    ] = False,
    workload: Annotated[
        str | None, typer.Option(help="Whose; of all workloads when left out.")
    ] = None,
) -> None:
    """Write what the warehouse holds as five-key lines, whatever source it came from.

    Loading the file gives the same rows again, with the same ids.
    """
    from components import warehouse
    from components.collect.export import export

    kind: Kind = "feedback" if feedback else "interactions"
    home = settings.load()
    if not home.warehouse.exists():
        errors.print(f"exporting: there is no warehouse at {home.warehouse}", soft_wrap=True)
        raise typer.Exit(2)
    try:
        with warehouse.connect(home.warehouse) as con:
            count = export(con, path, kind, workload_id=workload)
    except (OSError, warehouse.WarehouseNewerError) as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(f"{count} {kind} written to {path}", markup=False, soft_wrap=True)
