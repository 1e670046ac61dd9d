"""Go back to an older champion, and settle changes that were interrupted.

It loads neither Prefect nor what judges: a bad champion has to go at once.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from components import warehouse
from components.decide import record
from components.decide.record import Event
from components.opening import WarehouseBusyError
from components.register import aliases, crowning, journal, registry, rollback, tracking
from components.register.journal import Change, Entry, Journal
from components.register.rollback import RollbackError
from components.warehouse import Connection
from flows import orders, settings
from flows.orders import Order
from flows.settings import Settings

AT_ONCE_SECONDS = 3.0
"""A rollback waits no longer for the warehouse before it moves the aliases."""


def roll_back(
    home: Settings,
    workload: str,
    to: str | None,
    *,
    by: str,
    reason: str,
    flow_run_id: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Entry:
    """Make an older champion the champion again; a rollback that was killed is finished instead.

    The order is a link of the chain of decisions, written with the journal's first line. The
    warehouse is held from the first line to the last, so it is waited for only once; where it is
    held by others the aliases move before that (``orders``).

    Args:
        home: Where all lies.
        workload: Whose champion.
        to: A version's number; ``None`` for the one that is ``previous``.
        by: Who asks for it.
        reason: Why.
        flow_run_id: The flow run that does it, if one does.
        say: Told what has been done while the warehouse is waited for.

    Raises:
        RollbackError: There is no version to go back to, or not to that one.
    """
    asked = _Asked(to, by, reason)
    with journal.held(home.locks, workload):
        try:
            with warehouse.connect(home.warehouse, AT_ONCE_SECONDS) as con:
                return _roll_back(home, con, workload, asked, flow_run_id)
        except WarehouseBusyError:
            version = _ordered(home, workload, asked, flow_run_id)
        say(
            f"{workload}: version {version} is champion again; the warehouse is held by others, "
            "and this is written down when they let it go"
        )
        with warehouse.connect(home.warehouse) as con:
            written = settle(home, Journal(lambda: nullcontext(con), _now), workload)
        if not written:
            raise RollbackError(
                f"rolling back {workload} to version {version}: it has learned from rows that were "
                "erased meanwhile"
            )
        return written[-1]


@dataclass(frozen=True, slots=True)
class _Asked:
    to: str | None
    by: str
    reason: str


def _ordered(home: Settings, workload: str, asked: _Asked, flow_run_id: str) -> str | None:
    """Move the aliases now; one order at a time waits to be written down."""
    order = orders.read(home.locks, workload)
    if order is None:
        change = _plan(workload, (), asked)
        orders.give(home.locks, Order(change, _now(), flow_run_id))
        return change.version
    if asked.to not in (None, order.change.version):
        raise RollbackError(
            f"rolling back {workload} to version {asked.to}: a rollback to version "
            f"{order.change.version} is not written down yet; wait for the warehouse"
        )
    return order.change.version


def _roll_back(
    home: Settings, con: Connection, workload: str, asked: _Asked, flow_run_id: str
) -> Entry:
    held = Journal(lambda: nullcontext(con), _now)
    for settled in settle(home, held, workload):
        meant = settled.change.kind == "rollback" and asked.to in (None, settled.change.version)
        if meant and settled.step == "done":
            return settled
    history = journal.changes(con, workload)
    change = _plan(workload, history, asked)
    return _carry_out(held, con, Order(change, _now(), flow_run_id))


def _plan(workload: str, history: Sequence[Entry], asked: _Asked) -> Change:
    versions, now = registry.versions(workload), aliases.read(workload)
    return rollback.plan(
        workload, versions, now, history, asked.to, by=asked.by, reason=asked.reason
    )


def _carry_out(held: Journal, con: Connection, order: Order) -> Entry:
    change = order.change
    entry = crowning.roll_back(held, change, lambda con: _record(con, order))
    if (head := record.head(con)) and change.champion_before:
        anchor = {registry.LINK_TAG: head.anchor}
        registry.tag(change.workload_id, change.champion_before, anchor)
    return entry


def settle(home: Settings, held: Journal, workload: str) -> list[Entry]:
    """End what was interrupted of a workload, and write down a rollback that was only carried out.

    The caller holds the workload's lock.
    """
    settled = crowning.settle(held, workload)
    order = orders.read(home.locks, workload)
    if order is None:
        return settled
    with held.open() as con:
        history = journal.changes(con, workload)
        entry = next((one for one in history if _is_of(one, order)), None)
        if entry is None and _is_tainted(order):  # an erasure has said who is champion since
            with warehouse.transaction(con):
                _record(con, order)
        elif entry is None:
            written = Journal(lambda: nullcontext(con), held.now)
            entry = _carry_out(written, con, _completed(order, history))
    orders.drop(home.locks, workload)
    return [*settled, *([entry] if entry else [])]


def _is_tainted(order: Order) -> bool:
    change = order.change
    assert change.version is not None  # a rollback's is registered
    return bool(registry.numbered(change.workload_id, change.version).tainted)


def _is_of(entry: Entry, order: Order) -> bool:
    """Tell whether an entry of the journal is an order's: a kill was before the file's end."""
    change, wanted = entry.change, order.change
    is_same = (change.version, change.champion_before) == (wanted.version, wanted.champion_before)
    return change.kind == "rollback" and is_same and entry.noted_at >= order.given_at


def _completed(order: Order, history: Sequence[Entry]) -> Order:
    """Say where the next rollback leads, which only the books know."""
    change, versions = order.change, registry.versions(order.change.workload_id)
    (target,) = (one for one in versions if one.number == change.version)
    after = rollback.further(target, versions, history, leaving=change.champion_before)
    return replace(order, change=replace(change, previous_after=after))


def anchors() -> dict[str, str]:
    """Read what MLflow's versions and runs say of the chain of decisions, by which one says it."""
    versions = {
        f"version {number} of {name} in MLflow": tags[registry.LINK_TAG]
        for name in registry.names()
        for number, tags in registry.tagged(name).items()
        if registry.LINK_TAG in tags
    }
    return versions | {
        f"run {run_id} in MLflow": head for run_id, head in tracking.anchors().items()
    }


def _record(con: Connection, order: Order) -> None:
    """Add the order to the chain, about the evidence on which the champion was approved."""
    change = order.change
    name, left = change.workload_id, change.champion_before
    version = registry.numbered(name, left) if left else None
    event = Event(
        kind="rollback",
        workload=name,
        evidence=version.evidence if version else change.evidence_digest,
        flow_run_id=order.flow_run_id,
        decided_at=order.given_at,
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
    names.update(orders.workloads(home.locks))
    settled: list[Entry] = []
    for name in sorted(names):
        with journal.held(home.locks, name, wait=False) as is_ours:
            if is_ours:
                settled += settle(home, books(home), name)
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
