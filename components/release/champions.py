"""Roll a champion back, and recover interrupted changes of champion."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from components.decide import decision_log
from components.decide.approvers import OPEN, ApprovalRules
from components.decide.statement import Statement
from components.register import registry, tracking, version_tags
from components.register.version_tags import CHALLENGER, CHAMPION
from components.release import champion_alias, installation, release_state, rollback_rules
from components.release.installation import Installation
from components.release.release_state import (
    ChampionChange,
    KnownChampions,
    Pending,
    RecordedChange,
    ReleaseState,
    RollbackError,
    UnapprovedError,
)
from components.release.rollback_rules import Order
from components.store import warehouse
from components.store.lock import PATIENCE_SECONDS, WarehouseBusyError

AT_ONCE_SECONDS = 3.0  # a rollback waits no longer for the warehouse before it moves the alias


def roll_back(
    home: Installation, order: Order, report: Callable[[str], None] = lambda _: None
) -> RecordedChange:
    """Make an older champion the champion again; a rollback that was killed is finished instead.

    It is proved as an approval is, and leads only to what the chain of decisions knows as approved.
    The order is a link of the chain, which MLflow's alias follows. If another process holds the
    warehouse, and names need no proof, the alias moves first, the link is written later, and
    ``report`` is called with what was done.

    Raises:
        RollbackError: The order is refused, or leads to no such version, or the champion changed
            after it was ordered.
    """
    workload = order.workload
    left = registry.read_aliases(workload).champion
    with installation.lock_champion(home.tables, home.locks, workload):
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
        last = recover(home, workload)
        if last is None or last.change.version != version:
            raise RollbackError(
                f"rolling back {workload} to version {version}: it may not serve according to the "
                "chain of decisions; `flywheel audit` has what was done instead"
            )
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


def rollback_form(home: Installation, order: Order) -> tuple[Statement, ApprovalRules]:
    """Write the statement to sign for a rollback, without its time; return the rules, too."""
    with warehouse.connect(home.tables) as con:
        known = release_state.verified_state(con, order.workload)
    return rollback_rules.form(home, _plan(order, known))


def promote(home: Installation, change: ChampionChange) -> None:
    """Append a promotion to the chain, and let MLflow follow; the caller holds the lock.

    Raises:
        UnapprovedError: Its evidence is not approved under the rules of now.
    """
    name, evidence = change.workload_id, change.evidence_digest
    if change.rollout_id is None:
        home.end_trial(name, f"version {change.version} becomes champion")
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        rules = rollback_rules.in_force(home, con, name)
        decided = decision_log.decision_on(con, evidence, rules)
        if decided is None or decided.decision != "approve":
            raise UnapprovedError(
                f"promoting {name} on evidence {evidence}: nobody has approved it under the rules "
                "of now according to the chain of decisions"
            )
        release_state.append_change(con, change, _now())
    project(home, name)


def project(home: Installation, workload: str) -> bool:
    """Let MLflow and the file of known champions follow the chain of decisions.

    Idempotent; the caller holds the workload's lock. Return whether MLflow lagged behind.
    ``RollbackError``: the chain does not hold.
    """
    before = release_state.read_known(home.locks, workload)
    through, followed_at = (before.through, before.followed_at) if before else ("", _now())

    def read() -> ReleaseState:
        with warehouse.connect(home.tables) as con:
            is_open = rollback_rules.in_force(home, con, workload) == OPEN
            state = release_state.verified_state(con, workload)
        # Before the alias moves: the gateway follows it only to the version that is named there.
        known = KnownChampions(state, is_open, through, followed_at)
        release_state.write_known(home.locks, workload, known)
        return state

    state, lagged = champion_alias.project(workload, read)
    if state.last is not None and through != state.last.head.anchor:
        through, followed_at = state.last.head.anchor, _now()
        read()
    return lagged


def recover(
    home: Installation, workload: str, wait_seconds: float = PATIENCE_SECONDS
) -> RecordedChange | None:
    """Finish a workload's interrupted change, a pending rollback included; return it.

    The caller holds the workload's lock. ``WarehouseBusyError`` after ``wait_seconds``: nothing was
    done. ``RollbackError``: the chain of decisions does not hold.
    """
    with warehouse.connect(home.tables, wait_seconds) as con:
        last = release_state.read_state(con, workload).last
    if _append_pending(home, workload):
        with warehouse.connect(home.tables) as con:
            last = release_state.read_state(con, workload).last
    known = release_state.read_known(home.locks, workload)
    if last is None or (known is not None and known.through == last.head.anchor):
        return None
    return last if project(home, workload) else None


def reconcile(home: Installation) -> list[RecordedChange]:
    """Finish every interrupted change whose process is gone, and return them."""
    if not home.has_warehouse:
        return []
    with warehouse.connect(home.tables) as con:
        links = decision_log.links(con)
    names = {link.workload_id for link in links if release_state.recorded_change(link)}
    names.update(release_state.pending_workloads(home.locks))
    finished: list[RecordedChange] = []
    for name in sorted(names):
        with installation.lock_champion(home.tables, home.locks, name, wait=False) as is_ours:
            if is_ours and (change := recover(home, name)) is not None:
                finished.append(change)
    return finished


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


def describe_change(recorded: RecordedChange) -> str:
    """Describe in a line which interrupted change was finished."""
    change = recorded.change
    now = f"version {change.version}" if change.version else "no version"
    return (
        f"{change.workload_id}: decision {recorded.head.sequence}, by which {now} is champion, was "
        "interrupted, and is finished"
    )


def describe_rollback(recorded: RecordedChange) -> str:
    """Describe in a line which version answers now, and where the next rollback leads."""
    change = recorded.change
    left = f"version {change.champion_before}" if change.champion_before else "no champion"
    previous = registry.read_aliases(change.workload_id).previous
    further = f"version {previous} is before it" if previous else "nothing is before it"
    return (
        f"{change.workload_id}: from {left} back to version {change.version}, adapter "
        f"{change.adapter_key}; {further}"
    )


def _roll_back(home: Installation, order: Order, wait_seconds: float) -> RecordedChange:
    workload = order.workload
    left = registry.read_aliases(workload).champion
    if order.ordered_at is not None:
        with warehouse.connect(home.tables, wait_seconds) as con:
            state = release_state.read_state(con, workload)
        times = [each.changed_at for each in state.changes if each.change.moves_champion]
        if (known := release_state.read_known(home.locks, workload)) is not None:
            times.append(known.followed_at)
        # A run waits for its worker, is started twice by two clicks, or is retried days later.
        if any(order.ordered_at < at <= _now() for at in times):
            raise _outdated(workload, left)
    finished = recover(home, workload, wait_seconds)
    meant = (None, finished.change.version) if finished else ()
    if finished is not None and finished.change.kind == "rollback" and order.to in meant:
        return finished
    with warehouse.connect(home.tables, wait_seconds) as con:
        known = release_state.verified_state(con, workload)
    change = _plan(_aimed(order, left, known), known)
    about = _left_evidence(change)
    link = rollback_rules.record_order(home, change, order, about=about, wait_seconds=wait_seconds)
    why = f"the champion was rolled back to version {change.version}"
    home.end_trial(workload, why)
    project(home, workload)
    recorded = release_state.recorded_change(link)
    assert recorded is not None
    return recorded


def _outdated(workload: str, champion: str | None) -> RollbackError:
    return RollbackError(
        f"rolling back {workload}: after this was ordered the champion changed, to "
        f"{f'version {champion}' if champion else 'none'}; order it again if that one is meant"
    )


def _aimed(order: Order, left: str | None, known: ReleaseState) -> Order:
    """Return an order to the version before the one that was champion when it came.

    A promotion that was interrupted then, and is finished now, would lead back to that one.
    """
    workload = order.workload
    now = registry.read_aliases(workload).champion
    if order.to is not None or now == left:
        return order
    to = release_state.previous(left, known, registry.list_versions(workload))
    if to is None:
        raise RollbackError(
            f"rolling back {workload}: an interrupted change was settled just now, by which "
            f"version {now} is champion, and nothing that may serve is before version {left}; "
            "name a version with --to"
        )
    return replace(order, to=to)


def _plan(order: Order, known: ReleaseState) -> ChampionChange:
    return rollback_rules.plan_rollback(
        order.workload,
        registry.list_versions(order.workload),
        registry.read_aliases(order.workload).champion,
        known,
        order.to,
        by=order.by,
        reason=order.reason,
    )


def _move_at_once(home: Installation, order: Order) -> str | None:
    """Move the alias while others hold the warehouse; ``None`` where that has to wait."""
    workload, now = order.workload, registry.read_aliases(order.workload).champion
    known = release_state.read_known(home.locks, workload)
    if (
        not isinstance(home.tables, Path)
        or known is None
        or not rollback_rules.needs_no_proof(home, workload, known)
    ):
        return None  # names need a proof
    pending = release_state.read_pending(home.locks, workload)
    if pending is None:
        if order.to is None and now not in known.state.before:
            return None  # only the warehouse knows ``previous``
        pending = Pending(_plan(order, known.state), _now(), order.flow_run_id)
        release_state.write_pending(home.locks, pending)
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


def _append_pending(home: Installation, workload: str) -> bool:
    """Write a pending rollback into the chain; return whether there was one."""
    pending = release_state.read_pending(home.locks, workload)
    if pending is None:
        return False
    change, about = pending.change, _left_evidence(pending.change)
    target = registry.version_numbered(workload, change.version)
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        links = decision_log.links(con, workload_id=workload)
        # By the very moment, since a clock may be set back. A kill was before the file's end.
        if ("rollback", pending.ordered_at) not in [(at.kind, at.decided_at) for at in links]:
            rules = rollback_rules.in_force(home, con, workload)
            # It was ordered while anybody might: under rules that came since it would break them.
            under = decision_log.in_force(con, workload, OPEN, now=_now())
            rollback_rules.append_order(
                con,
                change,
                about,
                pending.ordered_at,
                pending.flow_run_id,
                ("name", under.digest, ""),
            )
            decision_log.in_force(con, workload, rules, now=_now())
            if target.tainted and (left := change.champion_before) is not None:
                back = release_state.plan_erasure(
                    target, registry.version_numbered(workload, left), target.tainted
                )
                release_state.append_change(con, back, _now())
    release_state.drop_pending(home.locks, workload)
    return True


def _left_evidence(change: ChampionChange) -> str:
    """Return the evidence on which the champion that is left was approved."""
    if change.champion_before is None:
        return change.evidence_digest
    return registry.version_numbered(change.workload_id, change.champion_before).evidence


def _now() -> datetime:
    return datetime.now(UTC)
