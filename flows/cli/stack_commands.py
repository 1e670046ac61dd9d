"""`flywheel up`, `open`, `down`, `status`, `account`, `doctor` and `metrics`."""

import json
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from flows import access, settings
from flows.cli.console import exit_on
from flows.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from components.schema import Json
    from flows.doctor.finding import CheckResult
    from flows.stack.control import Status


app = typer.Typer(add_completion=False, no_args_is_help=True)

_SERVICE_COLOURS = {
    "up": "green",
    "starting": "yellow",
    "restarting": "yellow",
    "stopping": "yellow",
}


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
    from components.register.champion_change import RollbackError
    from flows import champions

    with exit_on(RollbackError, code=1):
        for ended in champions.reconcile(settings):
            console.print(
                champions.describe_change(ended), markup=False, highlight=False, soft_wrap=True
            )
    console.print(f"Prefect {settings.prefect_url}   MLflow {settings.mlflow_url}")
    console.print(login_hint(), highlight=False)


class ServerPage(StrEnum):
    """A server that has pages to look at."""

    prefect = "prefect"
    mlflow = "mlflow"


@app.command("open")
def open_page(
    server: Annotated[ServerPage, typer.Argument(help="Whose pages.")] = ServerPage.prefect,
) -> None:
    """Open Prefect or MLflow in the browser, and say what to type where it asks for a login."""
    settings = _settings()
    console = Console(highlight=False, soft_wrap=True)
    url = settings.prefect_url if server is ServerPage.prefect else settings.mlflow_url
    logins = access.read_logins(settings)
    console.print(f"{server}: {url}", markup=False)
    if settings.elsewhere:
        console.print("it asks for the account that whoever runs it gave you")
    elif logins is None:
        console.print("it asks for nothing: it was started before homes had logins; down, then up")
    elif server is ServerPage.prefect:
        console.print(f"it asks for one line: {logins.prefect.pair}", markup=False)
    else:
        login = logins.mlflow
        console.print(f"user {login.user}, password {login.password}", markup=False)
    if not settings.elsewhere and not is_up(settings):
        console.print("it is not up now; `flywheel up` starts it")
    elif _has_screen():
        webbrowser.open(url)


def login_hint(command: str = "flywheel") -> str:
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
    from flows.cli import home_contents
    from flows.stack import control

    settings = _settings()
    found = control.probe_services(control.stack_status(settings))
    held = home_contents.read_contents(settings, servers=found.is_up)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"holdings": held}, indent=2))
    else:
        _show_status(found)
        _show_contents(held)
    raise typer.Exit(0 if found.is_up else 1)


def is_up(settings: Settings) -> bool:
    """Tell whether the stack of these settings is up."""
    from flows.stack import control

    return control.stack_status(settings).is_up


def _show_status(status: "Status") -> None:
    console = Console()
    table = Table("service", "state", "pid", "url", Column("log", overflow="fold"), box=None)
    for each in status.services:
        colour = _SERVICE_COLOURS.get(each.condition, "red")
        pid = str(each.process.pid) if each.process else ""
        times = f" ({each.restarts} restarts)" if each.restarts else ""
        state = f"[{colour}]{each.condition}{times}[/{colour}]"
        table.add_row(each.name, state, pid, each.url or "", each.log)
    console.print(f"stack: {status.phase} ({status.step})", highlight=False, soft_wrap=True)
    if status.services:
        console.print(table, soft_wrap=True)


def _show_contents(held: "dict[str, Json]") -> None:
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


account_app = typer.Typer(
    help="Add and remove people's accounts, where a team shares the servers.", no_args_is_help=True
)
account_errors = Console(stderr=True, highlight=False, soft_wrap=True)

AccountName = Annotated[str, typer.Argument(help="What the person types as user.")]


@account_app.command()
def add(name: AccountName) -> None:
    """Make an account that may look and answer, and print its password; it can't be shown again.

    It opens MLflow, to read, and Prefect through the proxy (infra/README.md).
    """
    password = secrets.token_urlsafe(18)
    _ask_servers("POST", "create", {"username": name, "password": password})
    typer.echo(password)


@account_app.command()
def remove(name: AccountName) -> None:
    """Take an account away, at once."""
    _ask_servers("DELETE", "delete", {"username": name})


def _ask_servers(method: str, what: str, body: dict[str, str]) -> None:
    import httpx

    home = settings.load()
    if not home.elsewhere:
        account_errors.print(
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
        account_errors.print(
            f"{what} of the account {body['username']}: {home.mlflow_url} says "
            f"{answer.status_code}, {answer.text}; the operator's MLFLOW_TRACKING_USERNAME and "
            "_PASSWORD may do it",
            markup=False,
        )
        raise typer.Exit(1)


console = Console(highlight=False)

LEVEL_COLOURS = {"wrong": "red", "note": "yellow", "fine": "green"}


@app.command()
def doctor(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Workload files besides the scheduled ones."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Name everything insecure, broken or unreachable, with its fix, and say what would run.

    Exit code 1 where something must be fixed; what may be meant so is only noted.
    """
    from flows.doctor import diagnosis, finding

    home = settings.load()
    workloads = sorted(set(home.workloads.glob("*.yaml")) | set(configs or ()))
    found = list(diagnosis.diagnose(home, os.environ, workloads))
    if as_json:
        typer.echo(json.dumps([finding.as_json(result) for result in found], indent=2))
    else:
        _show_findings(found)
        _show_plans(workloads)
    raise typer.Exit(1 if any(one.level == "wrong" for one in found) else 0)


def _show_findings(results: "Iterable[CheckResult]") -> None:
    for one in results:
        colour = LEVEL_COLOURS[one.level]
        console.print(f"[{colour}]{one.level:<5}[/{colour}]", end="  ")
        console.print(f"{one.about}: {one.state}", markup=False, soft_wrap=True)
        if one.fix:
            console.print(f"       fix: {one.fix}", markup=False, soft_wrap=True)


def _show_plans(workloads: Iterable[Path]) -> None:
    from flows import workload_file
    from flows.doctor import diagnosis

    console.print("\nWhat would run:" if workloads else "\nNo workload is scheduled.")
    for path in workloads:
        try:
            said = diagnosis.planned_schedules(workload_file.read_workload(path))
        except workload_file.WorkloadError as error:
            said = f"{path.stem}: nothing, its file has {len(error.mistakes)} mistake(s)"
        console.print(f"  {said}", markup=False, soft_wrap=True)


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

    from flows.stack import prometheus as figures

    home = settings.load()
    if port is None:
        typer.echo(figures.metrics_page(home).decode(), nl=False)
        return
    with exit_on(OSError, code=1):
        start_http_server(port, addr=host, registry=figures.metrics_registry(home))
    errors.print(f"metrics on http://{host}:{port}/metrics")
    threading.Event().wait()
