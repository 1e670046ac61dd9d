"""``flywheel curate`` and ``flywheel diff``: data sets, from the terminal."""

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
from flows.explaining import explained

if TYPE_CHECKING:
    from components.curate.pipeline import Tally
    from components.dataset.diff import Diff
    from components.dataset.snapshot import Snapshot
    from components.warehouse import Connection
    from flows.freezing import Curated

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)

MOST_ASKED = 160
"""Characters of a request that are shown."""

Named = Annotated[str, typer.Argument(help="A snapshot's folder, or the beginning of its key.")]


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
    from flows import config as configs
    from flows import freezing

    with _explained():
        workload = configs.read(config)
        curated = freezing.freeze(workload, settings.load(), now=datetime.now(UTC))
    _say(curated.tally)
    if curated.snapshot is None:
        _ask(curated)
        raise typer.Exit(1)
    if short := freezing.shortage(workload, curated.snapshot):
        console.print(short, markup=False, soft_wrap=True)
    _name(curated.snapshot)


@app.command()
def diff(
    earlier: Named,
    later: Named,
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
    from components.dataset import diff as diffs
    from flows import snapshots

    root = settings.load().snapshots
    with _explained(), _warehouse() as con:
        found = diffs.compare(con, snapshots.named(root, earlier), snapshots.named(root, later))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        _show(found)


def _say(tally: "Tally") -> None:
    table = Table("interactions", "verdict", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    for verdict, count in sorted(tally.counts.items(), key=lambda one: (-one[1], one[0])):
        table.add_row(f"{count:,}", verdict)
    console.print(table)
    for name, count in sorted(tally.unjudgeable.items(), key=lambda one: (-one[1], one[0])):
        console.print(f"{count:,} could not be judged: {name}", markup=False)
    for name, count in sorted(tally.found.items()):
        console.print(f"{count:,} found and not dropped: {name}", markup=False)
    if tally.feedback_held_back:
        console.print(
            f"{tally.feedback_held_back:,} feedback signals held back; see: flywheel feedback "
            f"{tally.workload_id}",
            markup=False,
        )


def _ask(curated: "Curated") -> None:
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


def _name(frozen: "Snapshot") -> None:
    console.print(
        f"snapshot {frozen.key}: {frozen.train_rows:,} to train on, {frozen.validation_rows:,} to "
        f"validate, {frozen.holdout_rows:,} held out in "
        f"{frozen.clusters['holdout']:,} clusters ({frozen.holdout_version})\n"
        f"{frozen.path / 'README.md'}",
        markup=False,
        soft_wrap=True,
    )


def _show(found: "Diff") -> None:
    for name, (before, after) in found.facts().items():
        said = f"{name}: {before} -> {after}" if before != after else f"{name}: {after}"
        console.print(said, markup=False, soft_wrap=True)
    for name, (before, after) in found.config.items():
        console.print(f"setting {name}: {before} -> {after}", markup=False, soft_wrap=True)
    table = Table("rows", "change", "why", "side", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    for change, why, before, after, count in found.counts():
        side = before if before == after else " -> ".join(filter(None, (before, after)))
        table.add_row(f"{count:,}", change, escape(why), side)
    console.print(table if found.changes else "the rows are the same")


@contextmanager
def _warehouse() -> "Generator[Connection]":
    """Open the warehouse; where there is none, an empty one that is thrown away."""
    from components import warehouse

    path = settings.load().warehouse
    with TemporaryDirectory(prefix="flywheel-") as folder:
        wanted = path if path.exists() else Path(folder) / path.name
        with warehouse.connect(wanted) as con:
            yield con


def _explained() -> AbstractContextManager[None]:
    from components import warehouse
    from components.curate.split import SplitChangedError
    from components.dataset.snapshot import EmptySideError
    from flows.config import ConfigError

    refused = (ConfigError, SplitChangedError, EmptySideError, warehouse.CheckFailedError)
    return explained(*refused, OSError, LookupError, warehouse.WarehouseNewerError)
