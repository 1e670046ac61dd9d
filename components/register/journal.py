"""The append-only journal of changes of champion, in the warehouse."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from components.store import file_locks, manifest, warehouse
from components.store.warehouse import Connection

ChangeKind: TypeAlias = Literal["promotion", "rollback"]
ChangeStep: TypeAlias = Literal["intended", "done", "undone"]

PENDING = ".order.json"
"""How the files of pending rollbacks end."""


class UnsettledError(RuntimeError):
    """An earlier change of this champion was interrupted and has to be recovered first."""


class SettledError(RuntimeError):
    """This change has an end already."""


@dataclass(frozen=True, slots=True)
class ChampionChange:
    """A change of a workload's champion; see ``raw.champion_journal`` for each field."""

    workload_id: str
    kind: ChangeKind
    evidence_digest: str
    adapter_key: str
    version: str | None
    champion_before: str | None
    adapter_before: str | None
    asked_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A change in the journal: its number among the workload's changes, and its last step."""

    number: int
    change: ChampionChange
    step: ChangeStep
    said: str
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """A rollback that was carried out while others held the warehouse, and when it was ordered."""

    change: ChampionChange
    ordered_at: datetime
    flow_run_id: str


@dataclass(frozen=True, slots=True)
class ChampionJournal:
    """Where changes are written: ``open`` opens the warehouse for one row, ``now`` is the time."""

    open: Callable[[], AbstractContextManager[Connection]]
    now: Callable[[], datetime]

    def intend(
        self, change: ChampionChange, also: Callable[[Connection], None] | None = None
    ) -> JournalEntry:
        """Write what is to be done, before any of it is.

        Args:
            change: All of it.
            also: Writes what must stand or fall with the intention, in its transaction.

        Raises:
            UnsettledError: An earlier change of this workload has no end.
        """
        with self.open() as con, warehouse.transaction(con):
            if interrupted := unfinished_changes(con, change.workload_id):
                raise UnsettledError(
                    f"changing the champion of {change.workload_id}: change "
                    f"{interrupted[0].number} was interrupted; recover it first"
                )
            if also is not None:
                also(con)
            number = 1 + len(list_changes(con, change.workload_id))
            entry = JournalEntry(number, change, "intended", "", self.now())
            _insert_entry(con, entry)
        return entry

    def end(
        self, entry: JournalEntry, change: ChampionChange, step: Literal["done", "undone"], why: str
    ) -> JournalEntry:
        """Write how a change ended, and why.

        Args:
            entry: Its intention.
            change: What was done, with the version's number.
            step: How it ended.
            why: Why it ended so; empty where nothing interrupted it.

        Raises:
            SettledError: It has an end already.
        """
        last = JournalEntry(entry.number, change, step, why, self.now())
        with self.open() as con, warehouse.transaction(con):
            if entry.number not in [
                other.number for other in unfinished_changes(con, change.workload_id)
            ]:
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
    """List the changes that have no end: interrupted, or under way."""
    return [entry for entry in list_changes(con, workload) if entry.step == "intended"]


def rolled_back(con: Connection, workload: str, adapter: str) -> JournalEntry | None:
    """Return the rollback that took the champion's place from an adapter, unless it is back."""
    touching = [
        entry
        for entry in list_changes(con, workload)
        if entry.step == "done"
        and adapter in (entry.change.adapter_key, entry.change.adapter_before)
    ]
    last = touching[-1] if touching else None
    if last is None or last.change.adapter_key == adapter or last.change.kind != "rollback":
        return None
    return last


def lock_champion(
    folder: Path, workload: str, *, wait: bool = True
) -> AbstractContextManager[bool]:
    """Keep others from changing a workload's champion; yield whether the lock is ours.

    Args:
        folder: Where the locks are, one folder for all who share the warehouse.
        workload: Whose champion.
        wait: Wait for another process that has the lock; else give up at once.
    """
    return file_locks.held(folder / f"{workload}.lock", wait=wait)


def write_pending(folder: Path, pending: Pending) -> None:
    """Keep a rollback until the warehouse can be written; the caller holds the workload's lock."""
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
    # Older homes wrote where `previous` was, too.
    change = ChampionChange(
        **{field.name: content["change"][field.name] for field in fields(ChampionChange)}
    )
    ordered_at = datetime.fromisoformat(content["given_at"])
    return Pending(change, ordered_at, content["flow_run_id"])


def drop_pending(folder: Path, workload: str) -> None:
    """Delete the file of a rollback whose row is in the journal."""
    _file(folder, workload).unlink(missing_ok=True)


def pending_workloads(folder: Path) -> list[str]:
    """List the workloads that have a pending rollback."""
    return [path.name.removesuffix(PENDING) for path in sorted(folder.glob(f"*{PENDING}"))]


def _file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}{PENDING}"


def _insert_entry(con: Connection, entry: JournalEntry) -> None:
    line = {
        "number": entry.number,
        "step": entry.step,
        "said": entry.said,
        "noted_at": entry.noted_at,
        **asdict(entry.change),
    }
    warehouse.insert(con, "raw.champion_journal", [line])


def _read_entry(row: dict[str, warehouse.Value]) -> JournalEntry:
    own = {name: row.pop(name) for name in ("number", "step", "said", "noted_at")}
    return JournalEntry(change=ChampionChange(**row), **own)  # pyright: ignore[reportArgumentType] - of the table
