"""The `flywheel` command: entry point, and the commands check, turn, schedule and demo."""

import getpass
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from flows import access, settings
from flows.cli import (
    archive_commands,
    champion_commands,
    collect_commands,
    curate_commands,
    decision_commands,
    erase_commands,
    init_command,
    report_commands,
    review_commands,
    serve_commands,
    stack_commands,
    train_commands,
)
from flows.cli.console import (
    NO_HOME,
    NOT_LINUX,
    NOT_THIS_USER,
    OTHER_HOME,
    class_names,
    console,
    errors,
    exit_on,
    fail,
    print_error,
    print_line,
    remedy_of_disk,
)
from flows.cli.parameters import ConfigFile
from flows.stack import processes, stack_services

# What `flywheel --help` groups the commands by.
PANELS = {
    "Start here": ("demo", "init", "check", "turn", "schedule"),
    "The servers and the home": (
        *("up", "down", "status", "doctor", "metrics", "account"),
        *("backup", "restore"),
    ),
    "Logs and data": (
        *("collect", "receive", "ship", "token", "quarantine"),
        *("curate", "diff", "held", "review", "feedback", "erase", "prune"),
    ),
    "Train and measure": ("train", "evaluate", "report"),
    "Decide": (
        *("pending", "approve", "reject", "approver", "audit", "rollback"),
        *("lineage", "verify"),
    ),
    "Serve and export": ("serve", "export"),
}


class Headings(TyperGroup):
    """Lists the commands in the order of ``PANELS``, not in that of the modules."""

    def list_commands(self, ctx: object) -> list[str]:
        """Return the names of all commands."""
        return [name for names in PANELS.values() for name in names]


app = typer.Typer(
    cls=Headings,
    help="Turn what an LLM application logs into a better adapter: measured, approved, registered. "
    "`flywheel demo` shows all of it; `flywheel init LOGS` starts with your own logs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
MODULES = (
    stack_commands,
    init_command,
    collect_commands,
    curate_commands,
    train_commands,
    report_commands,
    archive_commands,
    decision_commands,
    review_commands,
    champion_commands,
    serve_commands,
    erase_commands,
)
for module in MODULES:
    app.add_typer(module.app)

# Where a client of Prefect or MLflow can't reach its server.
LOST_SERVER = {
    "httpx.TransportError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
}


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print_line(f"flywheel {version('lora-flywheel')}, code {settings.code_version()}")
        raise typer.Exit


@app.callback()
def flywheel(
    is_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version of the package and of the code, and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""
    for warning in settings.misspelt_variables(os.environ):
        print_error(f"warning: {warning}")


WITHOUT_HOME = frozenset({"check", "doctor", "init", "restore"})
"""The commands that need no home, and get no logins for one; `restore` makes it, all or nothing."""

MAKING_HOME = frozenset(
    {
        *("collect", "demo", "receive", "schedule", "serve", "ship", "up"),
        *("approver add", "token add"),
    }
)
"""The commands that make a home that is missing. All others read or change one, and a mistyped
``FLYWHEEL_HOME`` must not look to them like a home without anything in it."""

OF_A_GATEWAY = frozenset({"serve canary", "serve status"})
"""Commands of ``serve`` that do not serve."""


@app.command()
@exit_on()
def demo() -> None:
    """Run one whole turn on real traffic and a real model, in a stack of its own.

    Run it again after an interruption and it resumes; run it again after a success and it finds
    everything done, unless something was asked of the gateway since: that is new data, and it
    turns once more. On a terminal it waits for you to approve; without one it approves as `demo`
    and says so.
    """
    from flows.cli import demo_command

    demo_command.run_demo(settings.load())


@app.command()
@exit_on()
def check(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="The YAML files that describe workloads."),
    ],
) -> None:
    """Check workload files and list every mistake in them; exit code 2 if there is any."""
    from flows import workload_file

    mistakes: list[str] = []
    for config in configs:
        try:
            workload = workload_file.read_workload(config)
            traffic = workload.traffic()
        except workload_file.WorkloadError as error:
            mistakes.append(str(error))
        except (OSError, ImportError) as error:
            mistakes.append(f"{config}: sources: {error}")
        else:
            if traffic.unlisted:
                mistakes += [f"{config}: sources: {why}" for why in traffic.unlisted.values()]
                continue
            kinds = Counter(item.kind for item in traffic.inputs)
            print_line(
                f"{config}: workload {workload.workload}, {kinds['interactions']} log and "
                f"{kinds['feedback']} feedback files, base {workload.base}"
            )
    if mistakes:
        fail("\n".join(mistakes))


@app.command()
@exit_on()
def turn(
    config: ConfigFile,
    by: Annotated[
        str,
        typer.Option(
            "--as",
            help="Your name; where the file has refuse_starter, you can't approve what comes of "
            "it.",
            default_factory=getpass.getuser,
            show_default="your login",
        ),
    ],
    adapter: Annotated[
        str,
        typer.Option(
            help="Judge this adapter again, by its key or its beginning, instead of training one: "
            "where it was inconclusive, and the holdout has grown."
        ),
    ] = "",
) -> None:
    """Run one turn of a workload now, and follow it; the stack must be up (`flywheel up`).

    Ctrl-C stops following the turn, which continues in the stack; the same command joins it again.
    Finished stages are found again by content, so an interrupted turn resumes.
    """
    with errors.status("starting the turn"):
        from flows import home_workloads, workload_file
        from flows.cli import turn_watch

        workload = workload_file.read_workload(config).workload
        home_workloads.adopt(settings.load(), workload, config)
    try:
        turn_watch.follow_turn(config.resolve(), workload, by=by, adapter=adapter)
    except KeyboardInterrupt:
        fail(
            "not followed any more: once started, the turn continues in the stack; the same "
            "command joins it again, its page in Prefect cancels it",
            130,
        )


@app.command()
@exit_on()
def schedule(
    config: ConfigFile,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="End its schedule; all that the workload has is kept."),
    ] = False,
) -> None:
    """Schedule a workload's runs: collecting and turns, at the times in its file.

    Links the file into the home's `workloads/`, in place of another one of the workload, and
    updates the deployments of a stack that is up.
    """
    from flows import home_workloads, workload_file

    if remove:
        _end_schedule(config)
        return
    workload = workload_file.read_workload(config)
    home = settings.load()
    link = home.workloads.resolve() / f"{workload.workload}.yaml"
    file = config.resolve()
    before = link.resolve() if link.is_symlink() else file
    if link != file:
        if link.exists() and not link.is_symlink():
            fail(f"scheduling {config}: {link} is a file of its own; move it away first")
        home_workloads.point(link, file)
    _deploy_again(home)
    looks = f", signs for a turn at `{workload.trigger.schedule}`" if workload.trigger else ""
    print_line(
        f"{workload.workload}: collect at `{workload.collect_schedule}`, "
        f"turn at `{workload.turn_schedule or 'no time'}`{looks} (cron, UTC)"
        + (f"; by {file}, in place of {before}" if before != file else "")
    )


def _end_schedule(config: Path) -> None:
    home = settings.load()
    scheduled = sorted(home.workloads.glob("*.yaml"))
    link = next((link for link in scheduled if link.resolve() == config.resolve()), None)
    if link is None:
        names = ", ".join(str(link.resolve()) for link in scheduled) or "none"
        fail(f"ending the schedule of {config}: it has none; scheduled: {names}")
    if not link.is_symlink():
        fail(f"ending the schedule of {config}: it lies in {home.workloads}; move it away first")
    link.unlink()
    _deploy_again(home)
    print_line(f"{link.stem}: not scheduled any more")


def _deploy_again(home: settings.Settings) -> None:
    from flows.stack import control

    if control.stack_status(home).phase in control.WORKING:
        with console.status("deploying the flows"):
            from flows import deploy  # takes seconds to load

            deploy.deploy_all(home)


def _put_under_headings() -> None:
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    for each in (app, *(module.app for module in MODULES)):
        for command in each.registered_commands:
            name = command.name or getattr(command.callback, "__name__", "")
            command.rich_help_panel = panels[name]
        for group in each.registered_groups:
            if group.name in panels:  # the modules' own have no name
                group.rich_help_panel = panels[group.name]


_put_under_headings()


def main() -> None:
    """Run the command; Prefect and MLflow clients are pointed at this home's stack first."""
    if sys.platform != "linux" and "--help" not in sys.argv:
        print_error(NOT_LINUX.format(sys.platform))
        sys.exit(2)
    try:
        _use_ports_of_running_stack(settings.load())
        home = settings.load()
        words = [word for word in sys.argv[1:] if not word.startswith("-")]
        is_left = words[:1] == ["down"] and not home.home.exists()  # a deleted home's stack runs on
        if is_left or (needs_no_home(words) and not is_home(home)):
            stack_services.point_clients(home, os.environ)
        else:
            prepare_home(home, makes=may_make_home(home, words))
    except (settings.SettingsError, OSError) as error:
        print_error(str(error))
        sys.exit(2)
    try:
        app()
    except Exception as error:
        if (remedy := remedy_of_disk(error, home)) is not None:
            print_error(f"{error}\n{remedy}")
        elif _is_lost_server(error):
            print_error(
                f"Prefect or MLflow went away: {error}\n{home.remedy}, `flywheel status` shows it; "
                "then run the same command again to resume"
            )
        else:
            raise
        sys.exit(1)


def _use_ports_of_running_stack(home: settings.Settings) -> None:
    # It may have been started in another terminal, where the ports were exported.
    state = None
    with suppress(OSError):  # whoever prepares the home says what is wrong with it
        state = None if home.elsewhere else processes.read_state(home)
    if state is not None and processes.is_supervised(state):
        os.environ.setdefault(settings.PREFECT_PORT, str(state.prefect_port))
        os.environ.setdefault(settings.MLFLOW_PORT, str(state.mlflow_port))


def needs_no_home(words: Sequence[str]) -> bool:
    """Return whether a command does without a home; ``words`` are its own."""
    is_shown = words[:1] == ["collect"] and "--dry-run" in sys.argv
    return not words or words[0] in WITHOUT_HOME or "--help" in sys.argv or is_shown


def is_home(home: settings.Settings) -> bool:
    """Return whether a home was made in its folder, which may be any folder that somebody named."""
    is_made = access.logins_path(home.home).exists() or home.has_warehouse
    return is_made or (home.elsewhere is not None and home.home.exists())


def may_make_home(home: settings.Settings, words: Sequence[str]) -> bool:
    """Return whether a command makes a home that is missing; ``words`` are its own.

    Any does on a machine that is one of several: what it works on is elsewhere.
    """
    is_one_of_several = (home.elsewhere, home.shared_warehouse, home.store) != (None, None, None)
    names = {" ".join(words[:1]), " ".join(words[:2])}
    is_making = not MAKING_HOME.isdisjoint(names) and OF_A_GATEWAY.isdisjoint(names)
    ends_something = "--remove" in sys.argv
    return is_one_of_several or (is_making and not ends_something)


def prepare_home(home: settings.Settings, *, makes: bool = True) -> None:
    """Create the home if it is missing, and point this process at its servers with a login.

    Raises:
        SettingsError: It is missing, and is not to be made (``makes``).
        PermissionError: This user may not use it.
        OSError: It can't be made, or isn't a folder.
    """
    if home.home.exists() and not home.home.is_dir():
        raise NotADirectoryError(f"the home {home.home} is not a folder; {OTHER_HOME}")
    try:
        if not home.home.exists() and not makes:
            raise settings.SettingsError(NO_HOME.format(home.home))
        if not home.home.exists() or _is_made_for_it(home.home):
            access.secure_home(home)
        access.set_umask(home.home)
        home.prefect_home.mkdir(parents=True, exist_ok=True)  # Prefect warns when it is missing
        if not home.elsewhere:
            is_up = processes.is_supervised(processes.read_state(home))
            access.ensure_logins(home, {} if is_up else os.environ)
        stack_services.point_clients(home, os.environ)
    except PermissionError as error:
        raise PermissionError(
            f"this user may not use the home {home.home} ({error}); {NOT_THIS_USER}"
        ) from error
    except OSError as error:
        raise OSError(f"making the home {home.home}: {error}; {OTHER_HOME}") from error


def _is_made_for_it(folder: Path) -> bool:
    """Return whether this user made a folder that is still empty: nobody else needs it open."""
    return folder.stat().st_uid == os.geteuid() and not any(folder.iterdir())


def _is_lost_server(error: BaseException | None) -> bool:
    while error is not None:
        if LOST_SERVER.intersection(class_names(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
