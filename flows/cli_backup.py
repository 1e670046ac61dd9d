"""``flywheel backup`` and ``restore``."""

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows import settings
from flows.explaining import explained

app = typer.Typer(add_completion=False)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Archive = Annotated[Path, typer.Argument(help="The archive, such as flywheel.tar.zst.")]


@app.command()
def backup(
    archive: Archive,
    with_models: Annotated[
        bool, typer.Option("--with-models", help="Base models and downloads, too.")
    ] = False,
) -> None:
    """Write all that the home holds into one archive, while the stack works.

    Warehouse, Prefect's and MLflow's databases, snapshots, adapters, evidence, artifacts and what
    the receiver took. Not in it: logs, and workload files and bases that lie outside the home.

    It prints the archive's SHA-256. Keep that line apart from the archive, such as in a password
    manager: `flywheel restore` asks for it, since nothing in a file can tell who wrote it.

    It holds what people wrote, and the secrets of approvers' codes and of Prefect's blocks: who can
    read it can approve. So only you may read the file; encrypt it before it goes elsewhere
    (`age --passphrase`, `gpg --symmetric`), and keep it from those who may not approve.
    """
    from components import manifest
    from flows import backup as backups

    home = settings.load()
    with _explained(), errors.status("backing up") as spinner:
        record = backups.back_up(
            home,
            archive,
            with_models=with_models,
            now=datetime.now(UTC),
            advance=lambda name: spinner.update(f"backing up {name}"),
        )
    size = archive.stat().st_size / 2**20
    console.print(f"{archive}: {len(record.files)} files of {home.home}, {size:,.1f} MiB")
    console.print(f"sha256 {manifest.file_digest(archive)}", soft_wrap=True)
    for path in backups.links(home):
        console.print(f"not in it, as it lies outside: {path}", soft_wrap=True, markup=False)


@app.command()
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
    only, each inside the home, none that the backup did not list.
    """
    from components.backup.archive import BackupError
    from flows import backup as backups

    home = settings.load()
    with _explained():
        if (sha256 is None) != unverified:
            raise BackupError(
                f"restoring {archive}: expected either --sha256 with the digest that `flywheel "
                "backup` printed, or --unverified to take the archive whoever wrote it"
            )
    with _explained(), errors.status("restoring") as spinner:
        record = backups.restore(
            home,
            archive,
            sha256=sha256,
            most_bytes=None if most_gib is None else most_gib << 30,
            advance=lambda name: spinner.update(f"restoring {name}"),
        )
    console.print(f"{home.home}: {len(record.files)} files as of {record.made_at}")
    for path in backups.links(home):
        if not path.exists():
            console.print(f"not there: {path}; put it back", soft_wrap=True, markup=False)


def _explained() -> AbstractContextManager[None]:
    from components.backup.archive import BackupError

    return explained(BackupError, OSError, code=1)
