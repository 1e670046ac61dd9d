"""``flywheel receive`` and ``flywheel token``: live traffic over HTTP, and who may send it."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows import settings
from flows.explaining import explained

app = typer.Typer(add_completion=False, no_args_is_help=True)
token_app = typer.Typer(
    help="Add, list and remove the bearer tokens of the receiver's clients.", no_args_is_help=True
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


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
) -> None:
    """Make a token for a client and print it; it can't be shown again."""
    from components.receive import tokens

    with explained(tokens.TokenError):
        token = tokens.add(settings.load().tokens, client, now=datetime.now(UTC))
    typer.echo(token)


@token_app.command("list")
def list_tokens() -> None:
    """List the tokens by id and client; the secrets are not kept."""
    from components.receive import tokens

    table = Table("id", "client", "created", box=None)
    for token in tokens.read(settings.load().tokens):
        table.add_row(token.id, token.client_id, token.created_at)
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
