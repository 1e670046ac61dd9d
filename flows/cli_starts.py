"""``flywheel starts``: which turns were started, which were not, and why."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows import settings

app = typer.Typer(add_completion=False)


@app.command()
def starts(
    workload: Annotated[str | None, typer.Argument(help="Whose; all if left out.")] = None,
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="So many, the newest.")] = 20,
) -> None:
    """List the turns that were started, and the looks that started none, each with its reason."""
    from components import warehouse
    from components.trigger import book

    with warehouse.connect(settings.load().warehouse) as con:
        found = book.entries(con, workload, most)
    console = Console(highlight=False)
    if not found:
        console.print("no turn has been started or thought of yet")
        return
    table = Table("when (UTC)", "workload", "", "by", Column("why", overflow="fold"), box=None)
    for one in found:
        said = "turn" if one.started else "no turn"
        when = f"{one.looked_at:%Y-%m-%d %H:%M}"
        table.add_row(when, one.workload_id, said, one.cause, escape(one.reason))
    console.print(table)
