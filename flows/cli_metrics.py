"""``flywheel metrics``: what Prometheus watches."""

import threading
from typing import Annotated

import typer
from rich.console import Console

from flows import settings
from flows.explaining import explained

app = typer.Typer(add_completion=False, no_args_is_help=True)
errors = Console(stderr=True, highlight=False)


@app.command()
def metrics(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve them there until Ctrl-C.")
    ] = None,
    host: Annotated[str, typer.Option(help="The interface to listen on.")] = settings.HOST,
) -> None:
    """Print the figures of this home for Prometheus, or serve them.

    A stack serves them itself where FLYWHEEL_METRICS_PORT names a port.
    """
    from prometheus_client import start_http_server

    from flows import metrics as figures

    home = settings.load()
    if port is None:
        typer.echo(figures.page(home).decode(), nl=False)
        return
    with explained(OSError, code=1):
        start_http_server(port, addr=host, registry=figures.registry(home))
    errors.print(f"metrics on http://{host}:{port}/metrics")
    threading.Event().wait()
