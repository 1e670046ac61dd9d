"""Flow `settle_rollouts`: carry out what the evidence of canaries has shown.

The gateway says how its canaries stand, in files. What it says is held against the order that the
warehouse has, and a version becomes champion only if people have approved it, as ever.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from prefect import Task, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events import emit_event
from prefect.logging import get_run_logger

from components.decide import decision_log
from components.decide.approvers import ApprovalRules
from components.decide.chain import Link
from components.decide.statement import Statement
from components.extensions.canary import rollout_evidence, rollout_log, rollout_verdict
from components.extensions.canary.rollout_log import LEADS_ON, RecordedRollout
from components.extensions.canary.rollout_tally import RolloutTally
from components.extensions.canary.running_rollout import RolloutStatus
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence
from components.monitor import status_page
from components.register import mlflow_api, registry, version_tags
from components.release import champions, installation, release_state, releases, rollback_rules
from components.release.release_state import ChampionChange
from components.release.rollback_rules import Order
from components.schema import Json
from components.store import warehouse
from components.store.ledger import Decision
from components.store.warehouse import Connection
from flows import approval_loop, approvals, promotion, release_home, settings
from flows.approval_loop import StaleEvidenceError
from flows.canary import canary_rollouts, rollout_reports
from flows.canary.canary_rollouts import RolloutError
from flows.promotion import RolledBackError
from flows.settings import Settings
from flows.trials import CHANGED
from flows.workload_file import Workload

LONGEST_REASON = 500  # characters of what the gateway gives as a reason

MAX_POINTS = 200  # of the history of the evidence

Target: TypeAlias = Literal["canary", "champion"]


@dataclass(frozen=True, slots=True)
class SettledRollout:
    """What was done about a canary; ``outcome`` is its ending, ``undecided`` or ``started``."""

    workload: str
    version: str
    outcome: str
    reason: str

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        return f"{self.workload}: canary of version {self.version}: {self.outcome}: {self.reason}"


class UnsettledRolloutsError(RuntimeError):
    """Some canaries could not be settled; the message has the reason of each."""


@flow(name="settle_rollouts", flow_run_name="settle_rollouts {workload}")
def settle_rollouts(workload: str = "") -> str:
    """Promote the canaries that hold, roll back those that failed, and tell people.

    Args:
        workload: Only this one's; all if left empty.
    """
    settled, troubles = settle_task(workload)
    if troubles:
        raise UnsettledRolloutsError("; ".join(troubles))
    return "; ".join(each.sentence for each in settled) or "nothing to do"


def _is_mlflow_away(_: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and mlflow_api.is_away(error)


@task(
    retries=30,
    retry_delay_seconds=60,
    retry_condition_fn=_is_mlflow_away,
    cache_policy=NO_CACHE,  # a promotion that an answer resumes looks again
)
def settle_task(workload: str = "") -> tuple[list[SettledRollout], list[str]]:
    """Settle the canaries of a workload, or of all; return what was done and what failed."""
    home = settings.load()
    settled, troubles = list[SettledRollout](), list[str]()
    running = [each for each in canary_rollouts.rollouts_of(home) if not each.is_settled]
    for name in sorted({each.intention.workload_id for each in running}):
        if workload not in ("", name):
            continue
        try:
            done = settle(home, name)
        except (ValueError, LookupError, OSError) as error:
            if mlflow_api.is_away(error):
                raise
            get_run_logger().error("settling the canary of %s: %s", name, error)
            troubles.append(f"{name}: {error}")
            continue
        if done is not None:
            get_run_logger().info(done.sentence)
            _publish(home, done)
            settled.append(done)
    return settled, troubles


def _publish(home: Settings, done: SettledRollout) -> None:
    """Tell people, and keep the evidence as an artifact; under its key they form a history."""
    newest = canary_rollouts.read_canaries(home, done.workload)[0]
    key = approvals.artifact_key("canary", done.workload)
    page = status_page.canary_markdown(newest)
    create_markdown_artifact(page, key=key, description="how the canary ended, and its evidence")
    emit_event(
        CHANGED,
        resource={
            "prefect.resource.id": f"flywheel.workload.{done.workload}",
            "prefect.resource.name": done.workload,
        },
        payload={
            "workload": done.workload,
            "version": done.version,
            "outcome": done.outcome,
            "reason": done.reason,
        },
    )


def settle(home: Settings, workload: str) -> SettledRollout | None:
    """Finish what is interrupted or decided about a workload's canary; ``None`` if nothing is.

    Each step is recorded before the next, so that a kill at any place is made good by the next
    call. Two at once wait for each other.
    """
    with installation.lock_champion(home.tables, home.locks, workload):
        champions.recover(release_home.of(home), workload)
        rollout = canary_rollouts.running(home, workload)
        if rollout is None:
            return None
        if rollout.ending is not None:
            return _carry_out(home, rollout)
        if (why := _objection(rollout)) is not None:
            return _stop(home, rollout, why)
        if "started" not in rollout.entries:
            return _resume_start(home, rollout)
        report = rollout_reports.read_rollout(home, workload, rollout.id)
        if report is None or report.id != rollout.id:  # of an older canary, or of none
            return None
        return _answer(home, rollout, report)


def _answer(
    home: Settings, rollout: RecordedRollout, report: RolloutStatus
) -> SettledRollout | None:
    why = " ".join(report.reason.split())[:LONGEST_REASON]
    match report.state:
        case "hold":
            _require_shown(home, rollout, report)
            try:
                _require_approved(home, rollout)
            except (StaleEvidenceError, RolledBackError) as error:
                return _stop(home, rollout, str(error))
            canary_rollouts.record_end(home, rollout, "hold", why, _record(report))
            return _carry_out(home, rollout)
        case "roll back":
            canary_rollouts.record_end(home, rollout, "roll back", why, _record(report))
            return _carry_out(home, rollout)
        case "undecided":
            return _tell_once(home, rollout, why, _record(report))
        case "void" | "stopped":
            return _stop(home, rollout, why)
        case _:
            return None


def _objection(rollout: RecordedRollout) -> str | None:
    """Return why nothing can be shown of a canary any more, by what MLflow has."""
    first = rollout.intention
    aliases = registry.read_aliases(first.workload_id)
    versions = {each.number: each for each in registry.list_versions(first.workload_id)}
    version = versions.get(first.version)
    if version is None:
        return f"version {first.version} is not in MLflow any more"
    if version.tainted:
        return f"it has learned from rows that were erased (certificate {version.tainted})"
    if aliases.champion != first.champion:
        now = f"version {aliases.champion}" if aliases.champion else "nobody"
        return f"the champion changed from version {first.champion} to {now}"
    if "started" not in rollout.entries:
        return None
    if aliases.canary != first.version:
        return "somebody removed or moved its alias in MLflow"
    tags = registry.version_tags(first.workload_id)[first.version]
    if tags.get(version_tags.ROLLOUT_TAG) != rollout.order:
        return "somebody changed its order in MLflow"
    return None


def _require_shown(home: Settings, rollout: RecordedRollout, report: RolloutStatus) -> None:
    """Refuse a `hold` that the order of the warehouse and the file of evidence do not give."""
    order = canary_rollouts.order_of(rollout)
    verdict = report.verdict if isinstance(report.verdict, dict) else {}
    elapsed, size = _number(verdict.get("elapsed")), report.evidence_bytes
    path = rollout_reports.evidence_file(home, rollout.id)
    tally, count = RolloutTally(order.plan.windows), 0
    # Those that the look read: what came later may not show it any more. The verdict is valid at
    # every look, so that whoever forges the length can only choose among honest ones.
    for line in rollout_evidence.read_lines(path, size if isinstance(size, int) else None):
        tally.add(line)  # not held, as there may be a million an hour
        count += 1
    # Nobody else would, and it has the ids of answers.
    rollout_reports.forget_evidence(home, rollout.id)
    if rollout_verdict.decide_rollout(order, tally, elapsed).outcome != "hold":
        raise RolloutError(
            f"settling the canary of {order.plan.workload}: the gateway's file says `hold` for "
            f"version {order.plan.version}, and the {count:,} lines of evidence don't show it"
        )


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _require_approved(home: Settings, rollout: RecordedRollout) -> tuple[Evidence, Workload]:
    """Check the approval under the rules of now; the holdout's growth since changes nothing.

    Raises:
        StaleEvidenceError: It no longer holds.
    """
    first = rollout.intention
    evidence = evidence_folder.read(home.evidence / first.workload_id / first.evidence_digest)
    workload = promotion.in_force(home, evidence)
    approval_loop.require_unerased(evidence)
    champion = registry.champion_version(first.workload_id)
    if champion is None or champion.evidence != evidence.digest:
        approval_loop.require_champion(evidence, champion)
    approval_loop.require_policy(evidence, workload)
    approval_loop.require_decided(evidence, workload)
    return evidence, workload


def _stop(home: Settings, rollout: RecordedRollout, why: str) -> SettledRollout:
    canary_rollouts.stop(home, rollout, why)
    return _settled(rollout, "stopped", why)


def _resume_start(home: Settings, rollout: RecordedRollout) -> SettledRollout:
    first = rollout.intention
    with warehouse.connect(home.tables) as con:
        rules = rollback_rules.in_force(release_home.of(home), con, first.workload_id)
        decision = decision_log.decision_on(con, first.evidence_digest, rules)
    if decision is None or decision.decision != "approve":
        return _stop(home, rollout, "it is not approved under the rules of now")
    canary_rollouts.resume_start(home, rollout, decision)
    return _settled(rollout, "started", "its start was interrupted, and is finished")


def _tell_once(
    home: Settings, rollout: RecordedRollout, why: str, record: dict[str, Json]
) -> SettledRollout | None:
    if "undecided" in rollout.entries:
        return None
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        rollout_log.add_step(con, rollout, "undecided", datetime.now(UTC), note=why, record=record)
        canary_rollouts.append_link(home, con, rollout, "undecided", why, record)
    return _settled(rollout, "undecided", why)


def _carry_out(home: Settings, rollout: RecordedRollout) -> SettledRollout:
    """Do what the recorded end of a canary asks for, and record that it is done."""
    with warehouse.connect(home.tables) as con:
        known = rollout_log.unsettled(con, rollout.intention.workload_id)
        links = decision_log.links(con, workload_id=rollout.intention.workload_id)
    assert known is not None and known.ending is not None  # the caller holds the lock
    outcome, why = known.ending.outcome, known.ending.note
    if outcome in LEADS_ON:
        by, reason = _ordered(links, rollout) or (canary_rollouts.RULE, why)
        try:
            evidence, workload = _require_approved(home, rollout)
            releases.require_bytes(home.adapters, evidence)
            promotion.crown(home, workload, evidence, by=by, reason=reason, rollout_id=rollout.id)
        except (StaleEvidenceError, RolledBackError) as error:
            outcome, why = "stopped", str(error)
    canary_rollouts.settle_version(home, rollout)
    return _settled(rollout, outcome, why)


def _ordered(links: list[Link], rollout: RecordedRollout) -> tuple[str, str] | None:
    """Return who sent a canary on, and why; ``None`` if no person did."""
    for link in links:
        if (link.kind, decision_log.body_value(link, "rollout")) != ("canary", rollout.id):
            continue
        if decision_log.body_value(link, "proof") != decision_log.POLICY:
            return link.approver or "(erased)", decision_log.typed_comment(link)
    return None


def _settled(rollout: RecordedRollout, outcome: str, reason: str) -> SettledRollout:
    first = rollout.intention
    return SettledRollout(first.workload_id, first.version, outcome, reason)


def _record(report: RolloutStatus) -> dict[str, Json]:
    return {
        "began_at": report.began_at,
        "verdict": report.verdict,
        "history": report.history[-MAX_POINTS:],
        "shadow": report.shadow,
    }


def stop_form(home: Settings, order: Order, to: Target) -> tuple[Statement, ApprovalRules]:
    """Write the statement to sign for ending a canary, without its time; return the rules, too."""
    change = _planned(_running(home, order.workload), order, to)
    return rollback_rules.form(release_home.of(home), change)


def stop_by_order(home: Settings, order: Order, to: Target) -> SettledRollout:
    """End a running canary as a person orders: back to the champion, or on to everybody.

    The order is proved as a rollback's is, and is a link of the chain.

    Raises:
        RolloutError: No canary runs, or its version may not become champion.
        RollbackError: The order is refused.
    """
    workload = order.workload
    with installation.lock_champion(home.tables, home.locks, workload):
        champions.recover(release_home.of(home), workload)
        rollout = _running(home, workload)
        if (why := _objection(rollout)) is not None:
            return _stop(home, rollout, why)
        if to == "canary":
            try:
                _require_approved(home, rollout)
            except (StaleEvidenceError, RolledBackError) as error:
                raise RolloutError(f"sending the canary of {workload} on: {error}") from error
        _record_order(home, rollout, order, to)
        return _carry_out(home, rollout)


def _running(home: Settings, workload: str) -> RecordedRollout:
    rollout = canary_rollouts.running(home, workload) if home.has_warehouse else None
    if rollout is None or rollout.ending is not None:
        raise RolloutError(f"stopping the canary of {workload}: none runs")
    return rollout


def _planned(rollout: RecordedRollout, order: Order, to: Target) -> ChampionChange:
    first = rollout.intention
    if to == "champion":
        return canary_rollouts.rollback_change(rollout, by=order.by, reason=order.reason)
    return release_state.plan_promotion(
        first.workload_id,
        first.version,
        first.evidence_digest,
        first.adapter_key,
        by=order.by,
        reason=order.reason,
        rollout_id=rollout.id,
    )


def _record_order(home: Settings, rollout: RecordedRollout, order: Order, to: Target) -> None:
    change, first = _planned(rollout, order, to), rollout.intention
    report = rollout_reports.read_rollout(home, first.workload_id, rollout.id)
    record = _record(report) if report is not None and report.id == rollout.id else {}
    outcome = "roll back" if to == "champion" else "sent on"
    note = "by a person's order, which the chain of decisions has"

    def end(con: Connection) -> None:
        at = datetime.now(UTC)
        rollout_log.add_step(con, rollout, "ended", at, outcome=outcome, note=note, record=record)

    rollback_rules.record_order(
        release_home.of(home), change, order, about=first.evidence_digest, also=end
    )


def start_by_order(
    home: Settings, workload: Workload, number: str | None, report: Callable[[str], None]
) -> RecordedRollout:
    """Let an approved version answer a share though it is not asked about now.

    ``number`` is the version's; ``None`` for the newest that people approved and that never was
    champion.

    Raises:
        RolloutError: There is no such version, no champion, or no gateway that could answer.
    """
    name = workload.workload
    try:
        done = settle(home, name)  # what it would replace may have held
    except RolloutError as error:
        report(str(error))
    else:
        if done is not None:
            report(done.sentence)
    with installation.lock_champion(home.tables, home.locks, name):
        champions.recover(release_home.of(home), name)
        champion = releases.recorded_champion(release_home.of(home), name)
        version = _startable(home, name, number, champion.number if champion else None)
        rules = workload.serve
        if rules.canary is None:
            raise RolloutError(
                f"starting a canary of {name}: its file says `rollout: immediate`; set `rollout: "
                "{canary: {}}` under serve"
            )
        why = canary_rollouts.immediate_reason(
            home, rules, champion.number if champion else None, name
        )
        if champion is None or why is not None:
            raise RolloutError(f"starting a canary of {name}: {why}")
        evidence = evidence_folder.read(home.evidence / name / version.evidence)
        approval_loop.require_unerased(evidence)
        approval_loop.require_champion(evidence, champion)
        approval_loop.require_decided(evidence, workload)
        with warehouse.connect(home.tables) as con:
            decision = decision_log.decision_on(con, evidence.digest, workload.approve.rules())
        assert decision is not None  # it was required
        releases.require_bytes(home.adapters, evidence)
        releases.release_version(release_home.of(home), version, evidence)
        return canary_rollouts.start(home, rules, version, champion, decision)


def _startable(
    home: Settings, name: str, number: str | None, champion: str | None
) -> registry.Version:
    versions = {each.number: each for each in registry.list_versions(name)}
    if number is not None and number not in versions:
        known = ", ".join(versions) or "none"
        raise RolloutError(f"starting a canary of version {number} of {name}: MLflow has {known}")
    chosen = [versions[number]] if number is not None else [*reversed(versions.values())]
    fit = [
        each
        for each in chosen
        if each.number != champion
        and not each.tainted
        and _is_approved(home, each)
        and release_state.rolled_back(home.tables, name, each.adapter) is None
    ]
    if not fit:
        which = f"version {number}" if number else "no version"
        state = "may not answer" if number else "may answer"
        raise RolloutError(
            f"starting a canary of {name}: {which} {state}: it must be approved, not champion, "
            "not rolled back, and none of its rows erased"
        )
    return fit[0]


def _is_approved(home: Settings, version: registry.Version) -> bool:
    with warehouse.connect(home.tables) as con:
        rules = rollback_rules.in_force(release_home.of(home), con, version.name)
        decision: Decision | None = decision_log.decision_on(con, version.evidence, rules)
    return decision is not None and decision.decision == "approve"
