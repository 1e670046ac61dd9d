"""``flywheel held``: what waits for a person before it is trained on, from the terminal."""

import getpass
import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.explaining import opened

app = typer.Typer(
    help="See what rules hold back for a person, such as prompt injection, or left out very much "
    "of, and let it in.",
    no_args_is_help=True,
)
console = Console(highlight=False)

MOST_SHOWN = 50

Id = Annotated[str, typer.Argument(help="The interaction's id, or its first characters.")]


@app.command("list")
def list_held(
    workload: Annotated[
        str | None, typer.Option(help="Whose; of all workloads when left out.")
    ] = None,
) -> None:
    """List what waits: rules that left out very much, then what is held, the oldest first.

    `flywheel held let-pass` answers the former, `show` and `release` are for the latter.
    """
    from components.curate import held, losses

    with opened(LookupError) as con:
        found = held.waiting(con, workload)
        lost = losses.waiting(con, workload)
    for loss in lost:
        console.print(f"{loss.workload_id}: {loss}", markup=False, soft_wrap=True)
    table = Table("id", "workload", "rule", "mark", box=None, pad_edge=False)
    for one in found[:MOST_SHOWN]:
        table.add_row(one.interaction_id[:12], one.workload_id, one.rule, escape(one.mark))
    if found or not lost:
        console.print(table if found else "nothing is held")
    if len(found) > MOST_SHOWN:
        console.print(f"and {len(found) - MOST_SHOWN} more")


@app.command("show")
def show_held(interaction_id: Id) -> None:
    """Show one held interaction: what was found, what was said and what was answered."""
    from components.curate import held

    with opened(LookupError) as con:
        one = held.find(con, interaction_id)
    logged = f"{one.logged_at:%Y-%m-%d %H:%M} by {one.client_id}"
    console.print(f"{one.interaction_id}  logged {logged}", markup=False, soft_wrap=True)
    console.print(f"{one.rule}: {one.mark}", markup=False, soft_wrap=True)
    for message in [*json.loads(one.messages), json.loads(one.answer or "null")]:
        console.print(json.dumps(message, ensure_ascii=False), markup=False, soft_wrap=True)


@app.command("release")
def release_held(
    interaction_ids: Annotated[
        list[str], typer.Argument(help="The interactions' ids, or their first characters.")
    ],
    by: Annotated[
        str,
        typer.Option("--as", help="Your name; stored with it.", default_factory=getpass.getuser),
    ],
    note: Annotated[str, typer.Option(help="Why it is harmless.")] = "",
) -> None:
    """Let interactions in: from the next curation on, the rule that held them no longer does."""
    from components import warehouse
    from components.curate import held

    now = datetime.now(UTC)
    with opened(LookupError) as con, warehouse.transaction(con):
        found = [held.find(con, beginning) for beginning in interaction_ids]
        for one in found:
            held.release(con, one, by=by, note=note, now=now)
    console.print(f"{len(found)} released; the next curation lets them in")


@app.command("let-pass")
def let_pass(
    workload: Annotated[str, typer.Argument(help="The workload.")],
    rule: Annotated[str, typer.Argument(help="The rule that left out very much of it.")],
    by: Annotated[
        str,
        typer.Option("--as", help="Your name; stored with it.", default_factory=getpass.getuser),
    ],
    note: Annotated[str, typer.Option(help="Why it is right.")] = "",
) -> None:
    """Let a rule leave out as much as it does: from the next curation on, nobody is asked again.

    That holds until the rule leaves out a further tenth of the requests.
    """
    from components import warehouse
    from components.curate import losses

    with opened(LookupError) as con, warehouse.transaction(con):
        waiting = losses.waiting(con, workload)
        found = [one for one in waiting if one.rule == rule]
        if not found:
            asked = ", ".join(one.rule for one in waiting) or "no rule"
            raise LookupError(
                f"letting {rule} pass for {workload}: nobody is asked about it, but about {asked}"
            )
        losses.release(con, found, by=by, note=note, now=datetime.now(UTC))
    console.print(f"passes: {found[0]}", markup=False, soft_wrap=True)
