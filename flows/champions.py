"""Roll a champion back, and recover interrupted changes of champion; without Prefect."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from components.decide import decision_log, validity
from components.decide.approvers import OPEN, ApprovalRules
from components.decide.decision_log import LogEvent
from components.decide.statement import Statement
from components.register import (
    champion_change,
    journal,
    registry,
    tracking,
    version_tags,
)
from components.register.champion_change import RollbackError, Succession
from components.register.journal import ChampionChange, ChampionJournal, JournalEntry, Pending
from components.register.version_tags import CHALLENGER, CHAMPION, PREVIOUS
from components.store import warehouse
from components.store.lock import PATIENCE_SECONDS, WarehouseBusyError
from components.store.warehouse import Connection
from flows import rollback_rules, settings, trials
from flows.rollback_rules import ApprovedVersions, Order, Proved, RefusedOrderError
from flows.settings import Settings

AT_ONCE_SECONDS = 3.0  # a rollback waits no longer for the warehouse before it moves the alias


def roll_back(
    home: Settings, order: Order, report: Callable[[str], None] = lambda _: None
) -> JournalEntry:
    """Make an older champion the champion again; a rollback that was killed is finished instead.

    It is proved as an approval is, and leads only to what the chain of decisions and the journal
    know as approved. The order is a link of the chain, written with the journal's first row. If
    another process holds the warehouse, and names need no proof, the alias moves first, the row is
    written later, and ``report`` is called with what was done.

    Raises:
        RollbackError: The order is refused, or leads to no such version, or the champion changed
            after it was ordered.
    """
    workload = order.workload
    left = registry.read_aliases(workload).champion
    with journal.lock_champion(home.tables, home.locks, workload):
        # Of two people who order it at once, the second would go one version further.
        if (now := registry.read_aliases(workload).champion) != left:
            raise _outdated(workload, now)
        try:
            return _roll_back(home, order, AT_ONCE_SECONDS)
        except WarehouseBusyError:
            version = _move_at_once(home, order)
        if version is None:
            return _roll_back(home, order, PATIENCE_SECONDS)
        report(
            f"{workload}: version {version} is champion again; the warehouse is held by others, "
            "and this is written down when they let it go"
        )
        recover(home, workload)
        with warehouse.connect(home.tables) as con:
            last = journal.list_changes(con, workload)[-1]
        if last.step != "done":
            raise RollbackError(f"rolling back {workload} to version {version}: {last.note}")
        return last


@dataclass(frozen=True, slots=True)
class RollbackOutlook:
    """What a rollback that is ordered now would do, in sentences; ``canary`` ends with it."""

    sentences: tuple[str, ...]
    canary: str | None


def rollback_outlook(workload: str, to: str | None) -> RollbackOutlook:
    """Describe from MLflow's aliases, without the warehouse, which others may hold, what would be.

    What is refused is found when it is carried out.
    """
    now = registry.read_aliases(workload)
    left = f"version {now.champion} is champion" if now.champion else "there is no champion"
    target = (
        f"version {to}" if to else now.previous and f"version {now.previous}, the one before it,"
    )
    sentences = [f"{workload}: {left}" + (f", and {target} becomes champion" if target else "")]
    if now.canary is not None:
        sentences.append(
            f"version {now.canary} is a canary beside it, which ends with this and keeps its "
            f"approval; `flywheel serve canary stop {workload} --reason WHY` ends only the canary"
        )
    return RollbackOutlook(tuple(sentences), now.canary)


def rollback_form(home: Settings, order: Order) -> tuple[Statement, ApprovalRules]:
    """Write the statement to sign for a rollback, without its time; return the rules, too."""
    with warehouse.connect(home.tables) as con:
        rules = rollback_rules.in_force(home, con, order.workload)
        with warehouse.transaction(con):
            under = decision_log.in_force(con, order.workload, rules, now=_now())
        known = rollback_rules.champions(con, order.workload)
    change = _plan(order, known)
    signing = rollback_rules.signing(home, change, rules)
    return rollback_rules.statement_of(change, signing, under.digest), rules


def write_approved_versions(home: Settings, workload: str) -> None:
    """Write the approved versions and repair ``previous``; the caller holds the workload's lock."""
    with warehouse.connect(home.tables) as con:
        rules = rollback_rules.in_force(home, con, workload)
        known = rollback_rules.champions(con, workload)
    rollback_rules.write_approved(
        home.locks, workload, ApprovedVersions(known, is_open=rules == OPEN)
    )
    now, versions = registry.read_aliases(workload), registry.list_versions(workload)
    # Only people read this alias.
    registry.put_alias(workload, PREVIOUS, champion_change.previous(now.champion, known, versions))


def recover(
    home: Settings, workload: str, wait_seconds: float = PATIENCE_SECONDS
) -> list[JournalEntry]:
    """Finish or undo a workload's interrupted changes, a pending rollback included.

    The caller holds the workload's lock. ``WarehouseBusyError`` after ``wait_seconds``: nothing was
    done. ``RollbackError``: the chain of decisions does not hold.
    """
    ended = _recover(home, workload, wait_seconds)
    if _append_pending(home, workload):
        ended += _recover(home, workload, PATIENCE_SECONDS)
    for entry in ended:
        _anchor(home, entry.change)
    if ended:
        write_approved_versions(home, workload)
    return ended


def reconcile(home: Settings) -> list[JournalEntry]:
    """Recover every interrupted change whose process is gone; return how each ended."""
    if not home.has_warehouse:
        return []
    with warehouse.connect(home.tables) as con:
        names = {entry.change.workload_id for entry in journal.unfinished_changes(con)}
    names.update(journal.pending_workloads(home.locks))
    ended: list[JournalEntry] = []
    for name in sorted(names):
        with journal.lock_champion(home.tables, home.locks, name, wait=False) as is_ours:
            if is_ours:
                ended += recover(home, name)
    return ended


def chain_anchors() -> dict[str, str]:
    """Return the chain's links that MLflow's versions and runs name, by version or run."""
    versions = {
        f"version {number} of {name} in MLflow": tags[version_tags.LINK_TAG]
        for name in registry.model_names()
        for number, tags in registry.version_tags(name).items()
        if version_tags.LINK_TAG in tags
    }
    return versions | {
        f"run {run_id} in MLflow": head for run_id, head in tracking.chain_heads().items()
    }


def rolled_back(workload: str, adapter: str) -> str | None:
    """Explain that an adapter was champion and was rolled back; ``None`` if it was not."""
    with warehouse.connect(settings.load().tables) as con:
        entry = journal.rolled_back(con, workload, adapter)
    if entry is None:
        return None
    change = entry.change
    if change.rollout_id is not None:
        return (
            f"adapter {adapter} answered a share as version {change.champion_before} and was "
            f"rolled back by {change.asked_by} ({change.reason or 'no reason given'}); new data "
            "makes another adapter"
        )
    # Whatever it is measured against now: the scores that won it an approval were wrong.
    return (
        f"adapter {adapter} was champion as version {change.champion_before} and was rolled back "
        f"by {change.asked_by} ({change.reason or 'no reason given'}); new data makes another "
        f"adapter, and `flywheel rollback {workload} --to {change.champion_before}` brings this "
        "one back"
    )


def used_up(workload: str, evidence: str) -> str | None:
    """Explain that an approval has made its version champion before; ``None`` if it has not."""
    with warehouse.connect(settings.load().tables) as con:
        changes = journal.list_changes(con, workload)
    for entry in changes:
        change = entry.change
        if (change.kind, entry.step, change.evidence_digest) == ("promotion", "done", evidence):
            return (
                f"version {change.version} became champion on it at {entry.noted_at:%Y-%m-%d %H:%M}"
                " UTC and is not any more, and an approval makes a champion once; `flywheel "
                f"rollback {workload} --to {change.version}` brings it back"
            )
    return None


def describe_change(entry: JournalEntry) -> str:
    """Describe in a line how an interrupted change ended."""
    change = entry.change
    ended = "finished" if entry.step == "done" else "undone"
    return f"{change.workload_id}: {change.kind} {entry.number} {ended}: {entry.note}"


def describe_rollback(entry: JournalEntry) -> str:
    """Describe in a line which version answers now, and where the next rollback leads."""
    change = entry.change
    left = f"version {change.champion_before}" if change.champion_before else "no champion"
    previous = registry.read_aliases(change.workload_id).previous
    further = f"version {previous} is before it" if previous else "nothing is before it"
    return (
        f"{change.workload_id}: from {left} back to version {change.version}, adapter "
        f"{change.adapter_key}; {further}"
    )


def champion_journal(home: Settings, wait_seconds: float = PATIENCE_SECONDS) -> ChampionJournal:
    """Return a home's journal; it holds the warehouse only while it writes a row."""
    return ChampionJournal(lambda: warehouse.connect(home.tables, wait_seconds), _now)


def _roll_back(home: Settings, order: Order, wait_seconds: float) -> JournalEntry:
    workload = order.workload
    left = registry.read_aliases(workload).champion
    if order.ordered_at is not None:
        with warehouse.connect(home.tables, wait_seconds) as con:
            since = journal.changes_between(con, workload, order.ordered_at, _now())
        # A run waits for its worker, is started twice by two clicks, or is retried days later.
        if since:
            raise _outdated(workload, left)
    for ended in recover(home, workload, wait_seconds):
        meant = ended.change.kind == "rollback" and order.to in (None, ended.change.version)
        if meant and ended.step == "done":
            return ended
    with warehouse.connect(home.tables, wait_seconds) as con:
        known = rollback_rules.champions(con, workload)
        rules = rollback_rules.in_force(home, con, workload)
        with warehouse.transaction(con):  # they stay in force if the order is refused
            decision_log.in_force(con, workload, rules, now=_now())
    change = _plan(_aimed(order, left, known), known)
    signing = rollback_rules.signing(home, change, rules)
    about, now = _left_evidence(change), _now()

    def write_link(con: Connection) -> None:
        proved = rollback_rules.prove(con, change, order, rules, signing)
        _record(con, Pending(change, now, order.flow_run_id), about, proved)

    try:
        entry = champion_journal(home, wait_seconds).intend(change, write_link)
    except RefusedOrderError as refused:
        raise rollback_rules.refuse(home, change, refused) from None
    why = f"the champion was rolled back to version {change.version}"
    trials.find().end(home, workload, why)
    entry = champion_change.carry_out(champion_journal(home), entry)
    _anchor(home, change)
    write_approved_versions(home, workload)
    return entry


def _outdated(workload: str, champion: str | None) -> RollbackError:
    return RollbackError(
        f"rolling back {workload}: after this was ordered the champion changed, to "
        f"{f'version {champion}' if champion else 'none'}; order it again if that one is meant"
    )


def _aimed(order: Order, left: str | None, known: Succession) -> Order:
    """Return an order to the version before the one that was champion when it came.

    A promotion that was interrupted then, and is finished now, would lead back to that one.
    """
    workload = order.workload
    now = registry.read_aliases(workload).champion
    if order.to is not None or now == left:
        return order
    to = champion_change.previous(left, known, registry.list_versions(workload))
    if to is None:
        raise RollbackError(
            f"rolling back {workload}: an interrupted change was settled just now, by which "
            f"version {now} is champion, and nothing that may serve is before version {left}; "
            "name a version with --to"
        )
    return replace(order, to=to)


def _plan(order: Order, known: Succession) -> ChampionChange:
    return champion_change.plan_rollback(
        order.workload,
        registry.list_versions(order.workload),
        registry.read_aliases(order.workload).champion,
        known,
        order.to,
        by=order.by,
        reason=order.reason,
    )


def _move_at_once(home: Settings, order: Order) -> str | None:
    """Move the alias while others hold the warehouse; ``None`` where that has to wait."""
    workload, now = order.workload, registry.read_aliases(order.workload).champion
    known = rollback_rules.read_approved(home.locks, workload)
    if home.lake or known is None or not rollback_rules.needs_no_proof(home, workload, known):
        return None  # names need a proof
    pending = journal.read_pending(home.locks, workload)
    if pending is None:
        if order.to is None and now not in known.champions.before:
            return None  # only the warehouse knows ``previous``
        pending = Pending(_plan(order, known.champions), _now(), order.flow_run_id)
        journal.write_pending(home.locks, pending)
    version = pending.change.version
    if order.to not in (None, version):
        raise RollbackError(
            f"rolling back {workload} to version {order.to}: a rollback to version {version} is "
            "not written down yet; wait for the warehouse"
        )
    if now == pending.change.champion_before:
        registry.put_alias(workload, CHAMPION, version)
        registry.remove_alias(workload, CHALLENGER, version)
    return version


def _recover(home: Settings, workload: str, wait_seconds: float) -> list[JournalEntry]:
    with warehouse.connect(home.tables, wait_seconds) as con:
        interrupted = journal.unfinished_changes(con, workload)
        approved = {entry.number for entry in interrupted if _is_approved(home, con, entry.change)}
    if not interrupted:
        return []
    return champion_change.recover(
        champion_journal(home), workload, lambda entry: entry.number in approved
    )


def _is_approved(home: Settings, con: Connection, change: ChampionChange) -> bool:
    if change.kind == "rollback":  # it leads to what was approved, by the rules of then
        approved = rollback_rules.champions(con, change.workload_id).approved
        return (change.version, change.evidence_digest) in approved
    rules = rollback_rules.in_force(home, con, change.workload_id)
    decision = decision_log.decision_on(con, change.evidence_digest, rules)
    return decision is not None and decision.decision == "approve"


def _append_pending(home: Settings, workload: str) -> bool:
    """Write a pending rollback into chain and journal; return whether there was one."""
    pending = journal.read_pending(home.locks, workload)
    if pending is None:
        return False
    change, about = pending.change, _left_evidence(pending.change)
    with warehouse.connect(home.tables) as con:
        rules = rollback_rules.in_force(home, con, workload)
        links = decision_log.links(con, workload_id=workload)
    # By the very moment, since a clock may be set back.
    is_written = any((at.kind, at.decided_at) == ("rollback", pending.ordered_at) for at in links)

    def write_link(con: Connection) -> None:
        # It was ordered while anybody might: under rules that came since it would break them.
        under = decision_log.in_force(con, workload, OPEN, now=_now())
        proved = Proved(rollback_rules.body(change, "name", under.digest))
        _record(con, pending, about, proved)
        decision_log.in_force(con, workload, rules, now=_now())

    if not is_written:  # else a kill was between that and the file's end
        champion_journal(home).intend(change, write_link)
    journal.drop_pending(home.locks, workload)
    return not is_written


def _left_evidence(change: ChampionChange) -> str:
    """Return the evidence on which the champion that is left was approved."""
    if change.champion_before is None:
        return change.evidence_digest
    return registry.version_numbered(change.workload_id, change.champion_before).evidence


def _record(con: Connection, order: Pending, about: str, proved: Proved) -> None:
    change = order.change
    event = LogEvent(
        kind="rollback",
        workload=change.workload_id,
        evidence=about,
        flow_run_id=order.flow_run_id,
        decided_at=order.ordered_at,
        approver=change.asked_by,
        comment=f"to version {change.version}: {change.reason or validity.UNEXPLAINED}",
        body=proved.body,
        document=proved.document,
    )
    decision_log.append_event(con, event)


def _anchor(home: Settings, change: ChampionChange) -> None:
    if change.kind != "rollback" or change.champion_before is None:
        return
    # On the version that was left, so that cutting the order off the chain is detected.
    with warehouse.connect(home.tables) as con:
        head = decision_log.read_head(con)
    assert head is not None  # the order is in the chain
    anchor = {version_tags.LINK_TAG: head.anchor}
    registry.tag_version(change.workload_id, change.champion_before, anchor)


def _now() -> datetime:
    return datetime.now(UTC)
