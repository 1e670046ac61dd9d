"""The append-only journal of each workload's champion: what a change intends, and how it ended.

`intended` is written before MLflow's alias moves, with all that is needed to carry the change out
again or to undo it; `done` or `undone` after that. The warehouse is held for these rows only, never
during a call of MLflow. A rollback does not wait for a warehouse that others hold: its row waits
in a file. One process at a time changes a workload's champion. The system releases its lock when it
dies, so a change without an end whose lock is free was interrupted.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from components import manifest, warehouse
from components.store import file_locks
from components.warehouse import Connection

Kind: TypeAlias = Literal["promotion", "rollback"]
Step: TypeAlias = Literal["intended", "done", "undone"]

PENDING = ".order.json"
"""How the files of pending rollbacks end."""


class UnsettledError(RuntimeError):
    """An earlier change of this champion was interrupted and has to be recovered first."""


class SettledError(RuntimeError):
    """This change has an end already."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a workload's champion; see ``raw.champion_journal`` for each field."""

    workload_id: str
    kind: Kind
    evidence_digest: str
    adapter_key: str
    version: str | None
    champion_before: str | None
    adapter_before: str | None
    asked_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A change in the journal: its number among the workload's changes, and its last step."""

    number: int
    change: Change
    step: Step
    said: str
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """A rollback that was carried out while others held the warehouse, and when it was ordered."""

    change: Change
    ordered_at: datetime
    flow_run_id: str


@dataclass(frozen=True, slots=True)
class Journal:
    """Where changes are written: ``open`` opens the warehouse for one row, ``now`` is the time."""

    open: Callable[[], AbstractContextManager[Connection]]
    now: Callable[[], datetime]

    def intend(self, change: Change, also: Callable[[Connection], None] | None = None) -> Entry:
        """Write what is to be done, before any of it is.

        Args:
            change: All of it.
            also: Writes what must stand or fall with the intention, in its transaction.

        Raises:
            UnsettledError: An earlier change of this workload has no end.
        """
        with self.open() as con, warehouse.transaction(con):
            if interrupted := unfinished(con, change.workload_id):
                raise UnsettledError(
                    f"changing the champion of {change.workload_id}: change "
                    f"{interrupted[0].number} was interrupted; recover it first"
                )
            if also is not None:
                also(con)
            number = 1 + len(changes(con, change.workload_id))
            entry = Entry(number, change, "intended", "", self.now())
            _insert(con, entry)
        return entry

    def end(self, entry: Entry, change: Change, step: Literal["done", "undone"], why: str) -> Entry:
        """Write how a change ended, and why.

        Args:
            entry: Its intention.
            change: What was done, with the version's number.
            step: How it ended.
            why: Why it ended so; empty where nothing interrupted it.

        Raises:
            SettledError: It has an end already.
        """
        last = Entry(entry.number, change, step, why, self.now())
        with self.open() as con, warehouse.transaction(con):
            if entry.number not in [other.number for other in unfinished(con, change.workload_id)]:
                raise SettledError(
                    f"changing the champion of {change.workload_id}: change {entry.number} has an "
                    "end already; another process wrote it"
                )
            _insert(con, last)
        return last


def changes(con: Connection, workload: str | None = None) -> list[Entry]:
    """List the changes of a workload, or of all, each with its last step; the oldest first."""
    rows = warehouse.select(con, "marts/champion_changes", workload_id=workload)
    return [_entry(dict(row)) for row in rows]


def unfinished(con: Connection, workload: str | None = None) -> list[Entry]:
    """List the changes that have no end: interrupted, or under way."""
    return [entry for entry in changes(con, workload) if entry.step == "intended"]


def rolled_back(con: Connection, workload: str, adapter: str) -> Entry | None:
    """Return the rollback that took the champion's place from an adapter, unless it is back."""
    touching = [
        entry
        for entry in changes(con, workload)
        if entry.step == "done"
        and adapter in (entry.change.adapter_key, entry.change.adapter_before)
    ]
    last = touching[-1] if touching else None
    if last is None or last.change.adapter_key == adapter or last.change.kind != "rollback":
        return None
    return last


def held(folder: Path, workload: str, *, wait: bool = True) -> AbstractContextManager[bool]:
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
    change = Change(**{field.name: content["change"][field.name] for field in fields(Change)})
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


def _insert(con: Connection, entry: Entry) -> None:
    line = {
        "number": entry.number,
        "step": entry.step,
        "said": entry.said,
        "noted_at": entry.noted_at,
        **asdict(entry.change),
    }
    warehouse.insert(con, "raw.champion_journal", [line])


def _entry(row: dict[str, warehouse.Value]) -> Entry:
    own = {name: row.pop(name) for name in ("number", "step", "said", "noted_at")}
    return Entry(change=Change(**row), **own)  # pyright: ignore[reportArgumentType] - of the table
