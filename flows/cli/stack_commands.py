"""`flywheel up`, `down`, `status`, `account`, `doctor` and `metrics`."""

import json
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from components.pages.visible_text import visible
from flows import access, settings
from flows.cli.console import (
    NO_HOME,
    console,
    errors,
    exit_on,
    fail,
    print_error,
    print_line,
    print_whole,
)
from flows.settings import Settings

if TYPE_CHECKING:
    from components.schema import Json
    from flows.doctor.finding import CheckResult
    from flows.stack.control import Status

app = typer.Typer(add_completion=False, no_args_is_help=True)

SERVICE_COLOURS = {
    "up": "green",
    "starting": "yellow",
    "restarting": "yellow",
    "stopping": "yellow",
}
MAX_WORKLOADS = 50  # that `status` shows

LEVEL_COLOURS = {"wrong": "red", "note": "yellow", "fine": "green"}

PATIENCE_SECONDS = 10.0  # how long `status` waits for another process that holds the warehouse

LOGIN_HINT = "Both ask for a login, which `{0} status --logins` shows"

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
@exit_on()
def up() -> None:
    """Start Prefect, MLflow and the workers, and deploy the flows.

    With FLYWHEEL_SERVE_PORT a gateway answers applications on that port; with FLYWHEEL_METRICS_PORT
    this home's figures for Prometheus are on that one. A change of champion that a crash
    interrupted is completed or undone, and printed.
    """
    from flows.stack import control

    home = settings.load()
    try:
        with errors.status("starting the stack") as spinner:

            def show(line: str) -> None:
                errors.print(line, style="dim")
                spinner.update(Text(line))

            control.up(home, show)
    except control.StackError as error:
        fail(f"The stack is not up: {error}", 1)
    except KeyboardInterrupt:
        fail("interrupted; everything that was started has been stopped", 130)
    from components.release import champions
    from flows import release_home

    for change in champions.reconcile(release_home.of(home)):
        print_error(champions.describe_change(change))
    gateway = f"   gateway {home.serve_url}/v1" if home.serve_port else ""
    print_error(f"Prefect {home.prefect_url}   MLflow {home.mlflow_url}{gateway}")
    print_error(LOGIN_HINT.format("flywheel"))


@app.command()
@exit_on()
def down() -> None:
    """Stop everything that `up` started, flow runs included."""
    from flows.stack import control

    home = settings.load()
    try:
        with errors.status("stopping the stack"):
            was_up = control.down(home)
    except control.StackError as error:
        fail(f"Nothing was stopped: {error}", 1)
    if not was_up and not home.home.exists():
        fail(NO_HOME.format(home.home), 2)
    print_error("the stack is down" if was_up else "the stack was not up")


@app.command()
@exit_on()
def status(
    as_json: AsJson = False,
    logins: Annotated[
        bool, typer.Option("--logins", help="Show what to type where a server asks for a login.")
    ] = False,
) -> None:
    """Show each service, what runs, and what the home holds.

    Exit code 0 when the whole stack is up, else 1.
    """
    from flows.stack import control

    home = settings.load()
    if logins:
        _show_logins(home)
        return
    probed = control.probe_services(control.stack_status(home))
    runs = read_runs() if probed.is_up else None
    contents = _read_contents(home, servers=probed.is_up)
    if as_json:
        typer.echo(json.dumps(asdict(probed) | {"runs": runs, "holdings": contents}, indent=2))
    else:
        _show_status(probed)
        for run in runs or ():
            print_line(f"{run['state'].lower()} since {run['since']}: {run['name']}")
        _show_contents(contents)
    raise typer.Exit(0 if probed.is_up else 1)


def _show_logins(home: Settings) -> None:
    logins = access.read_logins(home)
    if home.elsewhere or logins is None:
        print_line(f"Prefect {home.prefect_url}   MLflow {home.mlflow_url}")
        print_line("each asks for the account that you have from whoever runs it")
        return
    print_line(f"prefect: {home.prefect_url}  it asks for one line: {logins.prefect.pair}")
    print_line(
        f"mlflow: {home.mlflow_url}  user {logins.mlflow.user}, password {logins.mlflow.password}"
    )


def _show_status(status: "Status") -> None:
    table = Table("service", "state", "pid", "url", box=None)
    for service in status.services:
        colour = SERVICE_COLOURS.get(service.condition, "red")
        pid = str(service.process.pid) if service.process else ""
        times = f" ({service.restarts} restarts)" if service.restarts else ""
        state = Text(f"{service.condition}{times}", style=colour)
        table.add_row(service.name, state, pid, service.url or "")
    print_line(f"stack: {status.phase} ({status.step})")
    if status.services:
        print_whole(table)
        print_line(f"logs: {Path(status.services[0].log).parent}/SERVICE.log")


def read_runs() -> list[dict[str, str]]:
    """Return the flow runs that run or are about to, the newest first."""
    from flows import prefect_api

    return [
        {
            "id": str(run.id),
            "name": run.name,
            "state": run.state.name,
            "since": f"{run.state.timestamp.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        }
        for run in prefect_api.find(None, states=["PENDING", "RUNNING"])
        if run.state
    ]


def _read_contents(home: Settings, *, servers: bool) -> "dict[str, Json]":
    # What can't be counted now is ``null``.
    from components.register import registry, version_tags
    from flows import approvals

    with ThreadPoolExecutor() as threads:
        aliases = threads.submit(registry.read_all) if servers else None
        waiting = threads.submit(approvals.pending_approvals) if servers else None
        counts = _count_rows(home)
    if counts is None:
        return {"workloads": None, "approvals_waiting": None}
    workloads: dict[str, Json] = {}
    for name, kinds in counts.items():
        versions: Json = None
        if aliases:
            now = aliases.result().get(name, registry.Aliases())
            versions = {version_tags.CHAMPION: now.champion, version_tags.PREVIOUS: now.previous}
        workloads[name] = {**kinds, "versions": versions}
    return {
        "workloads": workloads,
        "approvals_waiting": len(waiting.result()) if waiting else None,
    }


def _count_rows(home: Settings) -> "dict[str, dict[str, Json]] | None":
    from components.store import warehouse
    from components.store.lock import WarehouseBusyError

    if not home.has_warehouse:
        return {}
    try:
        with warehouse.connect(home.tables, PATIENCE_SECONDS) as con:
            rows = warehouse.select(con, "marts/holdings")
    except WarehouseBusyError:
        return None
    counts: dict[str, dict[str, Json]] = {}
    for row in rows:
        kinds = counts.setdefault(str(row["workload_id"]), {})
        kinds[str(row["kind"])] = int(str(row["things"]))
    return counts


def _shown_workloads(workloads: "dict[str, Json]") -> set[str]:
    """Return what a person wants to see of very many: with a champion or a snapshot, and large."""

    def rank(name: str) -> tuple[bool, bool, int]:
        kinds = workloads[name]
        assert isinstance(kinds, dict)
        versions, rows = kinds["versions"], kinds.get("interactions", 0)
        has_champion = isinstance(versions, dict) and any(versions.values())
        return has_champion or not name, "snapshot" in kinds, int(str(rows))

    return set(sorted(workloads, key=rank, reverse=True)[:MAX_WORKLOADS])


def _show_contents(contents: "dict[str, Json]") -> None:
    workloads = contents["workloads"]
    if workloads is None:
        print_line("the warehouse is busy; what it holds is not known now")
    elif isinstance(workloads, dict):
        shown = _shown_workloads(workloads)
        for name, kinds in workloads.items():
            assert isinstance(kinds, dict)
            if name not in shown:
                continue
            parts = [f"{kind} {count}" for kind, count in kinds.items() if kind != "versions"]
            if isinstance(versions := kinds["versions"], dict):
                parts += [f"{alias} {number}" for alias, number in versions.items() if number]
            # Lines that could not be read are of no workload.
            print_line(f"{name or 'of no workload'}: {', '.join(parts)}")
        if rest := len(workloads) - len(shown):
            print_line(f"and {rest:,} more workloads; --json lists all")
    if contents["approvals_waiting"] is not None:
        print_line(f"approvals that wait: {contents['approvals_waiting']}")


@app.command()
@exit_on()
def account(
    name: Annotated[str, typer.Argument(help="What the person types as user.")],
    remove: Annotated[bool, typer.Option("--remove", help="Delete it, at once.")] = False,
) -> None:
    """Make a person's account and print its password, which can't be shown again; or remove one.

    For servers that a team shares. It may look and answer: it opens MLflow, to read, and Prefect
    through the proxy (infra/team.md).
    """
    if remove:
        _change_account("DELETE", "delete", {"username": name})
        return
    password = secrets.token_urlsafe(18)
    _change_account("POST", "create", {"username": name, "password": password})
    typer.echo(password)


def _change_account(method: str, action: str, body: dict[str, str]) -> None:
    import httpx

    home = settings.load()
    if not home.elsewhere:
        fail(
            f"{home.home} has servers of its own, with one login: `flywheel status --logins` "
            "shows it"
        )
    login = (
        os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
    )
    url = f"{home.mlflow_url}/api/2.0/mlflow/users/{action}"
    answer = httpx.request(method, url, json=body, auth=login, timeout=30)
    if not answer.is_success:
        fail(
            f"{action} of the account {body['username']}: {home.mlflow_url} says "
            f"{answer.status_code}, {answer.text}; the operator's MLFLOW_TRACKING_USERNAME and "
            "_PASSWORD may do it",
            1,
        )


@app.command()
@exit_on()
def doctor(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Workload files besides the scheduled ones."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List everything insecure, broken or unreachable, with its fix.

    Exit code 1 where something must be fixed; what may be intended is only noted.
    """
    home = settings.load()
    workloads = sorted(home.workloads.glob("*.yaml"))
    scheduled = {path.resolve() for path in workloads}
    workloads += sorted({path for path in configs or () if path.resolve() not in scheduled})
    with console.status("checking"):
        from flows.doctor import diagnosis, finding

        results: list[CheckResult] = []
        for result in diagnosis.diagnose(home, os.environ, workloads):
            results.append(result)
            if not as_json:
                _show_result(result)
    if as_json:
        typer.echo(json.dumps([finding.as_json(result) for result in results], indent=2))
    raise typer.Exit(1 if any(result.level == "wrong" for result in results) else 0)


def _show_result(result: "CheckResult") -> None:
    level = (f"{result.level:<5}", LEVEL_COLOURS[result.level])
    text = visible(f"  {result.about}: {result.state}")
    console.print(Text.assemble(level, text), soft_wrap=True)
    if result.fix:
        print_line(f"       fix: {result.fix}")


@app.command()
@exit_on()
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

    from flows.stack import prometheus

    home = settings.load()
    if port is None:
        typer.echo(prometheus.metrics_page(home).decode(), nl=False)
        return
    try:
        start_http_server(port, addr=host, registry=prometheus.metrics_registry(home))
    except OSError as error:
        fail(f"listening on {host} port {port}: {error.strerror}; choose another --port", 1)
    print_error(f"metrics on http://{host}:{port}/metrics")
    threading.Event().wait()
