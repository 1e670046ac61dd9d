"""The `flywheel` command: entry point, and the commands check, turn, schedule and demo."""

import getpass
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import access, settings
from flows.cli import (
    champion_commands,
    collect_commands,
    curate_commands,
    decision_commands,
    erase_commands,
    init_command,
    report_commands,
    review_commands,
    stack_commands,
    train_commands,
)
from flows.cli.console import exit_on
from flows.stack import processes as stack_state
from flows.stack import stack_services

if TYPE_CHECKING:
    from flows.workload_file import Workload

app = typer.Typer(
    help="Turn what an LLM application logs into a better adapter: measured, approved, registered. "
    "`flywheel demo` shows all of it; `flywheel init LOGS` starts with your own logs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.registered_commands += stack_commands.app.registered_commands
app.registered_commands += report_commands.backup_app.registered_commands
app.registered_commands += init_command.app.registered_commands
app.registered_commands += collect_commands.app.registered_commands
app.add_typer(collect_commands.quarantine_app, name="quarantine")
app.add_typer(curate_commands.held_app, name="held")
app.registered_commands += curate_commands.app.registered_commands
app.registered_commands += train_commands.app.registered_commands
app.registered_commands += champion_commands.starts_app.registered_commands
app.registered_commands += report_commands.app.registered_commands
app.registered_commands += decision_commands.app.registered_commands
app.add_typer(decision_commands.approver_app, name="approver")
app.registered_commands += review_commands.app.registered_commands
app.registered_commands += champion_commands.app.registered_commands
app.add_typer(report_commands.export_app, name="export")
app.registered_commands += erase_commands.app.registered_commands
app.add_typer(collect_commands.token_app, name="token")
app.add_typer(stack_commands.account_app, name="account")
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

ConfigFile = Annotated[Path, typer.Argument(help="The YAML file that describes the workload.")]


@app.command()
def demo() -> None:
    """Run one whole turn on real traffic and a real model, in a stack of its own.

    Run it again after an interruption and it goes on where it was; run it again after a success
    and it finds everything done. On a terminal it waits for you to approve; without one it
    approves as `demo` and says so.
    """
    from flows.cli import demo_command

    with _exit_on_stack_errors():
        demo_command.run_demo(settings.load(), console)


@app.command()
def check(config: ConfigFile) -> None:
    """Check a workload file and list every mistake in it; exit code 2 if there is any."""
    workload = _read_or_exit(config)
    try:
        logs, feedback = workload.log_files(), workload.feedback_files()
    except (OSError, ImportError) as error:
        errors.print(f"{config}: sources: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(
        f"{config}: workload {workload.workload}, {len(logs)} log and {len(feedback)} feedback "
        f"files, base {workload.base}"
    )


@app.command()
def turn(
    config: ConfigFile,
    by: Annotated[
        str,
        typer.Option(
            "--as",
            help="Your name; where the file has refuse_starter, you can't approve what comes of "
            "it.",
            default_factory=getpass.getuser,
        ),
    ],
) -> None:
    """Run one turn of a workload now, and follow it; the stack must be up (`flywheel up`).

    Finished stages are found again by content, so a turn that was interrupted goes on.
    """
    workload = _read_or_exit(config)
    from flows import home_workloads
    from flows.cli import turn_watch

    with exit_on(home_workloads.WorkloadFileError):
        home_workloads.adopt(settings.load(), workload.workload, config)
    with _exit_on_stack_errors():
        turn_watch.follow_turn(config.resolve(), workload.workload, console, by=by)


@app.command()
def schedule(config: ConfigFile) -> None:
    """Give a workload its scheduled runs: collecting and turns, at the times its file says.

    Links the file into the home's `workloads/` and updates the deployments of a stack that is up.
    """
    workload = _read_or_exit(config)
    from flows import deploy
    from flows.stack import control

    home = settings.load()
    home.workloads.mkdir(parents=True, exist_ok=True)
    link = home.workloads / f"{workload.workload}.yaml"
    link.unlink(missing_ok=True)
    link.symlink_to(config.resolve())
    if control.stack_status(home).phase in control.WORKING:
        deploy.deploy_all(home)
    looks = f", signs for a turn at `{workload.trigger.schedule}`" if workload.trigger else ""
    console.print(
        f"{workload.workload}: collect at `{workload.collect_schedule}`, "
        f"turn at `{workload.turn_schedule or 'no time'}`{looks} (cron, UTC)"
    )


def _exit_on_stack_errors() -> AbstractContextManager[None]:
    from flows.cli import turn_watch
    from flows.stack.control import StackError

    return exit_on(turn_watch.TurnError, StackError, code=1)


def _read_or_exit(config: Path) -> "Workload":
    """Read a workload file, or print every mistake in it and exit with 2."""
    from flows import workload_file as configs

    with exit_on(configs.WorkloadError):
        return configs.read_workload(config)


def main() -> None:
    """Run the command; Prefect and MLflow clients are pointed at this home's stack first."""
    try:
        home = settings.load()
        _prepare_home(home)
    except (settings.SettingsError, PermissionError) as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    try:
        app()
    except Exception as error:
        if not _is_of_a_lost_server(error):
            raise
        errors.print(
            f"Prefect or MLflow went away: {error}\n{home.remedy}, `flywheel status` shows it; "
            "then run the same command again to go on",
            markup=False,
            soft_wrap=True,
        )
        sys.exit(1)


def _prepare_home(home: settings.Settings) -> None:
    """Make the home if it is missing, and see to it that all of this command can log in."""
    try:
        if not home.home.exists():
            access.secure_home(home)
        access.set_umask(home.home)
        home.prefect_home.mkdir(parents=True, exist_ok=True)  # Prefect warns when it is missing
        if not home.elsewhere:
            is_up = stack_state.is_supervised(stack_state.read_state(home))
            access.ensure_logins(home, {} if is_up else os.environ)
        stack_services.point_clients(home, os.environ)
    except PermissionError as error:
        raise PermissionError(
            f"this user may not use the home {home.home} ({error}); set FLYWHEEL_HOME to one's "
            f"own, or ask its owner to share it with a group: {settings.GROUP}, infra/README.md"
        ) from error


def _is_of_a_lost_server(error: BaseException | None) -> bool:
    """Tell whether a client could not reach its server; no command waits to import all of them."""
    names = (("httpx", "TransportError"), ("requests", "ConnectionError"), ("requests", "Timeout"))
    lost = tuple(getattr(sys.modules[one], name) for one, name in names if one in sys.modules)
    while error is not None:
        if isinstance(error, lost):
            return True
        error = error.__cause__ or error.__context__
    return False
