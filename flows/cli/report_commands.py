"""Commands `report`, `compare`, `export`, `backup`, `restore` and `migrate`."""

import webbrowser
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    home_with_warehouse,
    new_table,
    open_warehouse,
    print_error,
    print_line,
    shorten,
)
from flows.cli.parameters import WorkloadArgument, WorkloadOption

if TYPE_CHECKING:
    from components.collect.source import Kind
    from components.scorecard import Difference
    from flows.lookup import ScorecardPair

app = typer.Typer(add_completion=False, no_args_is_help=True)
export_app = typer.Typer(
    help="Take logs or a model out of this home.", add_completion=False, no_args_is_help=True
)
app.add_typer(export_app, name="export")

ModelName = Annotated[
    str,
    typer.Argument(
        help="`base`, `champion`, `previous`, a version's number, or the beginning of an "
        "adapter's or a scorecard's key."
    ),
]
Archive = Annotated[
    str, typer.Argument(help="The archive: flywheel.tar.zst, or s3://BUCKET/flywheel.tar.zst.")
]

SHOWN_CHARACTERS = 300


@app.command()
@exit_on(LookupError)
def report(
    workload: WorkloadArgument,
    evidence: Annotated[
        str | None, typer.Option(help="Another evidence: the beginning of its digest.")
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the report's path, and open nothing.")
    ] = False,
) -> None:
    """Open the newest report of a workload in a browser: one HTML file that needs nothing else.

    It says what the gate found and why, what would change and for whom, what it costs, and shows
    the requests on which the two models differ. Every turn writes one, also where the gate says no.

    `flywheel report support-routing` opens the newest; `--evidence 3f2a` that of an older turn;
    `--no-open` prints the path, to copy the file or send it to somebody.
    """
    from components.gate.report.write_report import REPORT
    from components.store import manifest
    from flows import evidence_reports

    folder = evidence_reports.find_evidence(settings.load(), workload, evidence)
    with exit_on(ValueError, code=1):
        manifest.read_untouched(folder)
    path = folder / REPORT
    print_line(str(path))
    if not no_open and not webbrowser.open(path.as_uri()):
        print_error("no browser could be opened; open the file above in one")


@app.command()
@exit_on(LookupError, ValueError)
def compare(
    workload: WorkloadArgument,
    first: ModelName,
    second: ModelName,
    metric: Annotated[
        str | None,
        typer.Option(help="Whose requests to show; the target of the newest turn if left out."),
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, help="How many of the requests on which they differ to show.")
    ] = 5,
) -> None:
    """Compare two models that were measured on the same requests: scores, intervals, tests.

    Differences are the first model less the second, in points, each with its 95 % interval and an
    exact two-sided test of its own; the gate of a turn corrects for several looks, this does not.
    Then follow the requests that only one of the two got right. Models measured on another holdout,
    at another precision or with other prompts are refused, and the difference named.

    `flywheel compare support-routing champion 2` compares the champion with version 2;
    `flywheel compare support-routing 3f2a base --show 20` an adapter against its base.
    """
    from flows import evidence_reports, lookup

    home = settings.load()
    pair = lookup.find_scorecards(home, workload, first, second)
    _print_comparison(pair, first, second)
    shown = metric or evidence_reports.newest_target(home, workload)
    _print_differing(pair, first, second, shown, show)


def _print_comparison(pair: "ScorecardPair", first: str, second: str) -> None:
    from components.gate.report import side_by_side
    from components.gate.report.words import as_share, between, points

    table = new_table("score")
    for column in (first, second, "difference", "95 % interval", "n", "clusters", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in side_by_side.side_by_side(pair.first, pair.second):
        effect, p = row.effect, ""
        if effect.difference is not None:
            card, other = pair.first[row.task], pair.second[row.task]
            p = f"{side_by_side.two_sided(card, other, row.metric)[1]:.3g}"
        table.add_row(
            effect.name,
            as_share(row.challenger),
            as_share(row.opponent),
            points(effect.difference),
            between(effect.low, effect.high),
            str(effect.n),
            str(effect.clusters or ""),
            p,
        )
    console.print(table)


def _print_differing(
    pair: "ScorecardPair", first: str, second: str, metric: str | None, show: int
) -> None:
    from components.gate.report.side_by_side import differing_requests, take_turns
    from components.scorecard import HOLDOUT

    ours, theirs = pair.first[HOLDOUT], pair.second[HOLDOUT]
    metric = metric or next(reversed(ours.metrics))
    if metric not in ours.metrics:
        raise LookupError(f"there is no metric {metric}; there are {', '.join(ours.metrics)}")
    lost, won = differing_requests(ours, theirs, metric)
    print_line(f"\n{metric}: {first} is better on {len(won)} requests, {second} on {len(lost)}")
    for difference in take_turns(lost, won, show):
        _print_difference(difference, first, second)


def _print_difference(difference: "Difference", first: str, second: str) -> None:
    console.print()
    for label, text in (
        ("asked", difference.challenger.request),
        ("right", difference.challenger.reference),
        (first, difference.challenger.output),
        (second, difference.opponent.output),
    ):
        print_line(f"  {label:<9} {shorten(' '.join(text.split()), SHOWN_CHARACTERS)}")


@export_app.command()
def logs(
    path: Annotated[Path, typer.Argument(help="The file to write, packed if it ends in `.gz`.")],
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Write feedback instead of interactions.")
    ] = False,
    workload: WorkloadOption = None,
) -> None:
    """Write what the warehouse holds as five-key lines, whatever source it came from.

    Loading the file gives the same rows again, with the same ids.
    """
    from components.collect.sources.fivekey import export

    kind: Kind = "feedback" if feedback else "interactions"
    home_with_warehouse("exporting")
    with open_warehouse() as con:
        count = export(con, path, kind, workload_id=workload)
    print_line(f"{count} {kind} written to {path}")


@export_app.command()
@exit_on(OSError, LookupError, ValueError)
def model(
    workload: Annotated[str, typer.Argument(help="Whose adapter.")],
    form: Annotated[
        Literal["merged", "peft", "nim", "gguf"],
        typer.Option("--as", help="The form that the server loads."),
    ],
    to: Annotated[Path, typer.Option(help="The folder to write; nothing may be in it.")],
    version: Annotated[
        int | None, typer.Option(help="A registered version; the champion when left out.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="An adapter's key, or its beginning; needs no MLflow.")
    ] = None,
    served_as: Annotated[
        str | None,
        typer.Option(help="The base's name where it is served, if it differs."),
    ] = None,
) -> None:
    """Write an adapter for use elsewhere, with a model card that has its scores of now.

    `peft` is the adapter as PEFT and vLLM load it. `merged` is the base with the adapter in its
    weights, merged in fp32 from the base as it was shipped and saved in bf16: an adapter trained on
    a 4-bit base may score otherwise there. `nim` is the folder that NVIDIA NIM takes adapters from,
    `gguf` llama.cpp's; both take plain LoRA only, no DoRA and no modules that are saved whole.

    A registered version leaves only if its alias, its tags and its files at MLflow are what was
    approved. The export is signed with the key of this installation: `flywheel verify FOLDER`.
    """
    from flows import adapters

    if version is not None and adapter is not None:
        fail("exporting: expected --version or --adapter, not both")
    number = None if version is None else str(version)
    request = adapters.ExportRequest(workload, form, to, number, adapter, served_as)
    exported = adapters.export_adapter(settings.load(), request)
    if exported.warning:
        print_error(exported.warning)
    print_line(f"adapter {exported.key} written to {to} ({form}), signed")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A registered version's folder, or an export.")],
    key: Annotated[
        Path | None,
        typer.Option(help="The public key that must have signed it; this home's when left out."),
    ] = None,
) -> None:
    """Check every byte of a version or an export against its signature, before it is loaded.

    Nothing of the folder is run. The exit code is 0 if all is as it was signed, 1 if a file was
    changed, added or removed or another key has signed, 2 if there is no such folder or key, and 3
    if there is no signature, as in versions of an older Flywheel.
    """
    from components.models import model_signature
    from components.models.model_signature import ModelSignatureError, UnsignedError

    public = key or settings.load().keys / model_signature.PUBLIC
    for path, is_there in ((folder, folder.is_dir()), (public, public.is_file())):
        if not is_there:
            fail(f"verifying {folder}: there is no {path}")
    beside = model_signature.signature_path(folder.absolute())
    signature = None if (folder / model_signature.SIGNATURE).exists() else beside
    if signature is not None and not signature.is_file():
        fail(f"unsigned: {folder} has no signature, so nothing says what it should be", 3)
    try:
        model_signature.verify(folder, public, signature)
        decision = _decision_text(folder)
    except UnsignedError as error:
        fail(f"unsigned: {error}", 3)
    except ModelSignatureError as error:
        fail(f"refused: {error}", 1)
    print_line(f"verified: {folder} is as it was signed; {decision}")


def _decision_text(folder: Path) -> str:
    from components.register import logged_model

    is_version = (folder / "MLmodel").is_file()
    read = logged_model.require_decided if is_version else logged_model.read_release
    try:
        release = read(folder)
    except logged_model.UndecidedError:
        return "no decision is in it"
    return (
        f"decision {release.sequence} released version {release.version} of {release.workload} on "
        f"evidence {release.evidence}"
    )


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
            "backup` printed, or --unverified to take the archive whoever wrote it",
            1,
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
