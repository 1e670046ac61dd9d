"""`flywheel collect`, `quarantine`, `receive` and `token`: incoming traffic."""

import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    new_table,
    open_telemetry,
    print_error,
    print_line,
    print_whole,
    shorten,
)
from flows.cli.parameters import SourceOption

if TYPE_CHECKING:
    from components.collect.load_file import Loaded
    from components.collect.source import Defaults
    from components.store.warehouse import Location
    from flows.source_entries import Traffic

app = typer.Typer(add_completion=False, no_args_is_help=True)
token_app = typer.Typer(
    help="Add, list and remove the tokens of clients of the receiver and the gateway.",
    no_args_is_help=True,
)
app.add_typer(token_app, name="token")

MAX_SHOWN = 600  # characters of a record that a dry run shows
LATER = "once `flywheel token list` or `flywheel ship` of this machine has reached the store"
MAX_REASONS, MAX_EXAMPLE = 6, 160  # reasons for quarantine, characters of an example


@app.command()
@exit_on(OSError, ImportError, LookupError)
def collect(
    places: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, fsspec URLs; or workload files (*.yaml)."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would load, and records of each form; store nothing."
        ),
    ] = False,
    source: SourceOption = None,
    workload: Annotated[str, typer.Option(help="The workload of records without one.")] = "",
    client: Annotated[str, typer.Option(help="The client of records without one.")] = "",
) -> None:
    """Load files into the warehouse now; without any, those of scheduled workloads and the spool.

    Rows go to the home's warehouse. Files are recognized by content, so nothing is stored twice;
    lines that can't be read are kept with the reason (`flywheel quarantine`).

    `flywheel collect --dry-run logs/*.jsonl.gz` shows what would be loaded, `flywheel collect
    support.yaml` loads the sources of a workload file.
    """
    from components.collect.source import Defaults

    with nullcontext() if places or dry_run else _collecting_received():
        traffic = _named_traffic(places, source, Defaults(workload, client))
    if dry_run:
        _rehearse(traffic)
    else:
        _load_files(traffic, with_spool=not places)


@app.command()
@exit_on(LookupError, ImportError, OSError)
def quarantine(
    quarantine_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Show this line: its id, or the first characters."),
    ] = None,
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Read all again: what can be read by now is loaded."),
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="Retry the lines of this source only; all if left out.")
    ] = None,
) -> None:
    """Count the lines that could not be read, by source, reason and file; show one, or retry all.

    `flywheel quarantine 3f2a` shows a line: its place, the reason, and its bytes; `flywheel
    quarantine --retry` reads all again, after a rule was fixed.
    """
    if retry:
        _retry_quarantined(source)
    elif quarantine_id is not None:
        _show_quarantined(quarantine_id)
    else:
        _list_quarantined()


def _list_quarantined() -> None:
    from components.collect import quarantine
    from components.collect.field_map import short_name

    with open_telemetry() as con:
        groups = quarantine.groups(con)
    table = new_table("lines", "source", "reason", "file", "first id")
    for group in groups:
        count, first = str(group.line_count), group.first_id[:12]
        table.add_row(count, short_name(group.source), group.reason, group.path, first)
    console.print(table if groups else "nothing is in quarantine")


def _show_quarantined(quarantine_id: str) -> None:
    from components.collect import quarantine

    with open_telemetry() as con:
        line = quarantine.find(con, quarantine_id)
    print_line(f"{line.path}:{line.line}  source {line.source}  id {line.quarantine_id}")
    print_line(line.reason)
    print_line(line.content.decode(errors="backslashreplace"))


def _retry_quarantined(source: str | None) -> None:
    from rich.progress import track

    from components.collect.quarantine import Retried
    from flows import sources

    parts, done = sources.retry_quarantined(settings.load().tables, source, now=datetime.now(UTC))
    is_short = parts < 2 or not console.is_terminal
    shown = track(done, "reading again", parts, console=console, transient=True, disable=is_short)
    retried = sum(shown, Retried(0, 0, 0, 0))
    console.print(
        f"{retried.lines} lines tried: {retried.new} new rows, {retried.known} known, "
        f"{retried.quarantined} lines stay in quarantine"
    )


@contextmanager
def _collecting_received() -> Generator[None]:
    """Load the spool if the block fails: what keeps files from being read is none of its."""
    from flows import sources

    try:
        yield
    except (OSError, ImportError, ValueError):
        sources.load_spool(settings.load(), now=datetime.now(UTC))
        raise


def _named_traffic(places: list[str] | None, source: str | None, defaults: "Defaults") -> "Traffic":
    """List what places stand for, or all scheduled workloads."""
    from components.collect import importers
    from flows import source_entries, workload_file
    from flows.source_entries import SourceEntry, Traffic

    if source is not None:
        importers.require_known(source)
    traffic = Traffic()
    for place in places or map(str, sorted(settings.load().workloads.glob("*.yaml"))):
        if place.endswith((".yaml", ".yml")):
            traffic += workload_file.read_workload(Path(place)).traffic()
            continue
        entry = SourceEntry(path=source_entries.absolute(place), source=source, **asdict(defaults))
        more = source_entries.list_traffic([entry], "interactions")
        if not (more.inputs or more.unlisted):
            raise FileNotFoundError(f"collecting {place}: no file matches it")
        traffic += more
    return traffic


def _load_files(traffic: "Traffic", *, with_spool: bool) -> None:
    from flows import sources
    from flows.sources import UnreadFilesError

    now, home = datetime.now(UTC), settings.load()
    loaded: list[Loaded] = []
    unread: UnreadFilesError | None = None
    loading = sources.load_inputs(home.tables, traffic.inputs, now=now, unlisted=traffic.unlisted)
    with _collecting_received() if with_spool else nullcontext():
        try:
            for file in loading:
                loaded.append(file)
                print_line(_loading_sentence(file))
        except UnreadFilesError as error:
            unread = error
    if with_spool:
        loaded += sources.load_spool(home, now=now)
    show_reasons(loaded)
    print_line(sources.loading_summary(loaded, traffic.folders_not_read))
    if unread is not None:
        raise unread
    if not loaded and with_spool:
        print_line(
            f"no workload is scheduled in {home.home}, and nothing was received: `flywheel collect "
            "FILE` loads logs, or the sources of a workload file"
        )


def _rehearse(traffic: "Traffic") -> None:
    from flows import source_entries, sources

    now = datetime.now(UTC)
    with _existing_warehouse() as (path, scratch):
        shown = set[tuple[str, str, bool]]()
        for loaded in sources.load_inputs(
            path,
            traffic.inputs,
            now=now,
            unlisted=traffic.unlisted,
            dry_run=True,
            scratch=scratch,
        ):
            print_line(f"{_loading_sentence(loaded)} ({loaded.form}; dry run)")
            form = (loaded.source, loaded.form, loaded.quarantined > 0)
            for number, record in enumerate(loaded.samples if form not in shown else (), 1):
                print_line(f"  {number}. {shorten(record, MAX_SHOWN)}")
            shown.add(form)
            show_reasons([loaded])
    if folders := traffic.folders_not_read:
        print_line(source_entries.unread_sentence(folders))


def show_reasons(loaded: "Sequence[Loaded]") -> None:
    """Print why lines can't be loaded: each reason with its count, an example and a remedy."""
    from components.collect import quarantine

    reasons = quarantine.merged(reason for file in loaded for reason in file.reasons)
    for reason in reasons[:MAX_REASONS]:
        example = reason.beginning.decode(errors="backslashreplace").replace("\n", " ")
        print_line(f"  {reason.line_count} lines: {reason.reason}")
        place = f"{reason.path}:{reason.line}"
        print_line(f"      example: {place}: {shorten(example, MAX_EXAMPLE)}")
        print_line(f"      fix: {reason.remedy}")
    quarantined = sum(file.quarantined for file in loaded)
    if rest := quarantined - sum(reason.line_count for reason in reasons[:MAX_REASONS]):
        console.print(f"  {rest} lines for other reasons")


def _loading_sentence(loaded: "Loaded") -> str:
    from components.collect.field_map import short_name

    source = short_name(loaded.source)
    if loaded.skipped:
        return f"{loaded.path}: {source}, loaded before ({loaded.known} rows)"
    merged = f" ({loaded.merged} with new metadata)" if loaded.merged else ""
    return (
        f"{loaded.path}: {source}, {loaded.new} new rows, {loaded.known} known{merged}, "
        f"{loaded.quarantined} lines in quarantine"
    )


@contextmanager
def _existing_warehouse() -> "Generator[tuple[Location, Path]]":
    """Yield the place of the warehouse, or, where there is none yet, of a temporary one.

    With it a folder for files: the home's, unless that has none yet, which a dry run doesn't make.
    """
    from components.store import file_locks

    home = settings.load()
    within = home.scratch_or_system
    if home.has_warehouse:
        yield home.tables, within
        return
    with file_locks.temporary_folder(within, "rehearsed-") as folder:
        yield folder / "empty", folder


class TokenKind(StrEnum):  # Typer takes no list of literals
    """What a token may send."""

    interactions = "interactions"
    feedback = "feedback"
    traces = "traces"
    logs = "logs"


@app.command()
@exit_on()
def receive(
    host: Annotated[
        str, typer.Option(help="The interface to listen on; put TLS in front of any other.")
    ] = settings.HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 for any free one; OTLP exporters use 4318.")
    ] = 4318,
) -> None:
    """Receive interactions, feedback, OTLP traces and logs over HTTP, until Ctrl-C.

    What is acknowledged is on the disk, in the home's `spool/`; `flywheel collect` loads it. The
    page `/docs` shows the paths, `/metrics` the figures, `/healthz` whether all is well.
    """
    from components.receive import client_tokens, serve
    from components.receive.settings import Limits

    home = settings.load()
    if not client_tokens.read_tokens(home.tokens):
        errors.print("nobody may send yet; `flywheel token add CLIENT` makes a token")

    def say(url: str) -> None:
        print_line(f"receiving on {url}   spool {home.spool}")

    serve.serve(home.spool, home.tokens, host=host, port=port, limits=Limits(), ready=say)


@app.command()
@exit_on()
def ship(
    once: Annotated[bool, typer.Option("--once", help="Ship what is there now, and exit.")] = False,
) -> None:
    """Move what this machine received to the object store, until Ctrl-C.

    For a machine that has a receiver or a gateway but no warehouse: run it beside them, with
    FLYWHEEL_STORE set. A `flywheel collect` anywhere loads what was shipped. Tokens that were added
    or removed on another machine come to this one, and its own go there.
    """
    from flows.machines import spool_shipper

    home = settings.load()
    if home.store is None:
        fail(f"shipping: {settings.STORE} is not set, expected s3://BUCKET/PREFIX")
    if once:
        print_line(f"{spool_shipper.ship_once(home, home.store)} segments shipped")
        return
    is_over = Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        is_over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    print_line(f"shipping {home.spool} to {home.store.url}")
    spool_shipper.ship_until(home, home.store, is_over, print_line)


@token_app.command()
@exit_on()
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
            help="When it expires: a date (`2027-01-31`, UTC), or a time from now "
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

    now, quota = datetime.now(UTC), None
    if requests is not None or size is not None:
        quota = client_tokens.Quota(requests=requests, bytes=size, per=per)
    home = settings.load()
    token = client_tokens.add_token(
        home.tokens,
        client,
        now=now,
        workloads=workload or client_tokens.EVERY_WORKLOAD,
        kinds=[member.value for member in kind] if kind else None,
        expires_at=client_tokens.parse_expiry(expires, now=now) if expires else None,
        quota=quota,
    )
    typer.echo(token)
    if not workload:
        print_error(f"{client} may send rows of every workload; --workload NAME limits a token")
    if problem := _share_tokens(home):
        fail(f"{problem}; this machine accepts it, and others will {LATER}", 1)


@token_app.command("list")
@exit_on()
def list_tokens() -> None:
    """List the tokens by id and client, with what they may send; the secrets are not kept."""
    from components.receive import client_tokens

    home = settings.load()
    problem = _share_tokens(home)
    tokens = client_tokens.read_tokens(home.tokens)
    now = datetime.now(UTC)
    table = Table("id", "client", "workloads", "kinds", "quota", "expires", "created", box=None)
    for token in tokens:
        expires = "never"
        if token.expires_at is not None:
            is_past = token.expires_at <= now
            expires = f"{token.expires_at:%Y-%m-%d %H:%M}" + (" (expired)" if is_past else "")
        table.add_row(
            token.id,
            token.client_id,
            " ".join(token.workloads),
            "all" if token.kinds == client_tokens.KINDS else " ".join(token.kinds),
            str(token.quota or "none"),
            expires,
            token.created_at[:16].replace("T", " "),
        )
    if tokens:
        print_whole(table)
    else:
        print_line("there is no token")
    if problem:
        fail(f"{problem}; these are the tokens that this machine knows", 1)


@token_app.command()
@exit_on()
def remove(
    token_id: Annotated[str, typer.Argument(help="The id that `token list` shows.")],
) -> None:
    """Revoke a token at once, in a running receiver too; on other machines with their next look."""
    from components.extensions.machines import shared_tokens
    from components.receive import client_tokens

    home = settings.load()
    if home.store is None:
        token = client_tokens.remove_token(home.tokens, token_id)
        console.print(f"removed {token.id} of {token.client_id}")
        return
    problem = _share_tokens(home)  # else one that another machine added is not known here
    if problem:
        print_error(problem)
    token = shared_tokens.remove_here(home.tokens, token_id)
    console.print(f"removed {token.id} of {token.client_id}")
    if not problem and (problem := _share_tokens(home)):
        print_error(problem)
    if problem:
        fail(f"it is refused on this machine, and will be on others {LATER}", 1)


def _share_tokens(home: settings.Settings) -> str | None:
    """Exchange tokens with the other machines; return why that can't be done now."""
    from components.extensions.machines import shared_tokens
    from components.receive import client_tokens
    from components.store.shared_files import StoreError

    if home.store is None:
        return None
    try:
        with home.store.reaching(f"sharing tokens at {home.store.url}"):
            shared_tokens.synchronize(home.store, home.tokens)
    except client_tokens.TokenError as error:  # it must not keep another one from going
        print_error(str(error))
    except StoreError as error:
        return str(error)
    return None
