"""Commands `backup` and `restore`: a home as an archive."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from flows import settings
from flows.cli.console import errors, exit_on, fail, print_line

app = typer.Typer(add_completion=False, no_args_is_help=True)

Archive = Annotated[
    str, typer.Argument(help="The archive: flywheel.tar.zst, or s3://BUCKET/flywheel.tar.zst.")
]


@app.command()
@exit_on(OSError, code=1)
def backup(
    archive: Archive,
    with_models: Annotated[
        bool, typer.Option("--with-models", help="Base models and downloads, too.")
    ] = False,
) -> None:
    """Write all that the home holds into one archive, while the stack works.

    Warehouse (of a shared one: its tables, as a DuckDB file), Prefect's and MLflow's databases,
    snapshots, adapters, evidence, artifacts and the receiver's spool. Not in it: logs, what a
    gateway staged, and workload files and bases that lie outside the home.

    What is at its path is never replaced: a nightly one needs a date in its name.

    It prints the archive's SHA-256. Keep that line apart from the archive, such as in a password
    manager: `flywheel restore` asks for it, since nothing in a file can tell who wrote it.

    It holds what people wrote, and the secrets of approvers' codes and of Prefect's blocks: who can
    read it can approve. So only you may read the file; encrypt it before it goes elsewhere
    (`age --passphrase`, `gpg --symmetric`), and keep it from those who may not approve. In a bucket
    it is as the AWS_* variables reach it: one of its own, not that of FLYWHEEL_STORE.
    """
    from flows import home_backup

    home = settings.load()
    with errors.status("backing up") as spinner:
        record, size, digest = home_backup.back_up_to(
            home,
            archive,
            with_models=with_models,
            now=datetime.now(UTC),
            advance=lambda name: spinner.update(f"backing up {name}"),
        )
    print_line(f"{archive}: {len(record.files)} files of {home.home}, {size / 2**20:,.1f} MiB")
    print_line(f"sha256 {digest}")
    for path in home_backup.outside_files(home):
        print_line(f"not in it, as it lies outside: {path}")
    if home.store:
        print_line(f"not in it: what only other machines have of {home.store.url}")


@app.command()
@exit_on(OSError, code=1)
def restore(
    archive: Archive,
    sha256: Annotated[
        str | None, typer.Option(help="The digest that `flywheel backup` printed.")
    ] = None,
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified",
            help="Take an archive whose digest nobody kept, such as one of an older version. "
            "Whoever could write it decides what is in the home, approvals included.",
        ),
    ] = False,
    most_gib: Annotated[
        int | None,
        typer.Option(min=1, help="GiB that may come out of it; what is free on the disk if unset."),
    ] = None,
) -> None:
    """Put a backup where its home was, on this machine or another; then `flywheel up`.

    What comes out of it is bounded, and checked as a whole before the home appears: files and links
    only, each inside the home, none that the backup did not list. What FLYWHEEL_WAREHOUSE names is
    filled from it, whose database must be new, and an object store (FLYWHEEL_STORE) gets the
    outputs that it lacks: so a home moves there.
    """
    from flows import home_backup

    home = settings.load()
    if (sha256 is None) != unverified:
        fail(
            f"restoring {archive}: expected either --sha256 with the digest that `flywheel "
            "backup` printed, or --unverified to take the archive whoever wrote it"
        )
    with (
        errors.status("restoring") as spinner,
        home_backup.fetched(home, archive) as file,
    ):
        record = home_backup.restore(
            home,
            file,
            sha256=sha256,
            most_bytes=None if most_gib is None else most_gib << 30,
            advance=lambda name: spinner.update(f"restoring {name}"),
        )
    print_line(f"{home.home}: {len(record.files)} files as of {record.made_at}")
    for path in home_backup.outside_files(home):
        if not path.exists():
            print_line(f"not there: {path}; put it back")
