"""`flywheel curate`, `diff` and `held`: snapshots, and interactions held for a person."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    new_table,
    open_warehouse,
    print_line,
    print_sentence,
)
from flows.cli.parameters import ConfigFile, PersonOption, WorkloadOption

if TYPE_CHECKING:
    from components.curate.curate_workload import CurationTally
    from components.curate.held_rows import HeldInteraction
    from components.dataset.snapshot_figures import Diff, Snapshot
    from components.store.warehouse import Connection
    from flows.snapshots import FrozenWorkload

app = typer.Typer(add_completion=False, no_args_is_help=True)

REQUEST_CHARACTERS = 160
MAX_SHOWN = 50

SnapshotName = Annotated[
    str, typer.Argument(help="A snapshot's folder, or the beginning of its key.")
]


@app.command()
@exit_on(OSError, LookupError)
def curate(config: ConfigFile) -> None:
    """Curate a workload now and freeze a snapshot; no stack is needed.

    Prints how many interactions each verdict has, and the path of the snapshot's card: a Markdown
    page on what is in it, with pictures. What was curated before in the same way is reused. Where
    one rule left out a larger share of the requests than `curate.most_lost` allows, it shows
    examples, freezes nothing and exits with 1 until a person allows it (`flywheel held`). Collect
    first: `flywheel collect FILE` takes the same file.
    """
    with errors.status("curating"):
        from flows import snapshots, workload_file

        workload = workload_file.read_workload(config)
        curated = snapshots.freeze_workload(workload, settings.load(), now=datetime.now(UTC))
    _print_tally(curated.tally)
    if curated.snapshot is None:
        _print_losses(curated)
        raise typer.Exit(1)
    for short in snapshots.shortages(workload, curated.snapshot):
        print_sentence(short, indent="")
    _print_snapshot(curated.snapshot)


@app.command()
@exit_on(OSError, LookupError)
def diff(
    earlier: SnapshotName,
    later: SnapshotName,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every row that differs, as one JSON object.")
    ] = False,
) -> None:
    """Compare two snapshots: which rows were added, removed or changed, and why.

    The reason for a removed row is its verdict in the warehouse now; `kept now` means that the next
    snapshot would have it again. The reason for a changed row is what differs: a correction changes
    its answer, a vote its feedback, an equal request its duplicates.

    `flywheel diff 3f2a 90cc` takes the keys of this home's snapshots, as short as they are unique;
    a folder may lie anywhere.
    """
    from components.store.manifest import Manifest

    root = settings.load().snapshots
    with errors.status("comparing"), _existing_or_empty() as con:
        from components.dataset import freeze_snapshot, snapshot_figures

        difference = snapshot_figures.compare(
            con,
            freeze_snapshot.find_snapshot(root, earlier),
            freeze_snapshot.find_snapshot(root, later),
        )
    if as_json:
        typer.echo(json.dumps(asdict(difference), indent=2, default=Manifest.as_recorded))
    else:
        _print_diff(difference)


def _print_tally(tally: "CurationTally") -> None:
    from flows import snapshots

    table = new_table("interactions", "verdict", is_counted=True)
    for verdict, count in sorted(tally.counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(f"{count:,}", verdict)
    console.print(table)
    for sentence in snapshots.tally_sentences(tally):
        print_line(sentence)


def _print_losses(curated: "FrozenWorkload") -> None:
    for lost in curated.lost:
        print_line(f"{lost.loss}:")
        for example in lost.examples:
            mark = f" ({example.mark})" if example.mark else ""
            request = " ".join((example.asked or "").split())[:REQUEST_CHARACTERS]
            print_line(f"  {example.interaction_id[:12]}{mark}: {request}")
    print_sentence(
        "nothing was frozen, and a turn stops here: that may be a mistake. Where it is right, "
        f"`flywheel held --release --workload {curated.tally.workload_id} --rule RULE` "
        "allows it from the next curation on; curate.most_lost in the workload's file is the "
        "share that passes unasked",
        indent="",
    )


def _print_snapshot(snapshot: "Snapshot") -> None:
    print_line(
        f"snapshot {snapshot.key}: {snapshot.train_rows:,} to train on, "
        f"{snapshot.validation_rows:,} to validate, {snapshot.holdout_rows:,} held out in "
        f"{snapshot.clusters['holdout']:,} clusters ({snapshot.holdout_version})\n"
        f"{snapshot.path / 'README.md'}"
    )


def _print_diff(difference: "Diff") -> None:
    for name, (before, after) in difference.facts().items():
        print_line(f"{name}: {after}" if before == after else f"{name}: {before} -> {after}")
    for name, (before, after) in difference.config.items():
        print_line(f"setting {name}: {before} -> {after}")
    table = new_table("rows", "change", "why", "side", is_counted=True)
    for change, why, before, after, count in difference.counts():
        side = before if before == after else " -> ".join(filter(None, (before, after)))
        table.add_row(f"{count:,}", change, why, side)
    console.print(table if difference.changes else "the rows are the same")


@contextmanager
def _existing_or_empty() -> "Generator[Connection]":
    """Open the warehouse, or, where there is none, a temporary empty one."""
    from components.store import warehouse

    home = settings.load()
    with (
        TemporaryDirectory(prefix="flywheel-") as folder,
        warehouse.connect(home.tables if home.has_warehouse else Path(folder) / "empty") as con,
    ):
        yield con


@app.command()
@exit_on(LookupError)
def held(
    by: PersonOption,
    interaction_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Interactions' ids, or their first characters."),
    ] = None,
    workload: WorkloadOption = None,
    rule: Annotated[
        str | None,
        typer.Option(help="With --release: a rule of --workload that left out very much."),
    ] = None,
    release: Annotated[
        bool,
        typer.Option(
            "--release",
            help="Let these interactions in, or the rule leave out as much as it does, from the "
            "next curation on.",
        ),
    ] = False,
    note: Annotated[str, typer.Option(help="Why it is harmless, or right.")] = "",
) -> None:
    """List what waits for a person: rules that left out very much, and rows, such as injections.

    With ids, show those whole: the rule's finding, the messages and the answer. `--release` lets
    them in; for a rule it holds until the rule leaves out a further tenth of the requests.
    """
    from components.curate import held_rows

    ids = interaction_ids or []
    if release:
        _release(ids, workload, rule, by=by, note=note)
        return
    with open_warehouse() as con:
        if ids:
            for beginning in ids:
                _show_held(held_rows.find_held(con, beginning))
            return
        waiting = held_rows.waiting_rows(con, workload)
        losses = held_rows.open_losses(con, workload)
    for loss in losses:
        print_line(f"{loss.workload_id}: {loss}")
    table = new_table("id", "workload", "rule", "mark")
    for row in waiting[:MAX_SHOWN]:
        table.add_row(row.interaction_id[:12], row.workload_id, row.rule, row.mark)
    if waiting or not losses:
        console.print(table if waiting else "nothing is held")
    if len(waiting) > MAX_SHOWN:
        console.print(f"and {len(waiting) - MAX_SHOWN} more")


def _show_held(row: "HeldInteraction") -> None:
    logged = f"{row.logged_at:%Y-%m-%d %H:%M} by {row.client_id}"
    print_line(f"{row.interaction_id}  logged {logged}")
    print_line(f"{row.rule}: {row.mark}")
    for message in [*json.loads(row.messages), json.loads(row.answer or "null")]:
        print_line(json.dumps(message, ensure_ascii=False))


def _release(ids: list[str], workload: str | None, rule: str | None, *, by: str, note: str) -> None:
    from components.curate import held_rows
    from components.store import warehouse

    now = datetime.now(UTC)
    if bool(ids) == bool(rule) or bool(rule) != bool(workload):
        fail("releasing: expected ids of interactions, or --workload and --rule")
    with open_warehouse() as con, warehouse.transaction(con):
        if rule and workload:
            waiting = held_rows.open_losses(con, workload)
            losses = [loss for loss in waiting if loss.rule == rule]
            if not losses:
                rules = ", ".join(loss.rule for loss in waiting) or "no rule"
                raise LookupError(
                    f"releasing {rule} of {workload}: nobody is asked about it, but about {rules}"
                )
            held_rows.release_losses(con, losses, by=by, note=note, now=now)
            print_line(f"passes: {losses[0]}")
            return
        rows = [held_rows.find_held(con, beginning) for beginning in ids]
        for row in rows:
            held_rows.release_held(con, row, by=by, note=note, now=now)
    console.print(f"{len(rows)} released; the next curation lets them in")
