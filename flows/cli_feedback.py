"""``flywheel feedback``: what people's feedback came to, from the terminal."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.explaining import opened

if TYPE_CHECKING:
    from components.curate.preferences.evidence import Evidence

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)

MOST_SHOWN = 20


@app.command("feedback")
def show_feedback(
    workload: Annotated[str, typer.Argument(help="The workload's name, as its file has it.")],
) -> None:
    """Show what the last curation made of a workload's feedback.

    How many signals are used for what, or why not; the bursts that were found, with the evidence;
    whom the cap holds back, and by how much; and what people disagreed about. If somebody in there
    is a labeller or a check of yours, name them under `curate: preferences: trusted`.
    """
    from components.curate.preferences import evidence

    with opened() as con:
        found = evidence.read(con, workload)
    if not found.fates:
        console.print(f"no feedback in {workload}, or it has not been curated", markup=False)
        return
    for table in (_fates(found), _bursts(found), _capped(found), _disagreements(found)):
        if table.row_count:
            console.print(table)


def _fates(found: "Evidence") -> Table:
    table = _table("signals", "what became of them")
    for one in found.fates:
        table.add_row(f"{one.signals:,}", one.fate)
    return table


def _bursts(found: "Evidence") -> Table:
    table = _table("held back", "burst", "who", "from", "to", "found", "expected", "chance", "aim")
    for one in found.bursts[:MOST_SHOWN]:
        who = ", ".join(one.actors[:3]) + (
            f" and {n} more" if (n := len(one.actors) - 3) > 0 else ""
        )
        table.add_row(
            f"{one.held_back:,}",
            one.kind,
            escape(who),
            f"{one.first_at:%Y-%m-%d %H:%M}",
            f"{one.last_at:%Y-%m-%d %H:%M}",
            f"{one.found:,}",
            f"{one.expected:.2g}",
            f"{one.chance:.1g}",
            escape(one.aim),
        )
    return table


def _capped(found: "Evidence") -> Table:
    table = _table("held back", "of", "client", "actor", "share before", "after", "cap")
    for one in found.capped[:MOST_SHOWN]:
        table.add_row(
            f"{one.signals - one.kept:,}",
            f"{one.signals:,}",
            escape(one.client_id),
            escape(one.actor_id) or "(without a name)",
            f"{one.share_before:.1%}",
            f"{one.share_after:.1%}",
            f"{one.cap:.0%}",
        )
    return table


def _disagreements(found: "Evidence") -> Table:
    table = _table("disagreements", "about", "outcome", "by")
    for one in found.disagreements:
        table.add_row(f"{one.found:,}", f"a {one.kind}", one.outcome, one.method)
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    table.columns[0].justify = "right"
    return table
