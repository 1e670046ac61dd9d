"""The journal of a workload's champions: what a change set out to do, and how far it came.

A change is several steps in two places, MLflow and the warehouse, and can be killed between any
two. What is to be done is written down before any of it is, with all that is needed to finish the
change or to undo it; each step once it was done. The warehouse is held for these lines only, never
while MLflow is asked. One process at a time changes a workload's champion; the system takes the
lock from it when it dies, so what is unfinished and not locked was interrupted.
"""

import fcntl
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from components import warehouse
from components.warehouse import Connection

Kind: TypeAlias = Literal["promotion", "rollback"]
Step: TypeAlias = Literal[
    "intended", "registered", "previous_moved", "champion_moved", "done", "undone"
]
STEPS: tuple[Step, ...] = ("intended", "registered", "previous_moved", "champion_moved", "done")
"""Those of a change that comes to its end; a rollback registers nothing."""


class UnsettledError(RuntimeError):
    """Another change of this champion was interrupted and has to be settled first."""


class SettledError(RuntimeError):
    """This change was settled by somebody else meanwhile."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a workload's champion; see ``raw.champion_journal`` for each field."""

    workload_id: str
    kind: Kind
    evidence_digest: str
    adapter_key: str
    version: str | None
    champion_before: str | None
    adapter_before: str | None
    previous_before: str | None
    previous_after: str | None
    asked_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A change as the journal has it: which of the workload's it is, and its last step."""

    number: int
    change: Change
    step: Step
    said: str
    noted_at: datetime


def _go_on(step: Step, is_written: bool) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Journal:
    """Where a change is written down.

    ``open`` gives the warehouse for one line; ``now`` the time. ``after`` is called twice for each
    step: when it was done, and when its line is written; what it raises is raised, so that a test
    can end the process at any place.
    """

    open: Callable[[], AbstractContextManager[Connection]]
    now: Callable[[], datetime]
    after: Callable[[Step, bool], None] = _go_on

    def intend(self, change: Change, also: Callable[[Connection], None] | None = None) -> Entry:
        """Write down what is to be done, before any of it is.

        Args:
            change: All of it.
            also: Writes what has to stand or fall with the intention.

        Raises:
            UnsettledError: An earlier change of this workload has no end.
        """
        self.after("intended", False)
        with self.open() as con, warehouse.transaction(con):
            if open_ones := unfinished(con, change.workload_id):
                raise UnsettledError(
                    f"changing the champion of {change.workload_id}: change "
                    f"{open_ones[0].number} was interrupted after {open_ones[0].step}; "
                    "settle it first"
                )
            if also is not None:
                also(con)
            number = 1 + len(changes(con, change.workload_id))
            entry = Entry(number, change, "intended", "", self.now())
            _insert(con, entry)
        self.after("intended", True)
        return entry

    def note(self, entry: Entry, *steps: Step, version: str | None = None, said: str = "") -> Entry:
        """Write down that steps were done, all in one transaction; no line is written twice.

        Args:
            entry: The change.
            steps: What was done since the last line, in this order.
            version: The version that was registered.
            said: Why it ended as it did; on the last line.

        Raises:
            SettledError: Somebody has finished or undone this change.
        """
        self.after(steps[-1], False)
        change = replace(entry.change, version=version or entry.change.version)
        now = self.now()
        lines = [Entry(entry.number, change, step, "", now) for step in steps]
        lines[-1] = replace(lines[-1], said=said)
        with self.open() as con, warehouse.transaction(con):
            last = next(
                one for one in changes(con, change.workload_id) if one.number == entry.number
            )
            if last.step in ("done", "undone") and last.step != steps[-1]:
                raise SettledError(
                    f"changing the champion of {change.workload_id}: change {entry.number} is "
                    f"{last.step} by now ({last.said or 'by another process'})"
                )
            for line in lines:
                _insert(con, line)
        for step in steps:
            self.after(step, True)
        return lines[-1]


def changes(con: Connection, workload: str | None = None) -> list[Entry]:
    """List the changes of a workload, or of all, each with its last step; the oldest first."""
    found = warehouse.select(con, "marts/champion_changes", workload_id=workload)
    return [_entry(dict(row)) for row in found]


def unfinished(con: Connection, workload: str | None = None) -> list[Entry]:
    """List the changes that have no end: interrupted, or under way."""
    return [one for one in changes(con, workload) if one.step not in ("done", "undone")]


def crowned(con: Connection, workload: str, version: str) -> Entry | None:
    """Give the newest change that made a version the champion; ``None`` if no journal tells."""
    found = [one for one in _done(con, workload) if one.change.version == version]
    return found[-1] if found else None


def promoted(con: Connection, workload: str) -> set[tuple[str, str]]:
    """List the versions that became champion, each with the evidence that it did on."""
    changes = [one.change for one in _done(con, workload)]
    return {(one.version or "", one.evidence_digest) for one in changes if one.kind == "promotion"}


def rolled_back(con: Connection, workload: str, adapter: str) -> Entry | None:
    """Give the rollback that an adapter lost the champion's place by, unless it is back in it."""
    found = [
        one
        for one in _done(con, workload)
        if adapter in (one.change.adapter_key, one.change.adapter_before)
    ]
    last = found[-1] if found else None
    if last is None or last.change.adapter_key == adapter or last.change.kind != "rollback":
        return None
    return last


@contextmanager
def held(folder: Path, workload: str, *, wait: bool = True) -> Generator[bool]:
    """Keep others from changing a workload's champion; yields whether it could be had.

    Args:
        folder: Where the locks are, one folder for all who share the warehouse.
        workload: Whose champion.
        wait: Wait for another process that is at it; else give up at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{workload}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _done(con: Connection, workload: str) -> list[Entry]:
    return [one for one in changes(con, workload) if one.step == "done"]


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
    told = {name: row.pop(name) for name in ("number", "step", "said", "noted_at")}
    return Entry(change=Change(**row), **told)  # pyright: ignore[reportArgumentType] - of the table
