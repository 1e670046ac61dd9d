"""What a flow takes from who starts it: files of this home only, by the workload's own file.

Whoever reaches Prefect's API starts flows with any parameters. So a file that is named there counts
only where nobody can put one who has nothing but the servers' logins.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from components import manifest
from flows import config as configs
from flows import settings, workload_files, workload_record
from flows.config import ConfigError
from flows.settings import Settings
from flows.workload import Workload
from flows.workload_files import WorkloadFileError


class ForeignPathError(ValueError):
    """A flow was given a path that is not of this home, or not where such things lie."""


def workload(config: str) -> Workload:
    """Read the workload that a flow was started with.

    It is the workload's own file in this home, or the record of a turn that is under way.

    Raises:
        ConfigError: The workload's file has mistakes.
        WorkloadFileError: A server keeps the file.
        ForeignPathError: It is no workload's file in this home, nor the record of a turn under way.
    """
    home, file = settings.load(), Path(config)
    if home.turns.resolve() in file.resolve().parents:
        return _frozen(home.turns, file)
    workload_files.require_unserved(home, file)
    with silent_about(home, file):
        found = configs.read(file)
        workload_files.enter(home, found.workload, file)
    return found


@contextmanager
def silent_about(home: Settings, file: Path) -> Generator[None]:
    """Hide what a file holds from who starts a flow, unless it is a workload's file in this home.

    Raises:
        ForeignPathError: It is not, and there was a mistake in it, or it was not there.
    """
    try:
        yield
    except (ConfigError, WorkloadFileError):
        if file.resolve() in workload_files.known(home):
            raise
        raise ForeignPathError(
            f"starting a flow with the workload's file {file}: this home knows no such file; "
            "`flywheel turn FILE` or `flywheel schedule FILE`, run at this home, makes one known"
        ) from None


def _frozen(turns: Path, path: Path) -> Workload:
    folder = path.resolve().parent
    is_record = path.name == workload_record.NAME and folder.parent.parent == turns.resolve()
    if not is_record or manifest.is_finished(folder):
        raise ForeignPathError(
            f"starting a flow with the workload {path}: expected a workload's file, or "
            f"{turns}/WORKLOAD/RUN/{workload_record.NAME} of a turn that has not ended"
        )
    return workload_record.read(folder)


def within(folder: Path, given: str, what: str) -> Path:
    """Return a path that a flow was given, if it lies in a folder of this home.

    Args:
        folder: Where it must lie, at any depth.
        given: The path.
        what: What it is, for the error.

    Raises:
        ForeignPathError: It lies elsewhere.
    """
    path = Path(given).resolve()
    if folder.resolve() not in path.parents:
        raise ForeignPathError(
            f"starting a flow with the {what} {given}: expected one below {folder}"
        )
    return path
