"""The append-only journal of changes of champion, in the warehouse."""

import json
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from components.store import file_locks, lake_locks, lock, manifest, warehouse
from components.store.lake import Lake
from components.store.lock import WarehouseBusyError
from components.store.warehouse import Connection, Location

ChangeKind: TypeAlias = Literal["promotion", "rollback"]
ChangeStep: TypeAlias = Literal["intended", "done", "undone"]

PENDING = ".order.json"  # suffix of the files of pending rollbacks


class UnsettledError(RuntimeError):
    """An earlier change of this champion was interrupted and must be recovered first."""


class SettledError(RuntimeError):
    """This change has ended already."""


@dataclass(frozen=True, slots=True)
class ChampionChange:
    """A change of a workload's champion; see ``raw.champion_journal`` for each field."""

    workload_id: str
    kind: ChangeKind
    evidence_digest: str
    adapter_key: str
    version: str
    champion_before: str | None
    adapter_before: str | None
    asked_by: str
    reason: str
    rollout_id: str | None = None
    """The canary that ended with it."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A change: its number among the workload's changes, its last step, and a note on that."""

    number: int
    change: ChampionChange
    step: ChangeStep
    note: str
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """A rollback that was carried out while the warehouse was busy; its row is still missing."""

    change: ChampionChange
    ordered_at: datetime
    flow_run_id: str


@dataclass(frozen=True, slots=True)
class ChampionJournal:
    """The journal: ``open`` opens the warehouse for one row, ``now`` returns the time."""

    open: Callable[[], AbstractContextManager[Connection]]
    now: Callable[[], datetime]

    def intend(
        self, change: ChampionChange, also: Callable[[Connection], None] | None = None
    ) -> JournalEntry:
        """Record an intended change before anything is done; ``also`` writes in the transaction.

        Raises:
            UnsettledError: An earlier change of this workload has not ended.
        """
        return self._begin(change, "intended", also)

    def note(self, change: ChampionChange, also: Callable[[Connection], None]) -> JournalEntry:
        """Record a change for which no alias of the champion moves: a canary that was rolled back.

        ``also`` writes in the same transaction. Raises ``UnsettledError`` as ``intend`` does.
        """
        return self._begin(change, "done", also)

    def _begin(
        self,
        change: ChampionChange,
        step: Literal["intended", "done"],
        also: Callable[[Connection], None] | None,
    ) -> JournalEntry:
        with self.open() as con, warehouse.transaction(con):
            if interrupted := unfinished_changes(con, change.workload_id):
                raise UnsettledError(
                    f"changing the champion of {change.workload_id}: change "
                    f"{interrupted[0].number} was interrupted; recover it first"
                )
            if also is not None:
                also(con)
            number = 1 + len(list_changes(con, change.workload_id))
            entry = JournalEntry(number, change, step, "", self.now())
            _insert_entry(con, entry)
        return entry

    def end(self, entry: JournalEntry, step: Literal["done", "undone"], why: str) -> JournalEntry:
        """Record the end of a change.

        ``entry`` is its intention, ``why`` a note; empty if the change was not interrupted.

        Raises:
            SettledError: It has ended already.
        """
        change = entry.change
        last = JournalEntry(entry.number, change, step, why, self.now())
        with self.open() as con, warehouse.transaction(con):
            unfinished = unfinished_changes(con, change.workload_id)
            if entry.number not in [other.number for other in unfinished]:
                raise SettledError(
                    f"changing the champion of {change.workload_id}: change {entry.number} has an "
                    "end already; another process wrote it"
                )
            _insert_entry(con, last)
        return last


def list_changes(con: Connection, workload: str | None = None) -> list[JournalEntry]:
    """List the changes of a workload, or of all, each with its last step; the oldest first."""
    rows = warehouse.select(con, "marts/champion_changes", workload_id=workload)
    return [_read_entry(dict(row)) for row in rows]


def unfinished_changes(con: Connection, workload: str | None = None) -> list[JournalEntry]:
    """List the changes that have not ended: interrupted, or in progress."""
    return [entry for entry in list_changes(con, workload) if entry.step == "intended"]


def changes_between(
    con: Connection, workload: str, after: datetime, until: datetime
) -> list[JournalEntry]:
    """List the changes that ended then and moved the champion, as the end of no canary does."""
    return [
        entry
        for entry in list_changes(con, workload)
        if entry.step == "done"
        and after < entry.noted_at <= until
        and (entry.change.kind == "promotion" or entry.change.rollout_id is None)
    ]


def rolled_back(con: Connection, workload: str, adapter: str) -> JournalEntry | None:
    """Return the rollback that demoted an adapter, unless it is champion again."""
    touching = [
        entry
        for entry in list_changes(con, workload)
        if entry.step == "done"
        and adapter in (entry.change.adapter_key, entry.change.adapter_before)
    ]
    if not touching or touching[-1].change.adapter_key == adapter:
        return None
    return touching[-1] if touching[-1].change.kind == "rollback" else None


@contextmanager
def lock_champion(
    path: Location, folder: Path, workload: str, *, wait: bool = True
) -> Generator[bool]:
    """Lock a workload's champion against changes; yield whether the lock was acquired.

    Args:
        path: The warehouse; where it is a lake, other machines are locked out, too.
        folder: Folder of the locks, the same for all processes of a home.
        workload: The workload.
        wait: Whether to wait while another process holds the lock.
    """
    with ExitStack() as held:
        is_ours = held.enter_context(file_locks.held(folder / f"{workload}.lock", wait=wait))
        if is_ours and isinstance(path, Lake):
            seconds = lock.PATIENCE_SECONDS if wait else 0
            try:
                held.enter_context(lake_locks.alone(path, f"champion of {workload}", seconds))
            except WarehouseBusyError:
                if wait:
                    raise
                is_ours = False
        yield is_ours


def write_pending(folder: Path, pending: Pending) -> None:
    """Store a rollback until the warehouse is free; the caller holds the workload's lock."""
    content = {
        "change": asdict(pending.change),
        "given_at": pending.ordered_at.isoformat(),
        "flow_run_id": pending.flow_run_id,
    }
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(_file(folder, pending.change.workload_id), json.dumps(content))


def read_pending(folder: Path, workload: str) -> Pending | None:
    """Read a workload's pending rollback; ``None`` if it has none."""
    path = _file(folder, workload)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    ordered_at = datetime.fromisoformat(content["given_at"])
    return Pending(ChampionChange(**content["change"]), ordered_at, content["flow_run_id"])


def drop_pending(folder: Path, workload: str) -> None:
    """Delete a pending rollback after its row is in the journal."""
    _file(folder, workload).unlink(missing_ok=True)


def pending_workloads(folder: Path) -> list[str]:
    """List the workloads that have a pending rollback."""
    return [path.name.removesuffix(PENDING) for path in sorted(folder.glob(f"*{PENDING}"))]


def _file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}{PENDING}"


def _insert_entry(con: Connection, entry: JournalEntry) -> None:
    own = {"number": entry.number, "step": entry.step, "noted_at": entry.noted_at}
    row = {**own, "said": entry.note, **asdict(entry.change)}
    warehouse.insert(con, "raw.champion_journal", [row])


def _read_entry(row: dict[str, warehouse.Value]) -> JournalEntry:
    own = {name: row.pop(name) for name in ("number", "step", "noted_at")}
    note = row.pop("said")
    return JournalEntry(change=ChampionChange(**row), note=note, **own)  # pyright: ignore[reportArgumentType] - of the table
