"""Flows `consider` (start a turn when there is a reason) and `monitor` (publish status)."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from components.costs import Speed
from components.decide import decision_log
from components.decide.approvers import OPEN
from components.monitor import (
    signs,
    status_page,
    turn_starts,
    workload_status,
)
from components.monitor.settings import Trigger
from components.monitor.signs import Sign
from components.monitor.turn_starts import TurnStart
from components.monitor.workload_status import Day, Disk, Waiting, WorkloadStatus
from components.register import registry
from components.register.registry import Version
from components.release import champions
from components.release.release_state import RollbackError
from components.release.rollback_rules import Order
from components.scorecard import HOLDOUT
from components.store import manifest, output_folders, warehouse
from components.store.manifest import ScorecardManifest
from components.store.warehouse import Connection
from flows import (
    approvals,
    gateway_status,
    home_workloads,
    prefect_api,
    release_home,
    settings,
    trials,
    workload_file,
)
from flows.flow_runs import run_name
from flows.settings import Settings
from flows.workload_file import Workload, WorkloadError

MAX_STARTS = 10  # of the newest turns, and looks that started none, on the page

TURN_WANTED = "flywheel.turn.wanted"  # the event that requests a turn; an automation starts it

LOST_AFTER = timedelta(minutes=10)
"""After this, an event without a turn counts as lost: Prefect drops events it can't process."""


@flow(flow_run_name=run_name)
def consider(config: str) -> str:
    """Request a turn if there is a reason; first start those whose event was lost."""
    workload = home_workloads.workload_of_run(config)
    now = datetime.now(UTC)
    caught_up = start_lost_turns(config, workload.workload, now)
    start, signs = weigh_signs(workload, config, now)
    enter_decision(start, signs)
    if start.started:
        request_turn(config, start)
    answer = "asks for a turn" if start.started else "no turn"
    get_run_logger().info("%s: %s: %s", workload.workload, answer, start.reason)
    return f"{caught_up} lost turns started; {answer}: {start.reason}"


@task
def start_lost_turns(config: str, workload: str, now: datetime) -> int:
    """Start the requested turns whose event was lost."""
    with warehouse.connect(settings.load().tables) as con:
        lost = turn_starts.unclaimed_starts(con, workload, now - LOST_AFTER)
    for start in lost:
        prefect_api.start("turn/turn", {"config": config, "start": start.start_id}, [])
    return len(lost)


@task
def weigh_signs(workload: Workload, config: str, now: datetime) -> tuple[TurnStart, list[Sign]]:
    """Look at feedback, inputs and votes, and weigh them against cool-down and budget."""
    trigger = workload.trigger or Trigger()
    champion = registry.champion_version(workload.workload)
    under_way = bool(prefect_api.turns_under_way(Path(config)))
    with warehouse.connect(settings.load().tables) as con:
        signs = find_signs(con, workload.workload, champion, trigger, now)
        starts = turn_starts.read_starts(con, workload.workload, None)
    earlier = [start.looked_at for start in starts if start.started]
    choice = turn_starts.decide_start(signs, earlier, trigger, under_way=under_way, now=now)
    start = TurnStart(
        start_id=str(flow_run.id),
        workload_id=workload.workload,
        cause="trigger",
        started=choice.starts,
        reason=choice.reason,
        looked_at=now,
    )
    return start, signs


def find_signs(
    con: Connection,
    workload: str,
    champion: registry.Version | None,
    trigger: Trigger,
    now: datetime,
) -> list[Sign]:
    """Return the signs found; before the first turn only feedback counts."""
    since = turn_starts.learned_until(con, workload, now)
    approved_at = decision_log.approved_at(con, champion.evidence) if champion else None
    candidates = [
        signs.feedback_sign(con, workload, since or datetime.fromtimestamp(0, UTC), trigger),
        signs.input_sign(con, workload, since, trigger) if since else None,
        signs.vote_sign(con, workload, champion.number, approved_at, trigger, now=now)
        if champion and approved_at
        else None,
    ]
    return [sign for sign in candidates if sign]


@task
def enter_decision(start: TurnStart, signs: list[Sign]) -> None:
    """Record the decision before a turn is requested."""
    with warehouse.connect(settings.load().tables) as con:
        turn_starts.record_start(con, start, signs)


@task
def request_turn(config: str, start: TurnStart) -> None:
    """Emit the event that asks for a turn."""
    emit_event(
        TURN_WANTED,
        resource={
            "prefect.resource.id": f"flywheel.workload.{start.workload_id}",
            "prefect.resource.name": start.workload_id,
        },
        payload={"config": config, "start": start.start_id, "reason": start.reason},
    )


REGRESSED = "flywheel.champion.regressed"  # the event that proposes a rollback

REGRESSION_POLICY = "on_regression of the workload's file"  # who ordered its rollback


class MonitorError(RuntimeError):
    """Some workloads could not be looked at."""


@flow
def monitor(span_days: int = 30) -> str:
    """Publish the status of every workload of the home; skip files with mistakes.

    Raises:
        MonitorError: A workload could not be looked at; the others were.
    """
    home, statuses, broken = settings.load(), list[WorkloadStatus](), list[str]()
    failed: list[str] = []
    disk = measure_disk(home)
    home.monitor.mkdir(parents=True, exist_ok=True)
    for file in sorted(home.workloads.glob("*.yaml")):
        try:
            workload = workload_file.read_workload(file.resolve())
        except WorkloadError as error:
            broken.append(str(error))
            continue
        state = watch_workload(workload, span_days, disk, return_state=True)
        if state.is_completed():
            statuses.append(state.result())
        else:
            failed.append(workload.workload)
    manifest.write_atomically(
        home.monitor / "metrics.prom", status_page.prometheus_text(statuses).decode()
    )
    for mistakes in broken:
        get_run_logger().error(mistakes)
    if failed:
        raise MonitorError(
            f"monitoring {', '.join(failed)}: failed, as the task of each says; "
            f"{len(statuses)} other workloads were looked at"
        )
    return f"{len(statuses)} workloads, {len(broken)} files with mistakes"


@task
def watch_workload(workload: Workload, span_days: int, disk: Disk) -> WorkloadStatus:
    """Measure a workload's status, answer a regression, and publish the page."""
    champion = registry.champion_version(workload.workload)
    status = measure_status(workload, champion, span_days, disk)
    answer_regression(workload, status, champion)
    publish_status(status)
    return status


@task
def measure_status(
    workload: Workload, champion: Version | None, span_days: int, disk: Disk
) -> WorkloadStatus:
    """Count by model, test for drift and falling votes, and list waiting approvals."""
    now, home = datetime.now(UTC), settings.load()
    with warehouse.connect(home.tables) as con:
        since = now - timedelta(days=span_days)
        days = workload_status.days(con, workload.workload, since)
        latencies = workload_status.latencies(con, workload.workload, since)
        trigger = workload.trigger or Trigger()
        signs = find_signs(con, workload.workload, champion, trigger, now)
        starts = turn_starts.read_starts(con, workload.workload, MAX_STARTS)
    speeds = evaluated_speeds(home, workload.workload)
    return WorkloadStatus(
        workload=workload.workload,
        at=now,
        span_days=span_days,
        champion=f"version {champion.number}, adapter {champion.adapter}" if champion else "none",
        serving=replace(
            gateway_status.read_serving(home, workload.workload),
            canaries=trials.find().read_canaries(home, workload.workload),
        ),
        answering=answering_speed(speeds, champion),
        days=days,
        prices=request_prices(workload, days, speeds),
        latencies=latencies,
        currency=workload.cost.currency,
        findings=signs,
        starts=starts,
        waiting=waiting_approvals(workload.workload),
        disk=disk,
    )


def evaluated_speeds(home: Settings, workload: str) -> dict[str, Speed]:
    """Return the speed of each adapter in its evaluation on the holdout."""
    folders = output_folders.find(home.scorecards / workload)
    cards = sorted(map(ScorecardManifest.read, folders), key=lambda card: card.age)
    return {
        card.adapter: card.speed
        for card in cards
        if card.adapter and card.task == HOLDOUT and card.speed and card.speed.requests
    }


def request_prices(
    workload: Workload, days: Sequence[Day], speeds: Mapping[str, Speed]
) -> dict[str, float]:
    """Return a mean request's price by model, of those that have one."""
    adapters = {v.number: v.adapter for v in registry.list_versions(workload.workload)}
    prices = {
        sums.model_name: workload_status.price(
            sums, workload.cost, speeds.get(adapters.get(sums.version or "", ""))
        )
        for sums in workload_status.by_model(days)
    }
    return {model: price for model, price in prices.items() if price is not None}


def answering_speed(speeds: Mapping[str, Speed], champion: Version | None) -> str:
    """Describe the champion's speed in its evaluation, since not all logs have times."""
    speed = speeds.get(champion.adapter) if champion else None
    if speed is None or not speed.timed:
        return "not measured"
    return (
        f"first token after {speed.first_token:.2f} s, then "
        f"{speed.tokens_per_second:.0f} tokens/s, on {speed.machine}"
    )


def waiting_approvals(workload: str) -> list[Waiting]:
    """List a workload's pending approvals."""
    run_page = settings.load().run_page
    return [
        Waiting(
            f"{pending.name}, evidence {pending.evidence}",
            run_page(pending.flow_run_id),
            pending.since,
        )
        for pending in approvals.pending_approvals(approvals.workload_tag(workload))
    ]


@task
def publish_status(status: WorkloadStatus) -> None:
    """Keep the page in Prefect, where pages of one key form a history."""
    key = approvals.artifact_key("monitor", status.workload)
    description = "who serves the workload, its traffic, signs and turns"
    create_markdown_artifact(status_page.as_markdown(status), key=key, description=description)


@task
def answer_regression(workload: Workload, status: WorkloadStatus, champion: Version | None) -> None:
    """Report once per champion that it is liked less than its predecessor; roll back if set."""
    votes = [finding for finding in status.findings if finding.kind == "votes"]
    reasons = [finding.text for finding in votes if finding.is_reached]
    marker = settings.load().monitor / f"{status.workload}.regressed"  # the last reported version
    reported = marker.read_text() if marker.exists() else None
    if not reasons or champion is None or reported == champion.number:
        return
    # Counting may have waited an hour for the warehouse.
    if registry.champion_version(workload.workload) != champion:
        return
    emit_event(
        REGRESSED,
        resource={
            "prefect.resource.id": f"flywheel.workload.{status.workload}",
            "prefect.resource.name": status.workload,
        },
        payload={"workload": status.workload, "version": champion.number, "reason": reasons[0]},
    )
    if workload.trigger and workload.trigger.on_regression == "rollback":
        _roll_back(workload, reasons[0])
    manifest.write_atomically(marker, champion.number)


def _roll_back(workload: Workload, reason: str) -> None:
    """Roll back as the file orders; where names must be proved, only this process may."""
    if workload.approve.rules() == OPEN:
        parameters = {"workload": workload.workload, "by": REGRESSION_POLICY, "reason": reason}
        prefect_api.start(
            "rollback/rollback", parameters, [approvals.workload_tag(workload.workload)]
        )
        return
    order = Order(workload.workload, None, REGRESSION_POLICY, reason, is_policy=True)
    try:
        champions.roll_back(release_home.of(settings.load()), order)
    except RollbackError as error:  # people were told; the first champion has none before it
        get_run_logger().error("%s", error)


@task
def measure_disk(home: Settings) -> Disk:
    """Measure the home's size and the free space of its disk, while others write and delete."""
    used = 0
    for folder, _, names in os.walk(home.home):
        for name in names:
            with suppress(FileNotFoundError):
                used += Path(folder, name).stat().st_size
    return Disk(used, shutil.disk_usage(home.home).free)
