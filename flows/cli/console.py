"""What commands print with, their exit codes for known errors, and how they open the warehouse."""

import errno
import os
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.status import Status
from rich.table import Table
from rich.text import Text

from components.pages.visible_text import visible
from flows import settings

if TYPE_CHECKING:
    from components.store.warehouse import Connection

FILE_COLUMNS = 1000
MAX_COLUMNS = 500

MAKE_ROOM = "make room there, then run the same command again to resume"

NOT_THIS_USER = (
    "set FLYWHEEL_HOME to one's own, or ask its owner to share it with a group (infra/access.md)"
)

OTHER_HOME = "set FLYWHEEL_HOME to a folder that this user can write to, or to one not yet made"

NOT_LINUX = (
    "this machine runs {}: Flywheel runs on Linux, whose calls it uses for processes, memory and "
    "files (prctl, /proc, RLIMIT_AS, fallocate); install it in a Linux virtual machine or container"
)
NO_HOME = (
    "there is no home {}; set FLYWHEEL_HOME to the one that is meant, or make this one: "
    "`flywheel up`"
)


class PlainConsole(Console):
    """Prints text as it is: a log line is no markup, and its control characters steer no terminal.

    Here and not at each print, as what is printed comes from logs, files and people. Titles of
    panels are markup nevertheless.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, emoji=False, markup=False)
        if width is None and not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = FILE_COLUMNS  # at 80, a file or a pipe gets paths in pieces

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401  Rich's own options
        """Return the text that is laid out, before its width counts."""
        return super().render_str(visible(text), **options)

    def status(self, status: RenderableType, **options: Any) -> Status:  # noqa: ANN401 - as above
        """Return a spinner beside a text; it must be used as a context manager."""
        return PlainStatus(status, console=self, **options)


class PlainStatus(Status):
    """A spinner beside a text, which is no markup, either."""

    def __init__(self, status: RenderableType, **options: Any) -> None:  # noqa: ANN401 - as above
        super().__init__(_as_it_is(status), **options)

    def update(self, status: RenderableType | None = None, **options: Any) -> None:  # noqa: ANN401
        """Show another text."""
        super().update(None if status is None else _as_it_is(status), **options)


def _as_it_is(text: RenderableType) -> RenderableType:
    return Text(visible(text)) if isinstance(text, str) else text


console = PlainConsole()
errors = PlainConsole(stderr=True)

# Errors whose message a person can act on, and the exit code: 2 where another command or input is
# needed, 1 where the same command may succeed later. By name, since importing them takes seconds.
EXIT_CODES = {
    "components.chat.chat_templates.TemplateChangedError": 2,
    "components.collect.importers.UnknownSourceError": 2,
    "components.curate.ray_pool.RayPoolError": 1,
    "components.curate.worker_pool.WorkerKilledError": 1,
    "components.curate.split.SplitChangedError": 2,
    "components.dataset.freeze_snapshot.EmptySideError": 2,
    "components.erase.tables.WarehouseCopyError": 2,
    "components.evaluate.engines.adapter_checks.AdapterNotAppliedError": 2,
    "components.home_archive.BackupError": 1,
    "components.receive.client_tokens.TokenError": 2,
    "components.receive.serve.PortError": 1,
    "components.release.release_state.RollbackError": 1,
    "components.serve.response_id.ResponseKeyError": 2,
    "components.store.warehouse_port.WarehouseError": 2,
    "components.store.warehouse_port.WarehouseConflictError": 1,
    "components.extensions.machines.moved_tables.MovedTablesError": 2,
    "components.store.shared_files.DamagedObjectError": 1,
    "components.store.shared_files.StoreError": 1,
    "components.store.warehouse.CheckFailedError": 2,
    "components.store.warehouse.WarehouseVersionError": 2,
    "flows.approvals.NotTakenError": 1,
    "flows.approver_keys.SigningError": 1,
    "flows.canary.canary_rollouts.RolloutError": 1,
    "flows.cli.turn_watch.TurnError": 1,
    "flows.evaluate.LearnedError": 2,
    "flows.prune.prune_outputs.PruneBusyError": 1,
    "flows.gateway_status.NotServingError": 1,
    "flows.gateway_status.ServeFileError": 2,
    "flows.home_workloads.WorkloadFileError": 2,
    "flows.jobs.runner.JobError": 1,
    "flows.lookup.NoMlflowError": 1,
    "flows.settings.SettingsError": 2,
    "flows.stack.control.StackError": 1,
    "flows.stack.gateway_service.GatewayRunsError": 1,
    "flows.validation.NoRowsError": 2,
    "flows.workload_file.WorkloadError": 2,
    "httpx.HTTPStatusError": 1,
}


@contextmanager
def exit_on(*known: type[Exception], code: int | None = None) -> Generator[None]:
    """Print the message of a known error, without a traceback, and exit; other errors are bugs.

    Also a decorator of commands.

    Args:
        known: Known errors besides those of ``EXIT_CODES``; their exit code is 2, of a full disk 1.
        code: The exit code of all of them instead.
    """
    try:
        yield
    except KeyboardInterrupt:
        _exit_interrupted()
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            _exit_interrupted()  # so DuckDB reports Ctrl-C during a query
        names = class_names(error)
        own = next((EXIT_CODES[name] for name in names if name in EXIT_CODES), None)
        is_bug = isinstance(error, KeyError | IndexError)  # a message is a plain LookupError
        if own is None and (is_bug or not (isinstance(error, known) or _names_file(error))):
            raise
        print_error(str(error))
        if is_full(error):
            own = code = 1
            if getattr(error, "errno", None) == errno.ENOSPC:  # ours say what to do
                print_error(MAKE_ROOM)
        raise typer.Exit(code or own or 2) from error


def _names_file(error: Exception) -> bool:
    # The system refused a path: too long, not a folder, a link to itself. People type such.
    is_loop = isinstance(error, RuntimeError) and str(error).startswith("Symlink loop")
    is_refused = is_loop or (isinstance(error, OSError) and error.filename is not None)
    return is_refused and remedy_of_disk(error, settings.load()) is None


def remedy_of_disk(error: Exception, home: settings.Settings) -> str | None:
    """Return what helps where nothing can be written; ``None`` for other errors."""
    text = str(error)  # DuckDB's has the system's words, too
    if os.strerror(errno.EROFS) in text:
        return (
            "Linux mounts a disk read-only after an error of it (`dmesg`): mount it writable "
            f"again, or {OTHER_HOME}"
        )
    if is_full(error):
        return MAKE_ROOM
    if isinstance(error, PermissionError) and str(home.home) in text:
        return NOT_THIS_USER
    return None


def is_full(error: Exception) -> bool:
    """Return whether a disk has no room; DuckDB's errors have the system's words, too."""
    return os.strerror(errno.ENOSPC) in str(error)


def _exit_interrupted() -> NoReturn:
    print_error("interrupted; run the same command again to resume")
    raise typer.Exit(130) from None


def class_names(error: BaseException) -> list[str]:
    """Return the full names of an error's class and of its bases."""
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]


def print_line(text: str) -> None:
    """Print text without wrapping it."""
    console.print(text, soft_wrap=True)


def print_sentence(text: str, indent: str = "  ") -> None:
    """Print prose: on a terminal in lines that end with a word, elsewhere as one line."""
    print_line(wrapped(text, indent, console.width if console.is_terminal else None))


def wrapped(text: str, indent: str, width: int | None) -> str:
    """Return indented text, broken between words to lines of at most ``width`` if they can be."""
    lines = (
        [text]
        if width is None
        else textwrap.wrap(
            text, width - len(indent), break_long_words=False, break_on_hyphens=False
        )
    )
    return "\n".join(indent + line for line in lines)


def print_whole(table: Table) -> None:
    """Print a table of figures, wider than the terminal if need be.

    Else columns that may wrap shrink to nothing beside those that must not, names first.
    """
    PlainConsole(width=MAX_COLUMNS).print(table)


def print_error(text: str) -> None:
    """Print text to stderr without wrapping it."""
    errors.print(text, soft_wrap=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error and exit."""
    print_error(message)
    raise typer.Exit(code)


def has_person() -> bool:
    """Return whether there is a person to ask: both ends of the terminal are one."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def shorten(text: str, most: int) -> str:
    """Return a text, or the beginning of a longer one."""
    return text if len(text) <= most else text[:most] + " ..."


def new_table(*columns: str, is_counted: bool = False) -> Table:
    """Return a table without lines; a first column of counts is aligned to the right."""
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # a truncated figure or id would be another one
    if is_counted:
        table.columns[0].justify = "right"
    return table


@contextmanager
def open_warehouse(memory: str | None = None) -> "Generator[Connection]":
    """Open the home's warehouse; exit with 2 if another process holds it or it is newer."""
    from components.store import warehouse

    with exit_on(OSError), warehouse.connect(settings.load().tables, memory=memory) as con:
        yield con


@contextmanager
def open_telemetry() -> "Generator[Connection]":
    """Open the warehouse for what was collected, as ``open_warehouse`` does."""
    from components.store import warehouse

    place, memory = settings.load().tables, warehouse.COLLECTING
    with exit_on(OSError), warehouse.connect(place, memory=memory, writes=["raw"]) as con:
        yield con


def home_with_warehouse(purpose: str) -> settings.Settings:
    """Return the home; exit with 2 where it has no warehouse yet."""
    home = settings.load()
    if not home.has_warehouse:
        fail(f"{purpose}: there is no warehouse at {home.tables}")
    return home
