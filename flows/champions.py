"""Go back to an older champion, and settle changes that were interrupted.

It loads neither Prefect nor what judges: a bad champion has to go at once.
"""

from contextlib import nullcontext
from datetime import UTC, datetime

from components import warehouse
from components.decide import record
from components.decide.record import Event
from components.register import aliases, crowning, journal, registry, rollback
from components.register.journal import Change, Entry, Journal
from components.warehouse import Connection
from flows import settings
from flows.settings import Settings


def roll_back(
    home: Settings,
    workload: str,
    to: str | None,
    *,
    by: str,
    reason: str,
    flow_run_id: str = "",
) -> Entry:
    """Make an older champion the champion again; a rollback that was killed is finished instead.

    The order is a link of the chain of decisions, written with the journal's first line. The
    warehouse is held from the first line to the last, so it is waited for only once.

    Args:
        home: Where all lies.
        workload: Whose champion.
        to: A version's number; ``None`` for the one that is ``previous``.
        by: Who asks for it.
        reason: Why.
        flow_run_id: The flow run that does it, if one does.

    Raises:
        RollbackError: There is no version to go back to, or not to that one.
    """
    with journal.held(home.locks, workload), warehouse.connect(home.warehouse) as con:
        held = Journal(lambda: nullcontext(con), _now)
        for settled in crowning.settle(held, workload):
            meant = settled.change.kind == "rollback" and to in (None, settled.change.version)
            if meant and settled.step == "done":
                return settled
        change = rollback.plan(
            workload,
            registry.versions(workload),
            aliases.read(workload),
            journal.changes(con, workload),
            to,
            by=by,
            reason=reason,
        )
        entry = crowning.roll_back(held, change, lambda con: _record(con, change, flow_run_id))
        if (head := record.head(con)) and change.champion_before:
            registry.tag(workload, change.champion_before, {registry.LINK_TAG: head.anchor})
        return entry


def anchors() -> dict[str, str]:
    """Read what versions in MLflow say of the chain of decisions, by which version says it."""
    return {
        f"version {number} of {name} in MLflow": tags[registry.LINK_TAG]
        for name in registry.names()
        for number, tags in registry.tagged(name).items()
        if registry.LINK_TAG in tags
    }


def _record(con: Connection, change: Change, flow_run_id: str) -> None:
    """Add the order to the chain, about the evidence on which the champion was approved."""
    name, left = change.workload_id, change.champion_before
    version = registry.numbered(name, left) if left else None
    event = Event(
        kind="rollback",
        workload=name,
        evidence=version.evidence if version else change.evidence_digest,
        flow_run_id=flow_run_id,
        decided_at=_now(),
        approver=change.asked_by,
        comment=f"to version {change.version}: {change.reason or 'no reason given'}",
    )
    record.append(con, event)


def rolled_back(workload: str, adapter: str) -> str | None:
    """Say that an adapter was champion and was rolled back; ``None`` if it was not.

    The same adapter is not asked about again, whatever it is measured against: the scores that won
    it a person's approval are what turned out to be wrong.
    """
    with warehouse.connect(settings.load().warehouse) as con:
        entry = journal.rolled_back(con, workload, adapter)
    if entry is None:
        return None
    change = entry.change
    return (
        f"adapter {adapter} was champion as version {change.champion_before} and was rolled back "
        f"by {change.asked_by} ({change.reason or 'no reason given'}); new data makes another "
        f"adapter, and `flywheel rollback {workload} --to {change.champion_before}` brings this "
        "one back"
    )


def reconcile(home: Settings) -> list[Entry]:
    """Finish or undo every change of a champion that was interrupted; give what became of each.

    One that a living process is at is left to it.
    """
    if not home.warehouse.exists():
        return []
    with warehouse.connect(home.warehouse) as con:
        names = {one.change.workload_id for one in journal.unfinished(con)}
    settled: list[Entry] = []
    for name in sorted(names):
        with journal.held(home.locks, name, wait=False) as is_ours:
            if is_ours:
                settled += crowning.settle(books(home), name)
    return settled


def say(entry: Entry) -> str:
    """Say in a line what became of a change."""
    change = entry.change
    ended = {"done": "finished", "undone": "undone"}[entry.step]
    return f"{change.workload_id}: {change.kind} {entry.number} {ended}: {entry.said}"


def say_rollback(entry: Entry) -> str:
    """Say which version answers now, and where the next rollback would lead."""
    change = entry.change
    left = f"version {change.champion_before}" if change.champion_before else "no champion"
    further = (
        f"version {change.previous_after} is before it"
        if change.previous_after
        else "nothing is before it"
    )
    return (
        f"{change.workload_id}: from {left} back to version {change.version}, adapter "
        f"{change.adapter_key}; {further}"
    )


def books(home: Settings) -> Journal:
    """Give the journal of a home, which holds the warehouse for a line only."""
    return Journal(lambda: warehouse.connect(home.warehouse), _now)


def _now() -> datetime:
    return datetime.now(UTC)
