"""`flywheel erase` and `prune`: erase a person, verify it, and delete what nothing needs."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.schema import LEAST_DAYS
from flows import settings
from flows.cli.console import errors, exit_on, fail, home_with_warehouse, print_error, print_line

if TYPE_CHECKING:
    from components.erase.certificate import Certificate, Champion
    from components.erase.delete import SubjectMatch
    from components.erase.leftovers import Searched
    from components.erase.subject import Subject
    from flows.prune.prune_outputs import Prunable
    from flows.workload_file import Workload


app = typer.Typer(add_completion=False, no_args_is_help=True)

MAX_SHOWN = 20  # files of sources, or places where something is left, that are listed


@app.command()
@exit_on(OSError, LookupError, ValueError)
def erase(
    subject: Annotated[
        str | None, typer.Option(help="The id of a user or of a conversation.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Only its rows of this workload; of all when left out.")
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(help="Only its rows of this client, where ids are unique only within one."),
    ] = None,
    mentions: Annotated[
        bool, typer.Option("--mentions", help="Also rows of others whose text holds the id.")
    ] = False,
    demote: Annotated[
        bool,
        typer.Option(
            "--demote", help="Take the champion's alias from a version that learned from the rows."
        ),
    ] = False,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="Workload files to freeze again, besides the scheduled ones."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be erased; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Erase nothing: search for what is left; exit 1 if any is."),
    ] = False,
    allow_mentions: Annotated[
        bool,
        typer.Option("--allow-mentions", help="With --verify: the id in others' texts is fine."),
    ] = False,
    certificate: Annotated[
        Path | None, typer.Argument(help="With --verify: a certificate, instead of an id.")
    ] = None,
) -> None:
    """Erase a user or a conversation from all that Flywheel keeps, and write a certificate.

    Rows, feedback, quarantine, spool, archive, snapshots, scorecards and pages of evidence; the
    versions that learned from the rows are flagged. Loading the same files again brings nothing
    back. After an interruption run the same command again: it resumes.
    """
    from components.erase.subject import Subject

    if (subject is None) == (certificate is None) or (certificate and not verify):
        fail("expected --subject ID, or --verify and one of --subject ID and a certificate")
    who = None if subject is None else Subject(subject, workload, client, mentions)
    if verify or who is None:
        _verify_erased(who, certificate, allow_mentions=allow_mentions)
    else:
        _erase_now(who, _read_workloads(config or []), demote=demote, dry_run=dry_run, is_sure=yes)


def _verify_erased(
    who: "Subject | None", certificate: Path | None, *, allow_mentions: bool
) -> None:
    home = home_with_warehouse("erasing")
    with errors.status("searching"):
        from flows.erasing import erase

        searched = erase.verify_erasure(home, subject=who, certificate_path=certificate)
    _print_searched(searched)
    if not searched.is_clean(allow_mentions=allow_mentions):
        raise typer.Exit(1)


def _erase_now(
    who: "Subject",
    workloads: "dict[str, Workload]",
    *,
    demote: bool,
    dry_run: bool,
    is_sure: bool,
) -> None:
    home = home_with_warehouse("erasing")
    with errors.status("searching"):
        from flows.erasing import erase

        if not dry_run:
            erase.load_spool(home, now=datetime.now(UTC))
        match, begun = erase.find_subject(home, who)
    _print_match(match)
    if dry_run and home.spool.exists() and any(home.spool.iterdir()):
        print_line("the spool holds records that are loaded first, and may be its, too")
    if match.is_nothing and not begun:
        print_line("nothing of it is here, so nothing is erased; --verify searches everywhere")
        if demote and not dry_run:
            _demote_tainted(home, who)
        return
    if dry_run:
        return
    require_servers(home)
    if not is_sure:
        typer.confirm("Erase all of this? It can't be undone", abort=True)
    request = erase.ErasureRequest(who, demote, workloads)
    certificate = erase.erase(home, request, now=lambda: datetime.now(UTC), report=print_line)
    _print_certificate(certificate, home.certificates)
    if not certificate.is_clean:
        fail(
            "erasing: not finished: delete what is left, and type the same command again, which "
            "finishes it",
            1,
        )


def _demote_tainted(home: settings.Settings, who: "Subject") -> None:
    from flows.erasing import erase_servers

    require_servers(home)
    for champion in erase_servers.demote_tainted(home, who):
        _print_champion(champion)


def require_servers(home: settings.Settings, doing: str = "erasing") -> None:
    """Exit with 1 if a server that may have copies is down; what can't end must not begin."""
    from flows.erasing import erase_servers
    from flows.stack import control, health

    if not (erase_servers.has_mlflow(home) or erase_servers.has_prefect(home)):
        return
    up = health.mlflow_answers(home) and health.prefect_answers(home)
    if not (up if home.elsewhere else control.stack_status(home).is_up):
        fail(
            f"{doing}: MLflow and Prefect may have copies of what is in {home.home}, and one of "
            f"them does not answer; {home.remedy}",
            1,
        )


def _read_workloads(files: list[Path]) -> "dict[str, Workload]":
    from flows import workload_file

    read: list[Workload] = []
    for path in sorted(settings.load().workloads.glob("*.yaml")):
        try:
            read.append(workload_file.read_workload(path))
        except workload_file.WorkloadError as error:  # no reason to keep anybody's rows
            print_error(f"{error}; so its rows are not frozen again")
    read += map(workload_file.read_workload, files)
    return {workload.workload: workload for workload in read}


def _print_match(match: "SubjectMatch") -> None:
    matched = match.matched
    for (place, reason), count in sorted(matched.rows.items()):
        print_line(f"{count:>8}  {place}  ({reason})")
    if matched.quarantine:
        print_line(f"{len(matched.quarantine):>8}  raw.quarantine")
    if match.words:
        print_line(f"{match.words:>8}  texts of decisions")
    for place, count in sorted(matched.mentions.items()):
        print_line(
            f"{count:>8}  {place} of others mention the id and stay; --mentions erases them, too"
        )
    for output in sorted(match.lineage.tainted):
        print_line(f"tainted   {output.kind} {output.workload}/{output.key}")
    spool = settings.load().spool  # what was received is deleted once it is loaded
    sources = [path for path in matched.sources if spool not in Path(path).parents]
    for path in sources[:MAX_SHOWN]:
        print_line(f"source    {path}: not Flywheel's; it may still hold the rows")
    if len(sources) > MAX_SHOWN:
        print_line(f"source    and {len(sources) - MAX_SHOWN} more files")


def _print_certificate(certificate: "Certificate", folder: Path) -> None:
    for place, count in certificate.erased.items():
        print_line(f"{count:>8}  deleted from {place}")
    for name, number in certificate.consequences.versions:
        print_line(f"flagged   {name} version {number}")
    for champion in certificate.consequences.champions:
        _print_champion(champion)
    for workload, key in certificate.rebuilt.snapshots.items():
        print_line(f"frozen    {workload} snapshot {key}")
    for workload, why in certificate.rebuilt.waiting.items():
        print_line(f"unfrozen  {workload}: {why}")
    _print_searched(certificate.searched)
    print_line(f"certificate {folder / certificate.certificate_id}.md (and .json)")


def _print_champion(champion: "Champion") -> None:
    became = (
        f"demoted; champion now {champion.now or 'nobody'}"
        if champion.now != champion.version
        else "tainted and still champion; the same command with --demote takes its alias"
    )
    print_line(f"champion  {champion.workload} version {champion.version}: {became}")


def _print_searched(searched: "Searched") -> None:
    units = sum(searched.places.values())
    print_line(f"searched {units} rows and lines in {len(searched.places)} tables and files")
    for skipped in searched.passed_over:
        print_line(f"not searched: {skipped}")
    for left in searched.left[:MAX_SHOWN]:
        print_line(f"left: {left.kind}, {left.count} times in {left.where}")
    if len(searched.left) > MAX_SHOWN:
        print_line(f"left: in {len(searched.left) - MAX_SHOWN} more places")
    if not searched.left:
        print_line("nothing is left")


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
