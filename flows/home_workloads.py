"""Which file is a workload's own in this home; whoever starts a flow run cannot choose another."""

import errno
from pathlib import Path
from uuid import uuid4

import yaml

from components.schema import parse_yaml
from components.store import output_folders
from flows.settings import Settings

MAX_BYTES = 2**20  # a workload's file has some kilobytes; what is larger is another file


class WorkloadFileError(LookupError):
    """A workload has no file in this home, or more than one, or another than the named one."""


def read_text(file: Path) -> str:
    """Read a workload's file; ``OSError`` unless it is a regular file of at most 1 MiB."""
    if file.exists() and not file.is_file():  # a pipe would never end
        raise OSError(errno.EINVAL, "it is not a regular file")
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, "it is larger than 1 MiB")
    return content.decode()


def find(home: Settings, workload: str) -> Path | None:
    """Find a workload's file; ``None`` if it has none, ``WorkloadFileError`` if it has two."""
    files = sorted(home.workloads.glob("*.yaml"))
    scheduled = [file for file in files if workload_of(file) == workload]
    if len(scheduled) > 1:
        raise WorkloadFileError(
            f"looking up the file of workload {workload}: "
            f"{' and '.join(map(str, scheduled))} are both of it; remove one"
        )
    if scheduled:
        return scheduled[0].resolve()
    link = _link(home, workload)
    return link.resolve() if link.exists() else None


def require(home: Settings, workload: str) -> Path:
    """Find a workload's file; ``WorkloadFileError`` if this home has none, or two."""
    file = find(home, workload)
    if file is None:
        raise WorkloadFileError(
            f"looking up the file of workload {workload}: {home.home} knows none; "
            "`flywheel turn FILE` or `flywheel schedule FILE`, run at this home, makes it known"
        )
    return file


def known(home: Settings) -> set[Path]:
    """List the files of this home's workloads, scheduled or not."""
    links = [*home.workloads.glob("*.yaml"), *home.workloads.glob("unscheduled/*.yaml")]
    return {link.resolve() for link in links}


def adopt(home: Settings, workload: str, file: Path) -> None:
    """Make a file the workload's; ``WorkloadFileError`` if another is scheduled."""
    require_unserved(home, file)
    known = find(home, workload)
    if known == file.resolve():
        return
    if known is not None and not _is_unscheduled(home, workload, known):
        raise WorkloadFileError(
            f"using {file} for workload {workload}: this home's file of it is {known}, whose rules "
            f"hold; `flywheel schedule {file}` makes it the other one"
        )
    point(_link(home, workload), file.resolve())


def point(link: Path, file: Path) -> None:
    """Point a new or an old link at a file, in one step: without it the workload has no file."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{uuid4().hex}")
    fresh.symlink_to(file)
    fresh.replace(link)


def require_unserved(home: Settings, file: Path) -> None:
    """Refuse, unread, a file that whoever has a server's login could have written."""
    for folder in (home.mlflow_home, home.prefect_home):
        if file.resolve().is_relative_to(folder.resolve()):
            raise WorkloadFileError(
                f"using {file} as a workload's: it lies in {folder}, where a server of this home "
                "keeps what its clients send; keep it elsewhere"
            )


def enter(home: Settings, workload: str, file: Path) -> None:
    """Let a turn run on a file: the workload's own, or the first of a workload without evidence."""
    known = find(home, workload)
    if known is None and not output_folders.names(home.evidence / workload):
        adopt(home, workload, file)
    elif (known or require(home, workload)) != file.resolve():
        raise WorkloadFileError(
            f"turning {workload} by {file}: this home's file of it is {known}; "
            f"`flywheel turn {file}` or `flywheel schedule {file}`, run at this home, changes that"
        )


def _is_unscheduled(home: Settings, workload: str, known: Path) -> bool:
    link = _link(home, workload)
    return link.exists() and link.resolve() == known


def _link(home: Settings, workload: str) -> Path:
    return home.workloads / "unscheduled" / f"{workload}.yaml"


def workload_of(file: Path) -> str:
    """Return the workload that a file names; of one that can't be read, the file's own name."""
    try:
        content = parse_yaml(read_text(file), file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return file.stem  # one that can't be read is of the workload that it is named after
    return str(content.get("workload", file.stem)) if isinstance(content, dict) else file.stem
