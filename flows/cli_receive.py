"""``flywheel receive`` and ``flywheel token``: live traffic over HTTP, and who may send it."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import settings
from flows.explaining import explained

app = typer.Typer(add_completion=False, no_args_is_help=True)
token_app = typer.Typer(
    help="Add, list and remove the bearer tokens of the receiver's clients.", no_args_is_help=True
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class Kind(StrEnum):
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
    from components.receive import server, tokens
    from components.receive.limits import Limits

    home = settings.load()
    if not tokens.read(home.tokens):
        errors.print("nobody may send yet; `flywheel token add CLIENT` makes a token")

    def say(url: str) -> None:
        console.print(f"receiving on {url}   spool {home.spool}", soft_wrap=True)

    with explained(server.PortError, code=1):
        server.serve(home.spool, home.tokens, host=host, port=port, limits=Limits(), ready=say)


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
        list[Kind] | None,
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
    from components.receive import tokens

    with explained(tokens.TokenError):
        now = datetime.now(UTC)
        has_quota = requests is not None or size is not None
        token = tokens.add(
            settings.load().tokens,
            client,
            now=now,
            workloads=workload or tokens.EVERY_WORKLOAD,
            kinds=[one.value for one in kind] if kind else None,
            expires_at=tokens.expiry(expires, now=now) if expires else None,
            quota=tokens.Quota(requests=requests, bytes=size, per=per) if has_quota else None,
        )
    typer.echo(token)


@token_app.command("list")
def list_tokens() -> None:
    """List the tokens by id and client, with what they may send; the secrets are not kept."""
    from components.receive import tokens

    with explained(tokens.TokenError):
        known = tokens.read(settings.load().tokens)
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
            "all" if token.kinds == tokens.KINDS else " ".join(token.kinds),
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
    from components.receive import tokens

    with explained(tokens.TokenError):
        token = tokens.remove(settings.load().tokens, token_id)
    console.print(f"removed {token.id} of {token.client_id}")
