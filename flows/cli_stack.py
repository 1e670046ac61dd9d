"""``flywheel up``, ``open``, ``down`` and ``status``: the embedded stack, from the terminal."""

import json
import os
import sys
import webbrowser
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from flows import credentials
from flows.explaining import explained
from flows.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from components.schema import Json
    from flows.stack.control import Status

app = typer.Typer(add_completion=False, no_args_is_help=True)

_COLOURS = {"up": "green", "starting": "yellow", "restarting": "yellow", "stopping": "yellow"}


@app.command()
def up() -> None:
    """Start Prefect, MLflow and the workers, and deploy the flows.

    A change of champion that a crash interrupted is finished, or undone, and told.
    """
    from flows.stack import control

    settings, console = _settings(), Console(stderr=True)
    try:
        with console.status("starting the stack") as spinner:

            def show(line: str) -> None:
                console.print(line, style="dim")
                spinner.update(line)

            control.up(settings, show)
    except control.StackError as error:
        console.print(f"[red]The stack is not up:[/red] {error}", highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has been stopped")
        raise typer.Exit(130) from None
    from components.register.rollback import RollbackError
    from flows import champions

    with explained(RollbackError, code=1):
        for ended in champions.reconcile(settings):
            console.print(champions.say(ended), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Prefect {settings.prefect_url}   MLflow {settings.mlflow_url}")
    console.print(how_to_log_in(), highlight=False)


class Page(StrEnum):
    """A server that has pages to look at."""

    prefect = "prefect"
    mlflow = "mlflow"


@app.command("open")
def open_page(
    server: Annotated[Page, typer.Argument(help="Whose pages.")] = Page.prefect,
) -> None:
    """Open Prefect or MLflow in the browser, and say what to type where it asks for a login."""
    settings = _settings()
    console = Console(highlight=False, soft_wrap=True)
    url = settings.prefect_url if server is Page.prefect else settings.mlflow_url
    logins = credentials.read(settings)
    console.print(f"{server}: {url}", markup=False)
    if settings.elsewhere:
        console.print("it asks for the account that whoever runs it gave you")
    elif logins is None:
        console.print("it asks for nothing: it was started before homes had logins; down, then up")
    elif server is Page.prefect:
        console.print(f"it asks for one line: {logins.prefect.pair}", markup=False)
    else:
        login = logins.mlflow
        console.print(f"user {login.user}, password {login.password}", markup=False)
    if not settings.elsewhere and not is_up(settings):
        console.print("it is not up now; `flywheel up` starts it")
    elif _has_screen():
        webbrowser.open(url)


def how_to_log_in(command: str = "flywheel") -> str:
    """Say how a person gets into the pages, without showing a password."""
    return f"Both ask for a login, which `{command} open` and `{command} open mlflow` show"


@app.command()
def down() -> None:
    """Stop everything that `up` started, flow runs included."""
    from flows.stack import control

    settings, console = _settings(), Console(stderr=True)
    try:
        with console.status("stopping the stack"):
            was_up = control.down(settings)
    except control.StackError as error:
        console.print(f"[red]Nothing was stopped:[/red] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print("the stack is down" if was_up else "the stack was not up")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show each service and what the home holds; exit code 0 when the whole stack is up, else 1."""
    from flows import holdings
    from flows.stack import control

    settings = _settings()
    found = control.probe(control.status(settings))
    held = holdings.read(settings, servers=found.is_up)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"holdings": held}, indent=2))
    else:
        _show(found)
        _show_held(held)
    raise typer.Exit(0 if found.is_up else 1)


def is_up(settings: Settings) -> bool:
    """Tell whether the stack of these settings is up."""
    from flows.stack import control

    return control.status(settings).is_up


def _show(found: "Status") -> None:
    console = Console()
    table = Table("service", "state", "pid", "url", Column("log", overflow="fold"), box=None)
    for each in found.services:
        colour = _COLOURS.get(each.condition, "red")
        pid = str(each.process.pid) if each.process else ""
        times = f" ({each.restarts} restarts)" if each.restarts else ""
        state = f"[{colour}]{each.condition}{times}[/{colour}]"
        table.add_row(each.name, state, pid, each.url or "", each.log)
    console.print(f"stack: {found.phase} ({found.step})", highlight=False, soft_wrap=True)
    if found.services:
        console.print(table, soft_wrap=True)


def _show_held(held: "dict[str, Json]") -> None:
    console, workloads = Console(highlight=False), held["workloads"]
    if workloads is None:
        console.print("the warehouse is busy; what it holds is not known now")
    elif isinstance(workloads, dict):
        for name, kinds in workloads.items():
            assert isinstance(kinds, dict)
            said = ", ".join(
                f"{kind} {count}" for kind, count in kinds.items() if kind != "versions"
            )
            versions = kinds["versions"]
            if isinstance(versions, dict):
                said += "".join(f", {alias} {one}" for alias, one in versions.items() if one)
            of = name or "of no workload"  # what could not be read names none
            console.print(f"{of}: {said}", soft_wrap=True, markup=False)
    if held["approvals_waiting"] is not None:
        console.print(f"approvals that wait: {held['approvals_waiting']}")


def _has_screen() -> bool:
    """Return whether a browser would show up, and not take over the terminal."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _settings() -> Settings:
    try:
        return load()
    except SettingsError as error:
        Console(stderr=True).print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(2) from None
