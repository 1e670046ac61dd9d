"""Canaries of approved versions: start, standing, end; without Prefect.

Whoever changes aliases holds the workload's lock. Nothing is decided by what MLflow has: the order
that counts is the warehouse's, the tag is only its copy for the gateway.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.extensions.canary import logged_traffic, rollout_log, rollout_order
from components.extensions.canary.logged_traffic import LoggedAnswer, TrafficAtHand
from components.extensions.canary.rollout_log import RecordedRollout, RolloutEnding
from components.extensions.canary.rollout_order import RolloutOrder
from components.extensions.machines.object_store import StoreError
from components.gate.evidence_folder import Evidence
from components.monitor import canary_status
from components.monitor.canary_status import CanaryStatus
from components.register import registry, version_tags
from components.register.registry import Version
from components.register.version_tags import CANARY, CHALLENGER
from components.release import champion_alias, release_state, rollback_rules
from components.release.release_state import ChampionChange
from components.schema import Json
from components.serve.rollout_settings import CanarySettings, RolloutSettings
from components.store import warehouse
from components.store.ledger import Decision
from components.store.lock import PATIENCE_SECONDS, WarehouseBusyError
from components.store.warehouse import Connection
from flows import gateway_status, release_home
from flows.canary import rollout_reports
from flows.doctor.finding import CheckResult, note, wrong
from flows.gateway_status import NotServingError
from flows.settings import Settings
from flows.trials import Trial
from flows.workload_file import Workload

RULE = "canary of the workload's file"  # who ends a canary by its evidence

TRAFFIC_DAYS = 7
MAX_ANSWERS = 5_000  # of the newest: enough for risks of 1 in 100

Event: TypeAlias = Literal["start", "undecided"] | RolloutEnding


class RolloutError(ValueError):
    """A canary can't be started, or none runs that could be stopped."""


def immediate_reason(
    home: Settings, settings: RolloutSettings, champion: str | None, workload: str
) -> str | None:
    """Return why an approved version becomes champion at once; ``None`` if a canary starts."""
    if settings.canary is None:
        return "the workload's file says `rollout: immediate`"
    if champion is None:
        return "there is no champion yet that a canary could be compared with"
    try:
        # One that restarts, as after a reboot that resumes this promotion, takes the canary up.
        served = gateway_status.served_workloads(home, may_restart=True)
    except NotServingError:
        return "no gateway of this home runs, so nobody could answer a share"
    if workload not in served:
        return "the gateway does not serve this workload, so nobody could answer a share"
    return None


def measure_traffic(con: Connection, workload: str, champion: str, now: datetime) -> TrafficAtHand:
    """Measure the traffic that a canary beside this champion may count on."""
    answers = warehouse.read(
        con,
        "marts/served_answers",
        LoggedAnswer,
        workload_id=workload,
        since=now - timedelta(days=TRAFFIC_DAYS),
        model_name=f"{workload}@{champion}",
        most=MAX_ANSWERS,
    )
    return logged_traffic.measure([*answers], now.timestamp())


def start(
    home: Settings,
    settings: RolloutSettings,
    version: Version,
    champion: Version,
    decision: Decision,
) -> RecordedRollout:
    """Let an approved and released version answer a share; idempotent, and resumed after a kill.

    The caller holds the workload's lock and has checked the approval. Another version's canary is
    stopped. Which kinds decide is what the champion's traffic of the last days can show.
    """
    name, number = version.name, version.number
    known = running(home, name)
    if known is not None:
        is_same = known.intention.version == number and known.ending is None
        if is_same and known.intention.champion == champion.number:
            return resume_start(home, known, decision)
        stop(home, known, f"version {number} was approved, and its canary begins")
    now = _now()
    with warehouse.connect(home.tables) as con:
        traffic = measure_traffic(con, name, champion.number, now)
    rules = settings.canary or CanarySettings()
    plan = rollout_order.plan_of(rules, name, number, champion.number, traffic.dislike_seconds)
    order = RolloutOrder(
        id=secrets.token_hex(6),
        plan=plan.with_decisive_kinds(traffic.conversations_an_hour, traffic.risks),
        limits=traffic.limits,
        started_at=now.isoformat(timespec="milliseconds"),
        shadow=settings.shadow,
    )
    first = rollout_log.first_step(
        order.id,
        name,
        number,
        champion.number,
        evidence=version.evidence,
        adapter=version.adapter,
        order=order.to_text(),
        now=now,
    )
    begun = RecordedRollout({"intended": first})
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        rollout_log.write(con, first)
        append_link(home, con, begun, "start", f"version {number} answers a share")
    return resume_start(home, begun, decision)


def resume_start(home: Settings, rollout: RecordedRollout, decision: Decision) -> RecordedRollout:
    """Tag the version, set its alias, and record that; idempotent."""
    name, number = rollout.intention.workload_id, rollout.intention.version
    if "started" in rollout.entries:
        return rollout
    champion_alias.tag_decision(name, number, "approve", decision.approver, decision.comment)
    tags = {version_tags.ROLLOUT_TAG: rollout.order, version_tags.LINK_TAG: decision.link or None}
    registry.tag_version(name, number, {key: value for key, value in tags.items() if value})
    registry.remove_alias(name, CHALLENGER, number)
    registry.put_alias(name, CANARY, number)
    return _add_step(home, rollout, "started")


def trial(home: Settings, workload: str) -> Trial | None:
    """Return the version that proves itself now."""
    rollout = running(home, workload)
    if rollout is None:
        return None
    first = rollout.intention
    return Trial(first.version, first.evidence_digest, rollout.ending is not None)


def trial_version(con: Connection, workload: str) -> str | None:
    """Return the number of that version."""
    rollout = rollout_log.unsettled(con, workload)
    return rollout.intention.version if rollout else None


def outputs_in_use(con: Connection) -> set[str]:
    """Return the evidence and the adapters that any canary was about."""
    firsts = [rollout.intention for rollout in rollout_log.list_rollouts(con)]
    return {name for first in firsts for name in (first.evidence_digest, first.adapter_key)}


def begin(
    home: Settings,
    settings: RolloutSettings,
    version: Version,
    champion: Version,
    decision: Decision,
) -> str:
    """Let an approved and released version answer a share; return the canary's id."""
    return start(home, settings, version, champion, decision).id


def end(home: Settings, workload: str, why: str) -> None:
    """Stop the canary that runs, if one does; the champion stays."""
    if (rollout := running(home, workload)) is not None:
        stop(home, rollout, why)


def stop(home: Settings, rollout: RecordedRollout, why: str) -> None:
    """End a canary of which nothing was shown, by rule; the champion stays."""
    record_end(home, rollout, "stopped", why)
    settle_version(home, rollout)


def record_end(
    home: Settings, rollout: RecordedRollout, outcome: RolloutEnding, why: str, record: Json = None
) -> None:
    """Record in one transaction that a canary ended by rule; the first end counts."""
    known = running(home, rollout.intention.workload_id)
    if known is None or known.id != rollout.id or known.ending is not None:
        return
    change = rollback_change(rollout, by=RULE, reason=why) if outcome == "roll back" else None
    kept: dict[str, Json] = record if isinstance(record, dict) else {}
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        rollout_log.add_step(con, rollout, "ended", _now(), outcome=outcome, note=why, record=kept)
        append_link(home, con, rollout, outcome, why, record, change)


def rollback_change(rollout: RecordedRollout, *, by: str, reason: str) -> ChampionChange:
    """Return the change that leaves a canary's version for the champion, who stays."""
    first = rollout.intention
    champion = registry.version_numbered(first.workload_id, first.champion)
    return ChampionChange(
        workload_id=first.workload_id,
        kind="rollback",
        evidence_digest=champion.evidence,
        adapter_key=champion.adapter,
        version=champion.number,
        champion_before=first.version,
        adapter_before=first.adapter_key,
        asked_by=by,
        reason=reason,
        rollout_id=rollout.id,
    )


def settle_version(home: Settings, rollout: RecordedRollout) -> None:
    """Make tags and alias of an ended canary's version as its end says; idempotent.

    A version that goes on is champion already.
    """
    first = rollout.intention
    with warehouse.connect(home.tables) as con:
        known = rollout_log.unsettled(con, first.workload_id)
        head = decision_log.read_head(con)
        state = release_state.read_state(con, first.workload_id)
    if known is None or known.id != rollout.id or known.ending is None:
        return
    tags: dict[str, str | None] = {version_tags.ROLLOUT_TAG: None}
    for change in (recorded.change for recorded in state.changes):
        if change.kind == "rollback" and change.rollout_id == rollout.id and head is not None:
            left = f"to version {change.version} by {change.asked_by}: {change.reason}"
            # The anchor, so that cutting the order off the chain is detected.
            left = registry.fit_tag(left)
            tags |= {version_tags.ROLLED_BACK_TAG: left, version_tags.LINK_TAG: head.anchor}
    registry.remove_alias(first.workload_id, CANARY, first.version)
    if first.version in registry.version_tags(first.workload_id):  # else somebody deleted it
        registry.tag_version(first.workload_id, first.version, tags)
    _add_step(home, rollout, "settled")


def append_link(
    home: Settings,
    con: Connection,
    rollout: RecordedRollout,
    event: Event,
    why: str,
    record: Json = None,
    change: ChampionChange | None = None,
) -> None:
    """Append what a rule did to the chain, in the caller's transaction, with the evidence.

    A rollback is a ``change``, so that no turn asks about the version again.
    """
    first, now = rollout.intention, _now()
    rules = rollback_rules.in_force(release_home.of(home), con, first.workload_id)
    under = decision_log.in_force(con, first.workload_id, rules, now=now)
    entry = LogEvent(
        kind="rollback" if event == "roll back" else "canary",
        workload=first.workload_id,
        evidence=first.evidence_digest,
        flow_run_id="",
        decided_at=now,
        approver=RULE,
        comment=why,
        attempt=0,
        body=decision_log.link_body(
            decision_log.POLICY,
            under.digest,
            **(change.fields if change else {"rollout": rollout.id}),
            event=event,
            version=first.version,
            champion=first.champion,
            counts=counts_text(record),
        ),
    )
    decision_log.append_event(con, entry)


def counts_text(record: Json) -> str:
    """Return a verdict's counts by kind; empty if there is no verdict."""
    verdict = record.get("verdict") if isinstance(record, dict) else None
    kinds = verdict.get("kinds") if isinstance(verdict, dict) else None
    parts = list[str]()
    for kind in kinds if isinstance(kinds, list) else []:
        match kind:
            case {"kind": str(name), "canary": int(canary), "champion": int(champion)}:
                parts.append(f"{name} {canary} of the canary, {champion} of the champion")
            case _:
                continue
    return "; ".join(parts)


def order_of(rollout: RecordedRollout) -> RolloutOrder:
    """Return a canary's order as the warehouse has it."""
    return rollout_order.read(rollout.order)


def rollouts_of(
    home: Settings, workload: str | None = None, wait_seconds: float = PATIENCE_SECONDS
) -> Sequence[RecordedRollout]:
    """List the canaries of a workload, or of all, the oldest first."""
    if not home.has_warehouse:
        return []
    with warehouse.connect(home.tables, wait_seconds) as con:
        return rollout_log.list_rollouts(con, workload)


def running(home: Settings, workload: str) -> RecordedRollout | None:
    """Return the canary of a workload that is under way or was interrupted."""
    with warehouse.connect(home.tables) as con:
        return rollout_log.unsettled(con, workload)


def read_canaries(home: Settings, workload: str) -> list[CanaryStatus]:
    """Return a workload's canaries, the newest first, with the gateway's evidence."""
    return [_status(home, rollout) for rollout in reversed(rollouts_of(home, workload))]


def _status(home: Settings, rollout: RecordedRollout) -> CanaryStatus:
    first, order = rollout.intention, order_of(rollout)
    shared = rollout.id if rollout.ending is None else None
    report = rollout_reports.read_rollout(home, first.workload_id, shared)
    if report is not None and report.id != rollout.id:
        report = None
    record: dict[str, Json] = {}
    if (last := rollout.ending or rollout.entries.get("undecided")) is not None:
        record = last.content()
    if rollout.ending is not None:
        state, reason = rollout.ending.outcome, rollout.ending.note
    elif report is not None:
        state, reason = report.state, report.reason
    else:
        state, reason = "waiting", "no gateway has said anything of it"
    recorded = record.get("history")
    history = recorded if isinstance(recorded, list) else []
    if report is not None and (rollout.ending is None or not history):
        history = [*report.history]
    plan = order.plan
    return CanaryStatus(
        id=rollout.id,
        version=first.version,
        champion=first.champion,
        started_at=order.started_at,
        state=state,
        reason=" ".join(reason.split()),
        is_over=rollout.ending is not None,
        steps=[(step.share, step.seconds) for step in plan.steps],
        deadline_seconds=plan.deadline_seconds,
        margin=plan.margin,
        shadow=order.shadow,
        worse_bounds={rule.kind: 1 / (plan.alpha * rule.weight) for rule in plan.kinds},
        within_bound=1 / plan.alpha,
        decisive=plan.decisive,
        requirement=plan.requirement,
        history=canary_status.read_history(history),
    )


def _add_step(
    home: Settings, rollout: RecordedRollout, step: Literal["started", "settled"]
) -> RecordedRollout:
    now = _now()
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        rollout_log.add_step(con, rollout, step, now)
    entry = replace(rollout.intention, step=step, record="{}", noted_at=now)
    return RecordedRollout({**rollout.entries, step: entry})


def _now() -> datetime:
    return datetime.now(UTC)


def form_text(home: Settings, evidence: Evidence, workload: Workload) -> str:
    """Say what an approval starts; empty where versions become champion at once."""
    name, canary = evidence.subject.workload, workload.serve.canary
    if canary is None:
        return ""
    champion = registry.champion_version(name)
    version = registry.version_of_evidence(name, evidence.digest)
    number = champion.number if champion else None
    why = immediate_reason(home, workload.serve, number, name)
    if champion is None or version is None or why is not None:
        return (
            f"\n**On approval** it becomes champion at once: {why or 'it is not registered'}.\n\n"
        )
    here = running(home, name)
    replaced = (
        f", and stops the canary of version {here.intention.version}"
        if here is not None and here.intention.version != version.number
        else ""
    )
    return (
        f"\n**On approval** it answers a share first, as a canary{replaced}: {canary.summary}.\n\n"
    )


def check(home: Settings, wait_seconds: float) -> Iterator[CheckResult]:
    """Check that canaries are answered and decided, and that those that answer were started."""
    try:
        rollouts = rollouts_of(home, wait_seconds=wait_seconds)
    except WarehouseBusyError:
        yield note("canaries", "not checked: others hold the warehouse", "run the doctor again")
        return
    open_ones = {each.intention.workload_id: each for each in rollouts if not each.is_settled}
    try:
        served: Iterable[str] | None = gateway_status.served_workloads(home)
    except (NotServingError, StoreError):
        served = None
    for workload, rollout in sorted(open_ones.items()):
        what = f"version {rollout.intention.version} of {workload}"
        if rollout.ending is not None or "started" not in rollout.entries:
            remedy = "maintenance finishes it; `flywheel up` where it does not run"
            yield note("canaries", f"the canary of {what} was interrupted", remedy)
        elif served is None or workload not in served:
            state = f"{what} is a canary, and no gateway of this home serves the workload"
            yield wrong("canaries", state, f"`flywheel serve`; or {_stop_command(workload)}")
        elif (undecided := rollout.entries.get("undecided")) is not None:
            since = f"{undecided.noted_at:%Y-%m-%d %H:%M}"
            state = f"the canary of {what} is undecided since {since}: {undecided.note}"
            yield note(
                "canaries", state, f"{_stop_command(workload)} --to canary, or --to champion"
            )
    ids = {each.id for each in rollouts}
    for file in sorted(rollout_reports.rollout_file(home, "any").parent.glob("*.json")):
        report = rollout_reports.read_rollout(home, file.stem)
        if report is None or report.id not in ids:
            said = f"canary {report.id}" if report else "no canary in the gateway's form"
            yield wrong("canaries", f"{file} is of {said}, which nobody started here", f"rm {file}")


def _stop_command(workload: str) -> str:
    return f"`flywheel serve canary stop {workload}`"
