"""A turn's workload: its file is parsed once, when the turn begins, and frozen in its folder.

An edit of the file changes the next turn and not this one, which reads the record however often it
is retried or resumed. Who may approve, and by which policy, is what the file says at that time.
"""

import json
from pathlib import Path

from components import manifest
from components.gate import evidence
from components.gate.evidence import Evidence, TurnReference
from flows import config as configs
from flows import workload_files
from flows.settings import Settings
from flows.workload import Workload
from flows.workload_files import WorkloadFileError

NAME = "workload.json"


class RecordChangedError(ValueError):
    """A turn's workload is not the one that its evidence was made with."""


def begin(folder: Path, workload: Workload) -> None:
    """Freeze the workload of a turn, which has not ended from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.NAME).unlink(missing_ok=True)
    _write(folder, workload)


def _write(folder: Path, workload: Workload) -> None:
    record = workload.model_dump(mode="json", by_alias=True)
    # It matters whether a utilization was set or is the default; other defaults are frozen, too.
    record["cost"] = workload.cost.model_dump(mode="json", exclude_unset=True)
    manifest.write_atomically(folder / NAME, json.dumps(record, indent=2) + "\n")


def read(folder: Path) -> Workload:
    """Read the record of a turn; ``FileNotFoundError`` where an older version began it."""
    return Workload.model_validate_json((folder / NAME).read_text())


def reference(folder: Path) -> TurnReference:
    """Refer to a turn and its record, as evidence of it does."""
    return TurnReference(folder.name, manifest.file_digest(folder / NAME))


def under_way(turns: Path, run_id: str) -> Path | None:
    """Find the folder of a turn that froze its workload and has not ended.

    A finished turn that is run again is a new one, by the workload's file of today.
    """
    for path in turns.glob(f"*/{run_id}/{NAME}"):
        if not manifest.is_finished(path.parent):
            return path.parent
    return None


def of_evidence(turns: Path, about: Evidence) -> Workload | None:
    """Read the workload that evidence was made with; ``None`` where no turn here froze it.

    Raises:
        RecordChangedError: The record is another one than the evidence refers to.
    """
    made_by = evidence.turn(about.folder)
    folder = turns / about.subject.workload / made_by.run_id if made_by else _older(turns, about)
    if folder is None or not (folder / NAME).exists():
        return None
    if made_by and reference(folder) != made_by:
        raise RecordChangedError(
            f"reading {folder / NAME}: evidence {about.digest} was made with another workload, so "
            "the record was changed since; start a new turn"
        )
    return read(folder)


def adopt(turns: Path, about: Evidence, workload: Workload) -> None:
    """Freeze the workload of evidence whose turn an older version began, in that turn's folder."""
    if folder := _older(turns, about):
        _write(folder, workload)


def _older(turns: Path, about: Evidence) -> Path | None:
    """Find the turn whose manifest names the evidence."""
    for path in sorted(turns.glob(f"{about.subject.workload}/*/{manifest.NAME}")):
        if Path(str(manifest.read(path.parent).get("evidence"))).name == about.digest:
            return path.parent
    return None


def in_force(home: Settings, frozen: Workload) -> Workload:
    """Return a frozen workload with the policy and the approvers that its file has by now.

    Where the file is gone, those that were frozen stay in force.

    Raises:
        ConfigError: The file has mistakes.
        WorkloadFileError: The file describes another workload by now.
    """
    file = workload_files.find(home, frozen.workload)
    if file is None or not file.exists():
        return frozen
    now = configs.read(file)
    if now.workload != frozen.workload:
        raise WorkloadFileError(
            f"reading the rules of {frozen.workload}: its file {file} describes {now.workload}"
        )
    return frozen.model_copy(update={"gate": now.gate, "approve": now.approve})
