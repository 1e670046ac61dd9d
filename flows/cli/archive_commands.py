"""Commands `backup`, `restore` and `migrate`: a home as an archive, or in another place."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from flows import settings
from flows.cli.console import errors, exit_on, fail, print_error, print_line

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

    Warehouse (of a lake: its tables, as a DuckDB file), Prefect's and MLflow's databases,
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
    only, each inside the home, none that the backup did not list. A lake is filled from it, whose
    database must be new.
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


@app.command()
@exit_on(OSError, code=1)
def migrate(
    to: Annotated[
        Literal["store", "home", "lake", "file"],
        typer.Option(
            help="`store`: push outputs that only this home has; `home`: pull those that it lacks; "
            "`lake`, `file`: the warehouse."
        ),
    ],
) -> None:
    """Copy outputs between this home and the object store, or the warehouse to a lake, and back.

    FLYWHEEL_STORE names the store, and the stack may work: migrate, set the variable for the stack
    and the workers, and migrate once more what was finished meanwhile. To come back, stop the other
    machines, migrate to the home and unset the variable. Nothing is deleted on either side; each
    file is held against its manifest.

    FLYWHEEL_WAREHOUSE names the lake. While the stack works, all rows are copied ahead; after
    `flywheel down` the same command copies what came meanwhile and finishes: set the variable
    everywhere (or unset it), `flywheel up`. Receivers and gateways go on. Rows and digests of every
    table are compared. The DuckDB file is kept under another name; a lake that was left stays as it
    is, and can't be opened meanwhile.
    """
    home = settings.load()
    if to in ("store", "home"):
        _migrate_outputs(home, to)
    else:
        _migrate_warehouse(home, to)


def _migrate_warehouse(home: settings.Settings, to: str) -> None:
    from components.store import lake_owner, lock, moved_tables
    from components.store.table_copy import MovedTable
    from flows.stack import processes

    file, place = home.warehouse, home.lake
    if place is None:
        fail(f"migrating: {settings.WAREHOUSE} is not set, expected postgres://USER@HOST/DATABASE")
    if to == "lake" and lake_owner.complete(file, place):
        print_line(f"{place} has all tables of {file}, which is gone or set aside: it can be used")
        return
    if to == "lake" and not file.exists():
        fail(f"migrating to {place}: {file} does not exist, so there is nothing to copy")
    workers, wait = _workers_elsewhere(home), lock.PATIENCE_SECONDS
    is_working = bool(workers) or processes.is_locked(home)
    tables: list[MovedTable] = []
    with errors.status("copying ahead" if is_working else "migrating") as spinner:

        def report(table: MovedTable) -> None:
            tables.append(table)
            spinner.update(f"{table.name}: {table.rows:,} rows")

        if to == "lake" and is_working:
            moved_tables.copy_ahead_to_lake(file, place, home.scratch, report, wait)
        elif to == "lake":
            kept = moved_tables.copy_to_lake(file, place, report, wait)
            print_line(f"the file is kept as {kept}")
        elif is_working:
            moved_tables.copy_ahead_to_file(place, file, report, wait)
        else:
            moved_tables.copy_to_file(place, file, report, wait)
    rows, there = sum(table.rows for table in tables), sum(table.was_there for table in tables)
    print_line(
        f"{len(tables)} tables, {rows:,} rows are in the {to} as they were; {there} tables were "
        "there before"
    )
    if workers:
        print_line(
            f"workers of Prefect may use them ({'; '.join(workers)}), and go on as before: stop "
            "them, and a minute later the same command once more copies what came meanwhile, and "
            "finishes"
        )
    elif is_working:
        print_line(
            "this home's stack works, and goes on as before: `flywheel down`, and the same command "
            "once more copies what came meanwhile, and finishes"
        )


def _workers_elsewhere(home: settings.Settings) -> list[str]:
    """Describe the workers of servers elsewhere, which this home's lock says nothing about."""
    import httpx

    from flows import deployments, prefect_api

    if home.elsewhere is None:
        return []
    pools = sorted({spec.pool for spec in deployments.specs(home.workloads)})
    try:
        known = {pool["name"] for pool in prefect_api.pages("/work_pools/filter", {})}
        online = {pool: prefect_api.online_workers(pool) for pool in pools if pool in known}
    except httpx.TransportError:
        return []  # without their server they take no runs
    return [f"{pool}: {', '.join(names)}" for pool, names in online.items() if names]


def _migrate_outputs(home: settings.Settings, to: str) -> None:
    from components.store import moved_outputs, object_store
    from flows.stack import erased_copies

    if home.store is None:
        fail(f"migrating: {settings.STORE} is not set, expected s3://BUCKET/PREFIX")
    home.store.check()
    known = erased_copies.forget(home)  # what was erased elsewhere meanwhile is not pushed again
    counts, files, size, pushed = Counter[str](), 0, 0, list[str]()
    with errors.status("migrating") as spinner, object_store.reaching("migrating"):
        if to == "store":
            places = moved_outputs.places_here(home.home, settings.OUTPUTS)
            move = moved_outputs.push
        else:
            places = moved_outputs.places_there(home.store, settings.OUTPUTS, settings.BASES)
            move = moved_outputs.pull
        for number, place in enumerate(places, start=1):
            spinner.update(f"{number} of {len(places)}: {place}")
            output = move(home.store, home.home, place)
            counts[output.outcome] += 1
            if to == "store" and output.outcome == "copied":
                pushed.append(place)
            files, size = files + output.files, size + output.size
            if output.outcome in ("other", "damaged"):
                reason = output.reason or "another output was finished under this key"
                print_error(f"not copied: {place}: {reason}")
        for place in erased_copies.take_back(home, known, pushed):
            print_error(f"deleted again: {place}: rows that it is made from were erased meanwhile")
    print_line(
        f"{counts.total()} outputs, {files} files, {size / 2**20:,.1f} MiB: {counts['copied']} "
        f"copied to the {to}, {counts['there']} were there, {counts['other']} differ, "
        f"{counts['damaged']} are damaged"
    )
    if counts["other"] or counts["damaged"]:
        raise typer.Exit(1)
