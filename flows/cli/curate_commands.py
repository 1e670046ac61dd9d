"""`flywheel curate`, `diff` and `held`: snapshots, and interactions held for a person."""

import getpass
import json
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import settings
from flows.cli.console import exit_on, open_warehouse

if TYPE_CHECKING:
    from components.curate.curate_workload import CurationTally
    from components.dataset.freeze_snapshot import Snapshot
    from components.dataset.snapshot_figures import Diff
    from components.store.warehouse import Connection
    from flows.snapshots import FrozenWorkload


app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)

MOST_ASKED = 160  # characters of a request that are shown

SnapshotName = Annotated[
    str, typer.Argument(help="A snapshot's folder, or the beginning of its key.")
]


@app.command()
def curate(
    config: Annotated[Path, typer.Argument(help="The YAML file that describes the workload.")],
) -> None:
    """Curate a workload now and freeze a snapshot; no stack need be up.

    Prints how many interactions each verdict has, and where the snapshot's card lies: a Markdown
    page on what is in it, with pictures. What was curated before in the same way is found again.
    Where one rule left out more of the requests than `curate.most_lost` lets pass, it shows
    examples, freezes nothing and exits with 1 until a person lets it pass (`flywheel held`).
    Collect first: `flywheel collect FILE` takes the same file.
    """
    from flows import snapshots
    from flows import workload_file as configs

    with _exit_on_curate_errors():
        workload = configs.read_workload(config)
        curated = snapshots.freeze_workload(workload, settings.load(), now=datetime.now(UTC))
    _print_tally(curated.tally)
    if curated.snapshot is None:
        _ask_about_losses(curated)
        raise typer.Exit(1)
    if short := snapshots.holdout_shortage(workload, curated.snapshot):
        console.print(short, markup=False, soft_wrap=True)
    _print_snapshot(curated.snapshot)


@app.command()
def diff(
    earlier: SnapshotName,
    later: SnapshotName,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every row that differs, as one JSON object.")
    ] = False,
) -> None:
    """Compare two snapshots: which rows came in, which are out, what changed, and why.

    Of a row that is out, the reason is the verdict that the warehouse has on it now; `kept now`
    says that the next snapshot would have it again. Of a row that is in both, it is what differs:
    a correction changes its answer, a vote its feedback, an equal request its duplicates.

    `flywheel diff 3f2a 90cc` takes the keys of this home's snapshots, as short as they are unique;
    a folder may lie anywhere.
    """
    from components.dataset import snapshot_figures as diffs
    from components.store.manifest import Manifest
    from flows import snapshots

    root = settings.load().snapshots
    with _exit_on_curate_errors(), _existing_or_empty() as con:
        found = diffs.compare(
            con, snapshots.find_snapshot(root, earlier), snapshots.find_snapshot(root, later)
        )
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, default=Manifest.as_recorded))
    else:
        _print_diff(found)


def _print_tally(tally: "CurationTally") -> None:
    table = Table("interactions", "verdict", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    for verdict, count in sorted(tally.counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(f"{count:,}", verdict)
    console.print(table)
    for name, count in sorted(tally.unjudgeable.items(), key=lambda item: (-item[1], item[0])):
        console.print(f"{count:,} could not be judged: {name}", markup=False)
    for name, count in sorted(tally.flagged.items()):
        console.print(f"{count:,} found and not dropped: {name}", markup=False)
    if tally.feedback_held_back:
        console.print(
            f"{tally.feedback_held_back:,} feedback signals held back; see: flywheel feedback "
            f"{tally.workload_id}",
            markup=False,
        )


def _ask_about_losses(curated: "FrozenWorkload") -> None:
    for one in curated.lost:
        console.print(f"{one.loss}:", markup=False, soft_wrap=True)
        for example in one.examples:
            mark = f" ({example.mark})" if example.mark else ""
            asked = " ".join((example.asked or "").split())[:MOST_ASKED]
            said = f"  {example.interaction_id[:12]}{mark}: {asked}"
            console.print(said, markup=False, soft_wrap=True)
    console.print(
        "nothing was frozen, and a turn stops here: that may be a mistake. Where it is right, "
        f"`flywheel held let-pass {curated.tally.workload_id} RULE` goes on from the next curation "
        "on; curate.most_lost in the workload's file says how much passes unasked",
        markup=False,
        soft_wrap=True,
    )


def _print_snapshot(frozen: "Snapshot") -> None:
    console.print(
        f"snapshot {frozen.key}: {frozen.train_rows:,} to train on, {frozen.validation_rows:,} to "
        f"validate, {frozen.holdout_rows:,} held out in "
        f"{frozen.clusters['holdout']:,} clusters ({frozen.holdout_version})\n"
        f"{frozen.path / 'README.md'}",
        markup=False,
        soft_wrap=True,
    )


def _print_diff(difference: "Diff") -> None:
    for name, (before, after) in difference.facts().items():
        said = f"{name}: {before} -> {after}" if before != after else f"{name}: {after}"
        console.print(said, markup=False, soft_wrap=True)
    for name, (before, after) in difference.config.items():
        console.print(f"setting {name}: {before} -> {after}", markup=False, soft_wrap=True)
    table = Table("rows", "change", "why", "side", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    for change, why, before, after, count in difference.counts():
        side = before if before == after else " -> ".join(filter(None, (before, after)))
        table.add_row(f"{count:,}", change, escape(why), side)
    console.print(table if difference.changes else "the rows are the same")


@contextmanager
def _existing_or_empty() -> "Generator[Connection]":
    """Open the warehouse; where there is none, an empty one that is thrown away."""
    from components.store import warehouse

    path = settings.load().warehouse
    with TemporaryDirectory(prefix="flywheel-") as folder:
        wanted = path if path.exists() else Path(folder) / path.name
        with warehouse.connect(wanted) as con:
            yield con


def _exit_on_curate_errors() -> AbstractContextManager[None]:
    from components.curate.split import SplitChangedError
    from components.dataset.freeze_snapshot import EmptySideError
    from components.store import warehouse
    from flows.workload_file import WorkloadError

    refused = (WorkloadError, SplitChangedError, EmptySideError, warehouse.CheckFailedError)
    return exit_on(*refused, OSError, LookupError, warehouse.WarehouseNewerError)


held_app = typer.Typer(
    help="See what rules hold back for a person, such as prompt injection, or left out very much "
    "of, and let it in.",
    no_args_is_help=True,
)

MOST_SHOWN = 50

InteractionId = Annotated[
    str, typer.Argument(help="The interaction's id, or its first characters.")
]


@held_app.command("list")
def list_held(
    workload: Annotated[
        str | None, typer.Option(help="Whose; of all workloads when left out.")
    ] = None,
) -> None:
    """List what waits: rules that left out very much, then what is held, the oldest first.

    `flywheel held let-pass` answers the former, `show` and `release` are for the latter.
    """
    from components.curate import held_rows

    with open_warehouse(LookupError) as con:
        found = held_rows.waiting_rows(con, workload)
        lost = held_rows.open_losses(con, workload)
    for loss in lost:
        console.print(f"{loss.workload_id}: {loss}", markup=False, soft_wrap=True)
    table = Table("id", "workload", "rule", "mark", box=None, pad_edge=False)
    for one in found[:MOST_SHOWN]:
        table.add_row(one.interaction_id[:12], one.workload_id, one.rule, escape(one.mark))
    if found or not lost:
        console.print(table if found else "nothing is held")
    if len(found) > MOST_SHOWN:
        console.print(f"and {len(found) - MOST_SHOWN} more")


@held_app.command("show")
def show_held(interaction_id: InteractionId) -> None:
    """Show one held interaction: what was found, what was said and what was answered."""
    from components.curate import held_rows

    with open_warehouse(LookupError) as con:
        one = held_rows.find_held(con, interaction_id)
    logged = f"{one.logged_at:%Y-%m-%d %H:%M} by {one.client_id}"
    console.print(f"{one.interaction_id}  logged {logged}", markup=False, soft_wrap=True)
    console.print(f"{one.rule}: {one.mark}", markup=False, soft_wrap=True)
    for message in [*json.loads(one.messages), json.loads(one.answer or "null")]:
        console.print(json.dumps(message, ensure_ascii=False), markup=False, soft_wrap=True)


@held_app.command("release")
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
    from components.curate import held_rows
    from components.store import warehouse

    now = datetime.now(UTC)
    with open_warehouse(LookupError) as con, warehouse.transaction(con):
        found = [held_rows.find_held(con, beginning) for beginning in interaction_ids]
        for one in found:
            held_rows.release_held(con, one, by=by, note=note, now=now)
    console.print(f"{len(found)} released; the next curation lets them in")


@held_app.command("let-pass")
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
    from components.curate import held_rows
    from components.store import warehouse

    with open_warehouse(LookupError) as con, warehouse.transaction(con):
        waiting = held_rows.open_losses(con, workload)
        found = [one for one in waiting if one.rule == rule]
        if not found:
            asked = ", ".join(one.rule for one in waiting) or "no rule"
            raise LookupError(
                f"letting {rule} pass for {workload}: nobody is asked about it, but about {asked}"
            )
        held_rows.release_losses(con, found, by=by, note=note, now=datetime.now(UTC))
    console.print(f"passes: {found[0]}", markup=False, soft_wrap=True)
