"""``flywheel collect``, ``quarantine`` and ``drift``: what comes in, from the terminal."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows import settings
from flows.explaining import explained

if TYPE_CHECKING:
    from components.collect.loaded import Loaded
    from components.collect.loading import Input
    from components.collect.record import Defaults
    from components.warehouse import Connection

app = typer.Typer(add_completion=False, no_args_is_help=True)
quarantine_app = typer.Typer(
    help="See what could not be read, and try it again after a rule was mended.",
    no_args_is_help=True,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

MOST_SHOWN = 600
"""Characters of a record that a dry run shows."""

MOST_REASONS, MOST_EXAMPLE = 6, 160
"""Reasons for quarantine that are printed, and characters of the example of each."""


@app.command()
def collect(
    places: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, fsspec URLs; or workload files (*.yaml)."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would load, show three records, store nothing."),
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="The form of the records; detected when left out.")
    ] = None,
    workload: Annotated[str, typer.Option(help="The workload of records that name none.")] = "",
    client: Annotated[str, typer.Option(help="The client of records that name none.")] = "",
) -> None:
    """Load files into the warehouse now; without any, what scheduled workloads and the spool hold.

    What was loaded before is found again by content, so nothing is stored twice.
    """
    from components.collect.record import Defaults

    with _explained():
        found = _inputs(places, source, Defaults(workload, client))
        if dry_run:
            _rehearse(found)
        else:
            _load(found, with_spool=not places)


@quarantine_app.command("list")
def list_quarantine() -> None:
    """Count the lines in quarantine by source, reason and file."""
    from components.collect import retrying

    with _explained(), _warehouse() as con:
        groups = retrying.groups(con)
    table = Table("lines", "source", "reason", "file", "first id", box=None, pad_edge=False)
    for one in groups:
        table.add_row(str(one.found), one.source, one.reason, one.path, one.first_id[:12])
    console.print(table if groups else "nothing is in quarantine")


@quarantine_app.command("show")
def show_quarantine(
    quarantine_id: Annotated[str, typer.Argument(help="The id, or its first characters.")],
) -> None:
    """Show one line in quarantine: where it stood, why it is there, and its bytes."""
    from components.collect import retrying

    with _explained(), _warehouse() as con:
        one = retrying.find(con, quarantine_id)
    place = f"{one.path}:{one.line}  source {one.source}  id {one.quarantine_id}"
    console.print(place, markup=False, soft_wrap=True)
    console.print(one.reason, markup=False, soft_wrap=True)
    console.print(one.content.decode(errors="backslashreplace"), markup=False, soft_wrap=True)


@quarantine_app.command("retry")
def retry_quarantine(
    source: Annotated[
        str | None, typer.Option(help="Only the lines of this source; of all when left out.")
    ] = None,
) -> None:
    """Read the lines in quarantine again: what can be read by now is loaded, the rest stays."""
    from components.collect import retrying

    with _explained(), _warehouse() as con:
        retried = retrying.retry(con, source=source, now=datetime.now(UTC))
    console.print(
        f"{retried.lines} lines tried: {retried.new} new rows, {retried.known} known, "
        f"{retried.quarantined} lines stay in quarantine"
    )


@app.command()
def drift() -> None:
    """List the fields that sources began to send after their first file, the newest first.

    Of a long file a sample is looked at, so a field that few of its rows have may be missing.
    """
    from components.collect import retrying

    with _explained(), _warehouse() as con:
        fields = retrying.new_fields(con)
    table = Table("source", "new field", "first seen", "file", box=None, pad_edge=False)
    for one in fields:
        table.add_row(one.source, one.field, f"{one.first_seen_at:%Y-%m-%d %H:%M}", one.first_path)
    console.print(table if fields else "no source shows a field that its first file had not")


def _inputs(places: list[str] | None, source: str | None, defaults: "Defaults") -> "list[Input]":
    from components.collect import places as reach
    from components.collect.loading import Input
    from flows.sources import MLFLOW

    given = places or [str(path) for path in sorted(settings.load().workloads.glob("*.yaml"))]
    found: list[Input] = []
    for place in given:
        if place.endswith((".yaml", ".yml")):
            found += _of_workload(Path(place))
        elif place.startswith(MLFLOW):
            found.append(Input(place, source, defaults=defaults))
        elif names := reach.matching(place):
            found += [Input(name, source, defaults=defaults) for name in names]
        else:
            raise FileNotFoundError(f"collecting {place}: no file matches it")
    return found


def _of_workload(path: Path) -> "list[Input]":
    from flows import config as configs

    with explained(configs.ConfigError):
        workload = configs.read(path)
    return [*workload.log_files(), *workload.feedback_files()]


def _load(found: "Sequence[Input]", *, with_spool: bool) -> None:
    from flows import inputs

    now, home = datetime.now(UTC), settings.load()
    loaded: list[Loaded] = []
    for one in inputs.load(home.warehouse, found, now=now):
        loaded.append(one)
        console.print(_sentence(one), markup=False, soft_wrap=True)
    if with_spool:
        loaded += inputs.load_spool(home.warehouse, home.spool, now=now)
    show_reasons(loaded, console)
    console.print(inputs.summary(loaded), markup=False, soft_wrap=True)


def _rehearse(found: "Sequence[Input]") -> None:
    from flows import inputs

    now = datetime.now(UTC)
    with _existing_warehouse() as path:
        for rehearsed in inputs.rehearse(path, found, now=now):
            said = _sentence(rehearsed.loaded)
            console.print(f"{said} ({rehearsed.form}; dry run)", markup=False, soft_wrap=True)
            for number, record in enumerate(rehearsed.shown, start=1):
                short = record if len(record) <= MOST_SHOWN else record[:MOST_SHOWN] + " ..."
                console.print(f"  {number}. {short}", markup=False, soft_wrap=True)
            show_reasons([rehearsed.loaded], console)


def show_reasons(loaded: "Sequence[Loaded]", console: Console) -> None:
    """Print why lines can't be loaded: each reason with its count, an example and what mends it."""
    from components.collect import quarantine_reasons

    reasons = quarantine_reasons.merged(reason for file in loaded for reason in file.reasons)
    for reason in reasons[:MOST_REASONS]:
        example = reason.beginning.decode(errors="backslashreplace").replace("\n", " ")
        short = example if len(example) <= MOST_EXAMPLE else example[:MOST_EXAMPLE] + " ..."
        for text in (
            f"  {reason.line_count} lines: {reason.reason}",
            f"      example: {reason.path}:{reason.line}: {short}",
            f"      fix: {reason.remedy}",
        ):
            console.print(text, markup=False, soft_wrap=True)
    quarantined = sum(file.quarantined for file in loaded)
    if rest := quarantined - sum(reason.line_count for reason in reasons[:MOST_REASONS]):
        console.print(f"  {rest} lines for other reasons")


def _sentence(loaded: "Loaded") -> str:
    if loaded.skipped:
        return f"{loaded.path}: {loaded.source}, loaded before ({loaded.known} rows)"
    merged = f" ({loaded.merged} with new metadata)" if loaded.merged else ""
    return (
        f"{loaded.path}: {loaded.source}, {loaded.new} new rows, {loaded.known} known{merged}, "
        f"{loaded.quarantined} lines in quarantine"
    )


@contextmanager
def _warehouse() -> "Generator[Connection]":
    from components import warehouse

    with warehouse.connect(settings.load().warehouse, memory=warehouse.COLLECTING) as con:
        yield con


@contextmanager
def _existing_warehouse() -> Generator[Path]:
    """Name the warehouse; where there is none yet, one that is thrown away."""
    path = settings.load().warehouse
    if path.exists():
        yield path
        return
    with TemporaryDirectory(prefix="flywheel-") as folder:
        yield Path(folder) / path.name


def _explained() -> AbstractContextManager[None]:
    from components.collect.detect import UnknownSourceError
    from components.warehouse import WarehouseNewerError

    return explained(OSError, ImportError, LookupError, UnknownSourceError, WarehouseNewerError)
