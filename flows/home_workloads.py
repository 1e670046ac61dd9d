"""The workloads of this home: the file of each, and the record that each of its turns froze.

Whoever starts a flow run cannot choose another file than the workload's own.
"""

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from pydantic import ValidationError

from components.extensions.machines import shared_bases
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, TurnReference
from components.schema import parse_yaml
from components.store import manifest, output_folders
from components.train import candidates
from flows import settings
from flows.settings import Settings
from flows.workload_file import Workload, WorkloadError, read_text, read_workload


class WorkloadFileError(LookupError):
    """A workload has no file in this home, or more than one, or another than the named one."""


class ForeignPathError(ValueError):
    """A flow was started with a path that is not in this home, or not in the expected folder."""


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


def workload_of_run(config: str) -> Workload:
    """Read the workload that a flow was started with: its file in this home, or a turn's record.

    Raises:
        WorkloadError: The workload's file has mistakes.
        WorkloadFileError: A server keeps the file.
        ForeignPathError: It is neither this home's file nor the record of a turn under way.
    """
    home = settings.load()
    file = home.local(config)
    if home.turns.resolve() in file.resolve().parents:
        return _frozen(home, file)
    require_unserved(home, file)
    with _silent_about(home, file):
        workload = read_workload(file)
        enter(home, workload.workload, file)
    return workload


@contextmanager
def _silent_about(home: Settings, file: Path) -> Generator[None]:
    """Hide what a file holds from who starts a flow, unless it is a workload's file in this home.

    A mistake in another file, or a missing one, becomes a ``ForeignPathError`` without details.
    """
    try:
        yield
    except (WorkloadError, WorkloadFileError):
        if file.resolve() in known(home):
            raise
        raise ForeignPathError(
            f"starting a flow with the workload's file {file}: this home knows no such file; "
            "`flywheel turn FILE` or `flywheel schedule FILE`, run at this home, makes one known"
        ) from None


def _frozen(home: Settings, path: Path) -> Workload:
    folder = path.resolve().parent
    is_record = path.name == RECORD and folder.parent.parent == home.turns.resolve()
    if is_record and path.exists() and not output_folders.fetch(folder):
        return read(folder)
    if is_record and not path.exists() and (elsewhere := _read_shared(home, folder)):
        return elsewhere
    raise ForeignPathError(
        f"starting a flow with the workload {path}: expected a workload's file, or "
        f"{home.turns}/WORKLOAD/RUN/{RECORD} of a turn that has not ended"
    )


def path_within(folder: Path, raw_path: str, what: str) -> Path:
    """Return a path that a flow was started with, if it lies below ``folder`` of this home.

    It is returned as the home names it, which may itself be a symbolic link. A finished output of
    another machine is pulled.
    """
    path, root = settings.load().local(raw_path).resolve(), folder.resolve()
    if root not in path.parents:
        raise ForeignPathError(
            f"starting a flow with the {what} {raw_path}: expected one below {folder}"
        )
    inside = folder / path.relative_to(root)
    output_folders.fetch(inside)
    return inside


RECORD = "workload.json"

RULES = ("gate", "approve", "serve")  # the sections that the workload's file has the last word on


class RecordChangedError(ValueError):
    """A turn's workload differs from the one that its evidence was made with."""


BASES = "bases.json"  # beside the record, if machines share a store: the bases' content hashes


def begin(folder: Path, workload: Workload) -> None:
    """Freeze the workload of a turn, which counts as under way from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.NAME).unlink(missing_ok=True)
    _write(folder, workload)


def share(home: Settings, folder: Path, workload: Workload) -> None:
    """Let other machines read a turn's workload and its bases, if the home has a store."""
    if home.store is None:
        return
    keys = {str(path): shared_bases.push(home.store, path) for path in workload.bases()}
    manifest.write_atomically(folder / BASES, json.dumps(keys))
    home.publish(folder / BASES)
    home.publish(folder / RECORD)  # last: with it the turn is under way on every machine


def withhold(home: Settings, folder: Path) -> None:
    """End what ``share`` began: other machines start nothing with this turn's workload."""
    if home.store:  # its record stays: whichever machine promotes holds it to the evidence
        home.store.remove_file(home.portable(folder / BASES))


def _read_shared(home: Settings, folder: Path) -> Workload | None:
    """Read a turn of another machine, with its bases where this machine has them."""
    folder = home.turns / folder.relative_to(home.turns.resolve())
    text, keys = home.read(folder / RECORD), home.read(folder / BASES)
    if text is None or keys is None:
        return None
    workload = Workload.model_validate_json(text)
    places = {
        path: shared_bases.local_base(home.models, Path(path), key)
        for path, key in json.loads(keys).items()
    }
    moved = {path: str(place) for path, place in places.items() if path != str(place)}
    search = workload.search
    if search is not None and candidates.BASE_KNOB in search.over:
        tried = [moved.get(str(path), path) for path in search.over[candidates.BASE_KNOB]]
        over = search.over | {candidates.BASE_KNOB: tried}
        search = search.model_copy(update={"over": over})
    return workload.model_copy(
        update={
            "base": places[str(workload.base)],
            "base_served_as": workload.base_name,  # as the turn's own machine names it
            "search": search,
        }
    )


def original_base(base: Path) -> Path:
    """Return where a base is on the machine whose turn uses it, if this machine pulled it."""
    if base.parent != settings.load().models or not (base / manifest.NAME).exists():
        return base
    path: object = json.loads((base / manifest.NAME).read_text()).get("path")
    return Path(path) if isinstance(path, str) else base


def _write(folder: Path, workload: Workload) -> None:
    record = workload.model_dump(mode="json", by_alias=True)
    # It matters whether a utilization was set or is the default; other defaults are frozen, too.
    record["cost"] = workload.cost.model_dump(mode="json", exclude_unset=True)
    record["curate"]["most_lost"] = workload.curate.most_lost  # no part of a snapshot's key
    manifest.write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")


def read(folder: Path) -> Workload:
    """Read the record of a turn."""
    return Workload.model_validate_json((folder / RECORD).read_text())


def reference(folder: Path) -> TurnReference:
    """Return the reference to a turn and its record that its evidence stores."""
    return TurnReference(folder.name, manifest.file_digest(folder / RECORD))


def under_way(turns: Path, run_id: str) -> Path | None:
    """Find the folder of a turn that froze its workload and has not ended."""
    # A finished turn that is run again is a new one, with the workload's current file.
    for path in turns.glob(f"*/{run_id}/{RECORD}"):
        if not output_folders.fetch(path.parent):
            return path.parent
    return None


def of_evidence(home: Settings, about: Evidence) -> Workload | None:
    """Read the workload that evidence was made with; ``None`` if no turn known here froze it.

    Raises:
        RecordChangedError: The record differs from the one that the evidence refers to.
        WorkloadFileError: Another machine took the turn, and this one has no file of the workload.
    """
    name, made_by = about.subject.workload, evidence_folder.turn(about.folder)
    if made_by is None:
        return None
    folder = home.turns / name / made_by.run_id
    text = home.read(folder / RECORD)
    if text is None:
        return None
    if not (folder / RECORD).exists():
        require(home, name)  # else rules that were tightened since would not hold
    digest = hashlib.sha256(text.encode()).hexdigest()
    if made_by.workload_digest != digest:
        raise RecordChangedError(
            f"reading {folder / RECORD}: evidence {about.digest} was made with another workload, "
            "so the record was changed since; start a new turn"
        )
    return _parse_record(text)


def _parse_record(text: str) -> Workload:
    """Parse a record, which may be of an earlier version and have settings that are gone by now.

    A rule of the gate, of approvers or of the rollout that nobody knows any more raises.
    """
    try:
        return Workload.model_validate_json(text)
    except ValidationError as error:
        gone = [each["loc"] for each in error.errors() if each["type"] == "extra_forbidden"]
        if len(gone) < error.error_count() or any(loc[0] in RULES for loc in gone):
            raise
    record: Any = json.loads(text)
    for *steps, name in gone:
        section = record
        for step in steps:
            if not isinstance(section, dict) or step in section:  # else the kind of a union
                section = section[step]
        del section[name]
    return Workload.model_validate_json(json.dumps(record))


def in_force(home: Settings, frozen: Workload) -> Workload:
    """Return a frozen workload with the current policy, approvers and rollout of its file.

    If the file is missing, the frozen ones stay in force. ``WorkloadFileError``: the file describes
    another workload by now.
    """
    file = find(home, frozen.workload)
    if file is None or not file.exists():
        return frozen
    now = read_workload(file)
    if now.workload != frozen.workload:
        raise WorkloadFileError(
            f"reading the rules of {frozen.workload}: its file {file} describes {now.workload}"
        )
    return frozen.model_copy(update={name: getattr(now, name) for name in RULES})
