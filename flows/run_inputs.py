"""What a flow takes from who starts it: files of this home only, by the workload's own file.

Whoever reaches Prefect's API starts flows with any parameters. So a file that is named there counts
only where nobody can put one who has nothing but the servers' logins.
"""

from pathlib import Path

from flows import config as configs
from flows import settings, workload_files
from flows.workload import Workload


class ForeignPathError(ValueError):
    """A flow was given a path that is not of this home, or not where such things lie."""


def workload(config: str) -> Workload:
    """Read the file that a flow was given, if it is the workload's own in this home.

    Raises:
        ConfigError: It has mistakes.
        WorkloadFileError: It is not the workload's.
    """
    home, file = settings.load(), Path(config)
    workload_files.require_unserved(home, file)
    found = configs.read(file)
    workload_files.enter(home, found.workload, file)
    return found


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
