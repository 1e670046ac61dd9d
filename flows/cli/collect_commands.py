"""`flywheel collect`, `quarantine`, `drift`, `receive` and `token`: incoming traffic."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import settings
from flows.cli.console import exit_on

if TYPE_CHECKING:
    from components.collect.load_file import Loaded
    from components.collect.source import Defaults, Input
    from components.store.warehouse import Connection


app = typer.Typer(add_completion=False, no_args_is_help=True)
quarantine_app = typer.Typer(
    help="See what could not be read, and try it again after a rule was mended.",
    no_args_is_help=True,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

MOST_SHOWN = 600  # characters of a record that a dry run shows

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
    from components.collect.source import Defaults

    with _exit_on_collect_errors():
        found = _named_inputs(places, source, Defaults(workload, client))
        if dry_run:
            _rehearse(found)
        else:
            _load_files(found, with_spool=not places)


@quarantine_app.command("list")
def list_quarantine() -> None:
    """Count the lines in quarantine by source, reason and file."""
    from components.collect import quarantine

    with _exit_on_collect_errors(), _locked_warehouse() as con:
        groups = quarantine.groups(con)
    table = Table("lines", "source", "reason", "file", "first id", box=None, pad_edge=False)
    for one in groups:
        table.add_row(str(one.line_count), one.source, one.reason, one.path, one.first_id[:12])
    console.print(table if groups else "nothing is in quarantine")


@quarantine_app.command("show")
def show_quarantine(
    quarantine_id: Annotated[str, typer.Argument(help="The id, or its first characters.")],
) -> None:
    """Show one line in quarantine: where it stood, why it is there, and its bytes."""
    from components.collect import quarantine

    with _exit_on_collect_errors(), _locked_warehouse() as con:
        one = quarantine.find(con, quarantine_id)
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
    from components.collect import quarantine

    with _exit_on_collect_errors(), _locked_warehouse() as con:
        retried = quarantine.retry(con, source=source, now=datetime.now(UTC))
    console.print(
        f"{retried.lines} lines tried: {retried.new} new rows, {retried.known} known, "
        f"{retried.quarantined} lines stay in quarantine"
    )


@app.command()
def drift() -> None:
    """List the fields that sources began to send after their first file, the newest first.

    Of a long file a sample is looked at, so a field that few of its rows have may be missing.
    """
    from components.collect import quarantine

    with _exit_on_collect_errors(), _locked_warehouse() as con:
        fields = quarantine.new_fields(con)
    table = Table("source", "new field", "first seen", "file", box=None, pad_edge=False)
    for one in fields:
        table.add_row(one.source, one.field, f"{one.first_seen_at:%Y-%m-%d %H:%M}", one.first_path)
    console.print(table if fields else "no source shows a field that its first file had not")


def _named_inputs(
    places: list[str] | None, source: str | None, defaults: "Defaults"
) -> "list[Input]":
    from components.collect import files as reach
    from components.collect.source import Input
    from flows.sources import MLFLOW

    given = places or [str(path) for path in sorted(settings.load().workloads.glob("*.yaml"))]
    found: list[Input] = []
    for place in given:
        if place.endswith((".yaml", ".yml")):
            found += _of_workload(Path(place))
        elif place.startswith(MLFLOW):
            found.append(Input(place, source, defaults=defaults))
        elif names := reach.matching_files(place):
            found += [Input(name, source, defaults=defaults) for name in names]
        else:
            raise FileNotFoundError(f"collecting {place}: no file matches it")
    return found


def _of_workload(path: Path) -> "list[Input]":
    from flows import workload_file as configs

    with exit_on(configs.WorkloadError):
        workload = configs.read_workload(path)
    return [*workload.log_files(), *workload.feedback_files()]


def _load_files(inputs: "Sequence[Input]", *, with_spool: bool) -> None:
    from flows import sources

    now, home = datetime.now(UTC), settings.load()
    loaded: list[Loaded] = []
    for one in sources.load_inputs(home.warehouse, inputs, now=now):
        loaded.append(one)
        console.print(_loading_sentence(one), markup=False, soft_wrap=True)
    if with_spool:
        loaded += sources.load_spool(home.warehouse, home.spool, now=now)
    show_reasons(loaded, console)
    console.print(sources.loading_summary(loaded), markup=False, soft_wrap=True)


def _rehearse(inputs: "Sequence[Input]") -> None:
    from flows import sources

    now = datetime.now(UTC)
    with _existing_warehouse() as path:
        for rehearsed in sources.rehearse_inputs(path, inputs, now=now):
            said = _loading_sentence(rehearsed.loaded)
            console.print(f"{said} ({rehearsed.form}; dry run)", markup=False, soft_wrap=True)
            for number, record in enumerate(rehearsed.samples, start=1):
                short = record if len(record) <= MOST_SHOWN else record[:MOST_SHOWN] + " ..."
                console.print(f"  {number}. {short}", markup=False, soft_wrap=True)
            show_reasons([rehearsed.loaded], console)


def show_reasons(loaded: "Sequence[Loaded]", console: Console) -> None:
    """Print why lines can't be loaded: each reason with its count, an example and what mends it."""
    from components.collect import quarantine

    reasons = quarantine.merged(reason for file in loaded for reason in file.reasons)
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


def _loading_sentence(loaded: "Loaded") -> str:
    if loaded.skipped:
        return f"{loaded.path}: {loaded.source}, loaded before ({loaded.known} rows)"
    merged = f" ({loaded.merged} with new metadata)" if loaded.merged else ""
    return (
        f"{loaded.path}: {loaded.source}, {loaded.new} new rows, {loaded.known} known{merged}, "
        f"{loaded.quarantined} lines in quarantine"
    )


@contextmanager
def _locked_warehouse() -> "Generator[Connection]":
    from components.store import warehouse

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


def _exit_on_collect_errors() -> AbstractContextManager[None]:
    from components.collect.files import UnknownSourceError
    from components.store.warehouse import WarehouseNewerError

    return exit_on(OSError, ImportError, LookupError, UnknownSourceError, WarehouseNewerError)


token_app = typer.Typer(
    help="Add, list and remove the bearer tokens of the receiver's clients.", no_args_is_help=True
)


class TokenKind(StrEnum):
    """What a token may send."""

    interactions = "interactions"
    feedback = "feedback"
    traces = "traces"
    logs = "logs"


@app.command()
def receive(
    host: Annotated[
        str, typer.Option(help="The interface to listen on; put TLS in front of any other.")
    ] = settings.HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 for any free one; OTLP exporters use 4318.")
    ] = 4318,
) -> None:
    """Take interactions, feedback, OTLP traces and logs over HTTP, until Ctrl-C.

    What is acknowledged is on the disk, in the home's `spool/`; `flywheel collect` loads it. The
    page `/docs` shows the paths, `/metrics` the figures, `/healthz` whether all is well.
    """
    from components.receive import client_tokens, serve
    from components.receive.settings import Limits

    home = settings.load()
    if not client_tokens.read_tokens(home.tokens):
        errors.print("nobody may send yet; `flywheel token add CLIENT` makes a token")

    def say(url: str) -> None:
        console.print(f"receiving on {url}   spool {home.spool}", soft_wrap=True)

    with exit_on(serve.PortError, code=1):
        serve.serve(home.spool, home.tokens, host=host, port=port, limits=Limits(), ready=say)


@token_app.command()
def add(
    client: Annotated[str, typer.Argument(help="The `client_id` of all that comes with it.")],
    workload: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may send for, a name or a pattern such as `support*`; may be repeated. "
            "All workloads if left out. Not for OTLP."
        ),
    ] = None,
    kind: Annotated[
        list[TokenKind] | None,
        typer.Option(
            help="What it may send; may be repeated. All kinds if left out, or interactions and "
            "feedback where workloads are named."
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            help="From when on it is refused: a date (`2027-01-31`, UTC), or a time from now "
            "(`90d`, `12h`). Never if left out."
        ),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests in each period; more are answered with 429.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--bytes", min=1, help="Bytes of bodies in each period; more are answered with 429."
        ),
    ] = None,
    per: Annotated[
        Literal["minute", "hour", "day"],
        typer.Option(help="The period that --requests and --bytes are for, of UTC."),
    ] = "day",
) -> None:
    """Make a token for a client and print it; it can't be shown again.

    What a token may not send is refused: 401 once it has expired, 403 for another kind or workload,
    429 with Retry-After beyond its quota, which each running receiver counts for itself. A token
    that leaves your machines should have workloads, an expiry and a quota:

    flywheel token add shop --workload 'support*' --kind interactions --expires 90d --requests 10000
    """
    from components.receive import client_tokens

    with exit_on(client_tokens.TokenError):
        now = datetime.now(UTC)
        has_quota = requests is not None or size is not None
        token = client_tokens.add_token(
            settings.load().tokens,
            client,
            now=now,
            workloads=workload or client_tokens.EVERY_WORKLOAD,
            kinds=[one.value for one in kind] if kind else None,
            expires_at=client_tokens.parse_expiry(expires, now=now) if expires else None,
            quota=client_tokens.Quota(requests=requests, bytes=size, per=per)
            if has_quota
            else None,
        )
    typer.echo(token)


@token_app.command("list")
def list_tokens() -> None:
    """List the tokens by id and client, with what they may send; the secrets are not kept."""
    from components.receive import client_tokens

    with exit_on(client_tokens.TokenError):
        known = client_tokens.read_tokens(settings.load().tokens)
    now = datetime.now(UTC)
    table = Table("id", "client", "workloads", "kinds", "quota", "expires", "created", box=None)
    for token in known:
        expires = "never"
        if token.expires_at is not None:
            is_past = token.expires_at <= now
            expires = f"{token.expires_at:%Y-%m-%d %H:%M}" + (" (expired)" if is_past else "")
        table.add_row(
            token.id,
            escape(token.client_id),
            escape(" ".join(token.workloads)),
            "all" if token.kinds == client_tokens.KINDS else " ".join(token.kinds),
            str(token.quota or "none"),
            expires,
            token.created_at,
        )
    console.print(table)


@token_app.command()
def remove(
    token_id: Annotated[str, typer.Argument(help="The id that `token list` shows.")],
) -> None:
    """Take a token's rights away, at once, in a running receiver too."""
    from components.receive import client_tokens

    with exit_on(client_tokens.TokenError):
        token = client_tokens.remove_token(settings.load().tokens, token_id)
    console.print(f"removed {token.id} of {token.client_id}")
