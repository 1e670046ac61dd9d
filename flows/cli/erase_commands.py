"""`flywheel erase`: erase a person or a conversation, and verify that nothing is left."""

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import settings
from flows.cli.console import exit_on

if TYPE_CHECKING:
    from components.erase.certificate import Certificate, Champion
    from components.erase.delete import SubjectMatch
    from components.erase.leftovers import Searched
    from components.erase.subject import Subject
    from flows.workload_file import Workload

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

MOST_SHOWN = 20  # files of sources, or places where something is left, that are listed


@app.command()
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
        typer.Option(help="Workload files to freeze anew, beside those that are scheduled."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be erased; change nothing.")
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
    back. After an interruption run the same command again: it goes on.
    """
    from components.erase.subject import Subject

    if (subject is None) == (certificate is None) or (certificate and not verify):
        errors.print("wants --subject ID, or --verify and one of --subject ID and a certificate")
        raise typer.Exit(2)
    who = None if subject is None else Subject(subject, workload, client, mentions)
    with _exit_on_erase_errors():
        if verify:
            _verify_erased(who, certificate, allow_mentions=allow_mentions)
            return
        assert who is not None
        _erase_now(who, _read_workloads(config or []), demote=demote, dry_run=dry_run, is_sure=yes)


def _verify_erased(
    who: "Subject | None", certificate: Path | None, *, allow_mentions: bool
) -> None:
    from flows import erase

    searched = erase.verify_erasure(_home(), subject=who, certificate_path=certificate)
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
    from flows import erase

    home = _home()
    if not dry_run:
        erase.load_spool(home, now=datetime.now(UTC))
    found, begun = erase.find_subject(home, who)
    _print_found(found)
    if dry_run and _waits_in_spool(home):
        _print_line("the spool holds records that are loaded first, and may be its, too")
    if found.is_nothing and not begun:
        _print_nothing(home, who, demote=demote and not dry_run)
        return
    if dry_run:
        return
    _require_servers(home)
    if not is_sure:
        typer.confirm("Erase all of this? It can't be undone", abort=True)
    asked = erase.ErasureRequest(who, demote, workloads)
    written = erase.erase(home, asked, now=lambda: datetime.now(UTC), say=_print_line)
    _print_done(written, home.certificates)
    if not written.is_clean:
        raise typer.Exit(1)


def _print_nothing(home: settings.Settings, who: "Subject", *, demote: bool) -> None:
    """Say that nothing is here; a champion that an earlier erasure has tainted may be demoted."""
    from flows import erase_servers

    console.print("nothing of it is here, so nothing is erased; --verify searches everywhere")
    if demote:
        _require_servers(home)
        for one in erase_servers.demote_tainted(home, who):
            _print_champion(one)


def _home() -> settings.Settings:
    home = settings.load()
    if not home.warehouse.exists():
        errors.print(f"erasing: there is no warehouse at {home.warehouse}", soft_wrap=True)
        raise typer.Exit(2)
    return home


def _require_servers(home: settings.Settings) -> None:
    """Refuse to begin what could not be finished: versions are flagged through MLflow's server."""
    from flows import erase_servers
    from flows.stack import control, health

    if not (erase_servers.has_mlflow(home) or erase_servers.has_prefect(home)):
        return
    up = health.mlflow_answers(home) and health.prefect_answers(home)
    if not (up if home.elsewhere else control.stack_status(home).is_up):
        errors.print(
            f"erasing: models and approvals of {home.home} may be tainted, and MLflow or Prefect "
            f"does not answer; {home.remedy}",
            soft_wrap=True,
        )
        raise typer.Exit(1)


def _waits_in_spool(home: settings.Settings) -> bool:
    return home.spool.exists() and any(home.spool.iterdir())


def _read_workloads(files: list[Path]) -> "dict[str, Workload]":
    """Read the workload files that are named and those that run on a schedule."""
    from flows import workload_file as configs

    paths = [*sorted(settings.load().workloads.glob("*.yaml")), *files]
    read = [configs.read_workload(path) for path in paths]
    return {workload.workload: workload for workload in read}


def _print_line(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _print_found(match: "SubjectMatch") -> None:
    """Say which rows match, what was made from them, and which files still hold them."""
    matched = match.matched
    for (place, reason), count in sorted(matched.rows.items()):
        _print_line(f"{count:>8}  {place}  ({reason})")
    if matched.quarantine:
        _print_line(f"{len(matched.quarantine):>8}  raw.quarantine")
    if match.words:
        _print_line(f"{match.words:>8}  texts of decisions")
    for place, count in sorted(matched.mentions.items()):
        _print_line(
            f"{count:>8}  {place} of others mention the id and stay; --mentions erases them, too"
        )
    for one in sorted(match.lineage.tainted):
        _print_line(f"tainted   {one.kind} {one.workload}/{one.key}")
    for path in matched.sources[:MOST_SHOWN]:
        _print_line(f"source    {path}: not Flywheel's; it may still hold the rows")
    if len(matched.sources) > MOST_SHOWN:
        _print_line(f"source    and {len(matched.sources) - MOST_SHOWN} more files")


def _print_done(written: "Certificate", folder: Path) -> None:
    for place, count in written.erased.items():
        _print_line(f"{count:>8}  deleted from {place}")
    for name, number in written.consequences.versions:
        _print_line(f"flagged   {name} version {number}")
    for one in written.consequences.champions:
        _print_champion(one)
    for workload, key in written.rebuilt.snapshots.items():
        _print_line(f"frozen    {workload} snapshot {key}")
    for workload, why in written.rebuilt.waiting.items():
        _print_line(f"unfrozen  {workload}: {why}")
    _print_searched(written.searched)
    _print_line(f"certificate {folder / written.certificate_id}.md (and .json)")


def _print_champion(champion: "Champion") -> None:
    became = (
        f"demoted; champion now {champion.now or 'nobody'}"
        if champion.now != champion.version
        else "tainted and still champion; the same command with --demote takes its alias"
    )
    _print_line(f"champion  {champion.workload} version {champion.version}: {became}")


def _print_searched(searched: "Searched") -> None:
    units = sum(searched.places.values())
    _print_line(f"searched {units} rows and lines in {len(searched.places)} tables and files")
    for one in searched.passed_over:
        _print_line(f"not searched: {one}")
    for one in searched.left[:MOST_SHOWN]:
        _print_line(f"left: {one.kind}, {one.count} times in {one.where}")
    if len(searched.left) > MOST_SHOWN:
        _print_line(f"left: in {len(searched.left) - MOST_SHOWN} more places")
    if not searched.left:
        _print_line("nothing is left")


def _exit_on_erase_errors() -> AbstractContextManager[None]:
    from components.erase import tables
    from components.store import warehouse
    from flows.workload_file import WorkloadError

    copying = (warehouse.WarehouseNewerError, tables.WarehouseCopyError)
    return exit_on(*copying, OSError, LookupError, ValueError, WorkloadError)
