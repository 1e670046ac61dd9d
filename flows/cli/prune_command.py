"""`flywheel prune`: delete old outputs that nothing needs any more."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from components.schema import LEAST_DAYS
from flows.cli.console import errors, exit_on, home_with_warehouse, print_line
from flows.cli.erase_commands import require_servers

if TYPE_CHECKING:
    from flows.prune.prune_outputs import Prunable

app = typer.Typer(add_completion=False, no_args_is_help=True)

KINDS = {
    "evidence": "evidence (all but the verdict)",
    "scorecard": "scorecards",
    "adapter": "adapters",
    "snapshot": "snapshots",
    "unfinished": "unfinished outputs with their checkpoints",
    "job": "jobs with logs and progress",
}
"""What a prune deletes, in plain words."""


@app.command()
@exit_on(OSError, LookupError, ValueError)
def prune(
    older_than: Annotated[
        int,
        typer.Option(min=LEAST_DAYS, help="Days; what is younger stays, needed or not."),
    ] = 90,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete old outputs that nothing needs any more: those of turns that led to no version.

    Snapshots, adapters, checkpoints, scorecards and the pages of evidence, with their copies in
    MLflow, Prefect and the object store, and the logs of jobs. Whatever a version, an approval, a
    decision or something young is made from stays. So do the newest of each kind, what a workload's
    file names, and all of a workload of which a turn or a training is under way. Verdicts, looks
    and versions of holdouts are never deleted.
    """
    home = home_with_warehouse("pruning")
    before = datetime.now(UTC) - timedelta(days=older_than)
    with errors.status("looking for what nothing needs"):
        from flows.prune import prune_outputs

        reaching = home.store.reaching if home.store else nullcontext
        require_servers(home, "pruning")
        with reaching("pruning"):
            planned = prune_outputs.find_prunable(home, before)
    _print_prunable(planned)
    if dry_run or not planned.kinds:
        return
    if not yes:
        typer.confirm("Delete all of this? It can't be undone", abort=True)
    with errors.status("deleting"), reaching("pruning"):
        pruned = prune_outputs.prune(home, before).kinds
    count, size = sum(kind.count for kind in pruned), sum(kind.size for kind in pruned)
    print_line(f"deleted {count:,} outputs and jobs, {size / 2**20:,.1f} MiB")


def _print_prunable(planned: "Prunable") -> None:
    for kind in planned.kinds:
        print_line(f"{kind.count:>8,}  {KINDS[kind.kind]}, {kind.size / 2**20:,.1f} MiB")
    if not planned.kinds:
        print_line("nothing that old can go")
    for workload in sorted(planned.under_way):
        print_line(f"left alone: {workload}, as a turn or a training of it is under way")
    for folder in planned.unused.foreign:
        print_line(f"left alone: {folder}, a link or a folder with files of somebody else")
