"""What a home keeps about champions beside its warehouse: locks, pending rollbacks, a snapshot.

The snapshot is what a rollback goes by while others hold the warehouse, and what the gateway holds
MLflow's alias against. It lies where no server writes, and holds no names. A rollback based on it
is checked against the chain later.
"""

import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from components.decide.approvers import Approver, Approving
from components.register.version_tags import KNOWN, PENDING
from components.release.release_state import ChampionChange, ReleaseState
from components.store import file_locks, lock, manifest
from components.store.lock import WarehouseBusyError
from components.store.warehouse import Connection, Location


class UnreadableRulesError(Exception):
    """The workload's file can't be read, or has mistakes."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The warehouse and the folders of one home, who may decide there, and its trials.

    ``approving`` reads who may decide from a workload's file, ``None`` without a file, or raises
    ``UnreadableRulesError``. ``secret`` finds the secret of an approver's codes. ``trial_version``
    returns the version that proves itself on a workload's traffic; ``end_trial`` ends that, and
    takes the reason.
    """

    tables: Location
    has_warehouse: bool
    locks: Path
    keys: Path
    adapters: Path
    evidence: Path
    approving: Callable[[str], Approving | None]
    secret: Callable[[Approver], str | None]
    trial_version: Callable[[Connection, str], str | None]
    end_trial: Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Pending:
    """A rollback that was carried out while the warehouse was busy; its link is still missing."""

    change: ChampionChange
    ordered_at: Annotated[datetime, Field(alias="given_at")]
    flow_run_id: str


PENDINGS = TypeAdapter(Pending)


@contextmanager
def lock_champion(
    path: Location, folder: Path, workload: str, *, wait: bool = True
) -> Generator[bool]:
    """Lock a workload's champion against changes; yield whether the lock was acquired.

    Args:
        path: The warehouse; where it is shared, other machines are locked out, too.
        folder: Folder of the locks, the same for all processes of a home.
        workload: The workload.
        wait: Whether to wait while another process holds the lock.
    """
    with ExitStack() as held:
        is_ours = held.enter_context(file_locks.held(folder / f"{workload}.lock", wait=wait))
        if is_ours and not isinstance(path, Path):
            seconds = lock.PATIENCE_SECONDS if wait else 0
            try:
                held.enter_context(path.alone(f"champion of {workload}", seconds))
            except WarehouseBusyError:
                if wait:
                    raise
                is_ours = False
        yield is_ours


def write_pending(folder: Path, pending: Pending) -> None:
    """Store a rollback until the warehouse is free; the caller holds the workload's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    text = PENDINGS.dump_json(pending, by_alias=True).decode()
    manifest.write_atomically(_file(folder, pending.change.workload_id), text)


def read_pending(folder: Path, workload: str) -> Pending | None:
    """Read a workload's pending rollback; ``None`` if it has none."""
    path = _file(folder, workload)
    return PENDINGS.validate_json(path.read_bytes()) if path.exists() else None


def drop_pending(folder: Path, workload: str) -> None:
    """Delete a pending rollback after its link is in the chain."""
    _file(folder, workload).unlink(missing_ok=True)


def pending_workloads(folder: Path) -> list[str]:
    """List the workloads that have a pending rollback."""
    return [path.name.removesuffix(PENDING) for path in sorted(folder.glob(f"*{PENDING}"))]


def _file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}{PENDING}"


@dataclass(frozen=True, slots=True)
class KnownChampions:
    """A workload's champions, without the changes themselves; MLflow followed ``through`` a link.

    ``is_open``: anybody may order a rollback, by any name. ``followed_at`` is when MLflow's alias
    followed that link; before it follows a later one, ``state`` has that already.
    """

    state: ReleaseState
    is_open: bool
    through: str
    followed_at: datetime


def write_known(folder: Path, workload: str, known: KnownChampions) -> None:
    """Write the known champions; the caller holds the workload's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "champion": known.state.champion,
        "approved": sorted(map(list, known.state.approved)),
        "before": dict(known.state.before),
        "left": sorted(known.state.left),
        "is_open": known.is_open,
        "through": known.through,
        "followed_at": known.followed_at.isoformat(),
    }
    manifest.write_atomically(_known_file(folder, workload), json.dumps(content))


def read_known(folder: Path, workload: str) -> KnownChampions | None:
    """Read the known champions; ``None`` before the first promotion."""
    path = _known_file(folder, workload)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    approved = frozenset((number, evidence) for number, evidence in content["approved"])
    left = frozenset(content["left"])
    state = ReleaseState(content["champion"], approved, content["before"], left)
    followed_at = datetime.fromisoformat(content["followed_at"])
    return KnownChampions(state, content["is_open"], content["through"], followed_at)


def _known_file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}{KNOWN}"
