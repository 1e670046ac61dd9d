"""``flywheel account``: people's own accounts of servers that a team shares."""

import os
import secrets
from typing import Annotated

import typer
from rich.console import Console

from flows import settings

app = typer.Typer(
    help="Add and remove people's accounts, where a team shares the servers.", no_args_is_help=True
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Name = Annotated[str, typer.Argument(help="What the person types as user.")]


@app.command()
def add(name: Name) -> None:
    """Make an account that may look and answer, and print its password; it can't be shown again.

    It opens MLflow, to read, and Prefect through the proxy (infra/README.md).
    """
    password = secrets.token_urlsafe(18)
    _ask("POST", "create", {"username": name, "password": password})
    typer.echo(password)


@app.command()
def remove(name: Name) -> None:
    """Take an account away, at once."""
    _ask("DELETE", "delete", {"username": name})


def _ask(method: str, what: str, body: dict[str, str]) -> None:
    import httpx

    home = settings.load()
    if not home.elsewhere:
        errors.print(
            f"{home.home} has servers of its own, with one login: `flywheel open` shows it",
            markup=False,
        )
        raise typer.Exit(2)
    login = (
        os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
    )
    url = f"{home.mlflow_url}/api/2.0/mlflow/users/{what}"
    answer = httpx.request(method, url, json=body, auth=login, timeout=30)
    if not answer.is_success:
        errors.print(
            f"{what} of the account {body['username']}: {home.mlflow_url} says "
            f"{answer.status_code}, {answer.text}; the operator's MLFLOW_TRACKING_USERNAME and "
            "_PASSWORD may do it",
            markup=False,
        )
        raise typer.Exit(1)
