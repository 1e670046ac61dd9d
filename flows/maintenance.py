"""Maintenance: finish what was interrupted, verify, end what nothing runs or answers any more.

Three components end flow runs, each where only it can know. The supervisor crashes the runs of its
own workers whose process is gone (``flows.stack.health``). Prefect's automation on missing
heartbeats crashes those of a machine that is gone. This flow ends the rest: runs that never sent a
heartbeat, runs that were silent during an outage of the server, runs that take too long, and
approvals that can no longer be answered.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import UUID

from prefect import Task, flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Cancelling, Crashed

from components.decide import decision_log
from components.decide.approvers import OPEN, ApprovalRules
from components.decide.chain import ExpiryReason
from components.decide.decision_log import LogEvent
from components.register import registry, tracking
from components.register.registry import ModelNameTakenError
from components.register.version_tags import CHALLENGER
from components.release import champions, installation, releases
from components.release.releases import NotApprovedError
from components.schema import WORKLOAD_ID, Json
from components.store import file_locks, output_folders, warehouse
from components.store.warehouse import Connection
from flows import (
    approval_loop,
    approvals,
    home_workloads,
    prefect_api,
    promote,
    release_home,
    settings,
    train,
    trials,
    workload_file,
)
from flows.automations import BEAT, SILENCE
from flows.deployments import POOLS
from flows.erasing import erase_servers
from flows.home_workloads import WorkloadFileError
from flows.jobs import runner
from flows.prefect_api import Run
from flows.settings import Settings

RECENT = timedelta(days=1)  # after its answer a promotion is restarted no longer than this

NEVER_RESUMED = "never resumed"  # Prefect's message for a run that waited past its timeout

NEWER = "newer evidence"

P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Expiry:
    """A promotion that can no longer be answered, and why."""

    flow_run_id: UUID
    workload: str
    evidence: str
    reason: ExpiryReason
    message: str


class MaintenanceError(RuntimeError):
    """Raised in the end when steps failed, and all others were done."""


@flow
def maintenance(silence_seconds: float = SILENCE.total_seconds(), verify: bool = True) -> str:
    """Recover and verify champions, end dead runs, record lapsed approvals, settle canaries.

    A step that fails costs no other one. Champions are verified before all that may take long.

    Args:
        silence_seconds: How long a run that claims a process may go without a sign of life.
        verify: Compare each champion's alias, tags and files with what was approved; then, once a
            day, merge a shared warehouse's files.

    Raises:
        NotApprovedError: A champion is not what was approved; the message lists the differences.
        MaintenanceError: Steps failed; the message names them.
    """
    steps = _Steps()
    interrupted = steps.do(recover_champions, 0)
    objections = steps.do(verify_champions, []) if verify else []
    dead = steps.do(crash_dead, 0, timedelta(seconds=silence_seconds))
    late = steps.do(cancel_late_runs, 0)
    expiries = [*steps.do(superseded, []), *steps.do(ended, [])]
    lapsed = steps.do(record_lapsed, 0, expiries)
    resumed = steps.do(resume_answered, 0)
    # The next run comes in a quarter of an hour.
    settled, troubles = steps.do(trials.settling().with_options(retries=0), ([], []), "")
    lapsed += steps.do(stale, 0)  # after all that may change a champion
    steps.do(clear_challengers, None)
    steps.do(reserve_models, None)
    steps.do(end_lost_trainings, 0)
    if verify:  # a longer run would be in the way of the hour's verification
        steps.do(maintain_warehouse, None)
    if troubles:
        get_run_logger().error("canaries that could not be settled: %s", "; ".join(troubles))
    if objections:
        raise NotApprovedError("; ".join([*objections, *steps.failed]))
    if steps.failed:
        raise MaintenanceError(
            f"{len(steps.failed)} steps failed, all others were done: {'; '.join(steps.failed)}"
        )
    return (
        f"{dead} runs were dead, {late} ran for too long, {lapsed} approvals lapsed, {interrupted} "
        f"changes of a champion were interrupted, {resumed} answered promotions were resumed, "
        f"{len(settled)} canaries were settled"
    )


class _Steps:
    """Carries out steps, and keeps why some of them failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def do(
        self, step: Task[P, Result], default: Result, *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        """Return what a step returns, or the default if it fails; Prefect logs its traceback."""
        try:
            return step(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the flow fails of it in the end
            self.failed.append(f"{step.name}: {_reason(error)}")
            return default


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@task
def maintain_warehouse() -> None:
    """Merge the files of a shared warehouse and delete what is old, once a day."""
    place, now = settings.load().shared_warehouse, datetime.now(UTC)
    if place is not None and place.is_due(now):
        done = place.maintain(now)
        get_run_logger().info(
            "%s: %d files written anew, %d old states forgotten, %d files deleted",
            place,
            done.rewritten,
            done.forgotten,
            done.deleted,
        )


@task
def crash_dead(silence: timedelta) -> int:
    """Crash the runs that claim a process and have shown no sign of life for that long."""
    since = datetime.now(UTC) - silence
    states = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    # What others run in the same server is theirs, whether it sends heartbeats or not.
    found = (prefect_api.find(flow, states=states, pools=POOLS) for flow in SHARES)
    runs = chain.from_iterable(found)
    claiming = [run for run in runs if run.state and run.state.timestamp < since]
    with get_client(sync_client=True) as client:
        dead = [run for run in claiming if not has_beaten(client, run, since)]
        for run in dead:
            message = f"No sign of life for {silence}: nothing runs it"
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)
            get_run_logger().warning("%s (%s): %s", run.name, run.id, message)
    return len(dead)


@task
def cancel_late_runs() -> int:
    """Cancel the runs that compute for longer than their flow may."""
    hours = settings.load().flow_hours
    with get_client(sync_client=True) as client:
        late = cancel_late(client, hours, now=datetime.now(UTC))
    for run in late:
        get_run_logger().warning("%s (%s) ran for too long and is cancelled", run.name, run.id)
    return len(late)


@task
def clear_challengers() -> None:
    """Take the alias `challenger` from each version of this home that no promotion asks about.

    A promotion that was cancelled, timed out or crashed can't; one that asks again sets it again.
    """
    home = settings.load()
    if not erase_servers.has_mlflow(home):
        return
    workloads = output_folders.names(home.evidence)
    named = [name for name, now in registry.read_all().items() if now.challenger is not None]
    challengers = [
        registry.aliased_version(name, CHALLENGER) for name in named if name in workloads
    ]
    # Read after the aliases: a promotion is under way before it sets one.
    runs = prefect_api.find("promote", states=approvals.UNDER_WAY)
    asked = {approvals.asked_evidence(run) for run in runs}
    for version in filter(None, challengers):
        is_ours = version.evidence in output_folders.names(home.evidence / version.name)
        if is_ours and version.evidence not in asked:
            registry.remove_alias(version.name, CHALLENGER, version.number)
            message = "version %s of %s is no challenger any more: nobody is asked about it"
            get_run_logger().info(message, version.number, version.name)


@task
def reserve_models() -> None:
    """Create the registered models of this home's workloads, before another account does."""
    home = settings.load()
    if not erase_servers.has_mlflow(home):
        return
    files = filter(Path.is_file, home_workloads.known(home))
    for workload in sorted(map(home_workloads.workload_of, files)):
        if not re.fullmatch(WORKLOAD_ID, workload):  # a mistake in its file
            continue
        try:
            registry.reserve_model(workload)
        except ModelNameTakenError as error:  # until a promotion stops at it
            get_run_logger().error("%s", error)


@task
def end_lost_trainings() -> int:
    """End the MLflow runs of trainings and searches of this home that nothing runs any more.

    They are open where the whole stack was stopped or killed; what is run again opens its own.
    """
    home = settings.load()
    if not erase_servers.has_mlflow(home):
        return 0
    claiming = tracking.running()  # before Prefect is asked: what begins meanwhile is not among it
    under_way = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    trainings = [run.parameters for run in prefect_api.find("train", states=under_way)]
    if not all(parameters.get("adapter") for parameters in trainings):
        return 0  # of a search's candidates Prefect doesn't know the keys
    trained = {Path(parameters["adapter"]).name for parameters in trainings}
    is_searching = bool(prefect_api.find("turn", states=under_way))
    lost = 0
    for run_id, key in claiming.items():
        if key in trained or key != Path(key).name:  # as anybody may type it into MLflow
            continue
        jobs = [train.training_job_folder(home.adapters / key)]
        jobs += [] if is_searching else [home.jobs / key]
        for job in filter(Path.is_dir, jobs):
            # A job that outlived its flow, and saves its checkpoint, holds it.
            with file_locks.held(job / runner.LOCK, wait=False) as is_ours:
                if is_ours:
                    tracking.close_run(run_id, "KILLED")
                    get_run_logger().warning("nothing runs %s any more: ended in MLflow", key)
                    lost += 1
    return lost


@task
def superseded() -> list[Expiry]:
    """Cancel each waiting approval whose workload has another waiting on newer evidence."""
    waiting: dict[str, list[Run]] = defaultdict(list)
    for run in prefect_api.find("promote", states=[StateType.PAUSED]):
        waiting[approvals.tag_value(run, "workload")].append(run)
    waiting.pop("", None)
    return [
        _expiry(run, "superseded", message)
        for runs in waiting.values()
        for run, message in older(runs)
        if approval_loop.withdraw(run, Cancelled(message=message))
    ]


@task
def stale() -> int:
    """Cancel each waiting approval whose evidence is out of date, and record why."""
    waiting = prefect_api.find("promote", states=[StateType.PAUSED])
    return sum(promote.withdraw_if_stale(run) for run in waiting)


@task
def ended() -> list[Expiry]:
    """Find the promotions that were cancelled, or that waited for longer than they may."""
    runs = prefect_api.find("promote", states=[StateType.CANCELLED, StateType.FAILED])
    expiries = (_of_ended(run) for run in runs)
    return [expiry for expiry in expiries if expiry and expiry.workload and expiry.evidence]


@task
def record_lapsed(expiries: Sequence[Expiry]) -> int:
    """Record each expiry once, unless its evidence was decided; return how many were new."""
    now = datetime.now(UTC)
    with warehouse.connect(settings.load().tables) as con:
        noted = decision_log.lapsed_runs(decision_log.links(con))
        # What was just cancelled is found among what has ended, too.
        by_run = {str(expiry.flow_run_id): expiry for expiry in expiries}
        fresh = [expiry for run, expiry in by_run.items() if run not in noted]
        return sum(_record(con, expiry, now=now) for expiry in fresh)


@task
def recover_champions() -> int:
    """Finish the changes of a champion that were interrupted."""
    interrupted = champions.reconcile(release_home.of(settings.load()))
    for entry in interrupted:
        get_run_logger().warning(champions.describe_change(entry))
    return len(interrupted)


@task
def resume_answered() -> int:
    """Restart the promotions that crashed or failed before an answer had its consequences."""
    since, resumed = datetime.now(UTC) - RECENT, 0
    for run in broken_off(since):
        if is_decided(run, since):
            prefect_api.start("promote/promote", run.parameters, run.tags, f"after {run.id}")
        elif has_unrecorded_answer(run, since):
            approval_loop.resume(run)  # which alone can read it
        else:
            continue
        get_run_logger().warning("%s was answered and ended: it is resumed", run.name)
        resumed += 1
    return resumed


@task
def verify_champions() -> list[str]:
    """Compare each workload's champion with the chain; return what differs or is unknown."""
    home = settings.load()
    if not erase_servers.has_mlflow(home):
        return []
    objections = list[str]()
    for workload in releases.own_models(home.tables):
        try:
            objections += _verify_champion(home, workload)
        except Exception as error:  # noqa: BLE001 - else it would hide what differs elsewhere
            objections.append(f"verifying the champion of {workload}: {_reason(error)}")
    return objections


def _verify_champion(home: Settings, workload: str) -> tuple[str, ...]:
    status = releases.release_status(release_home.of(home), workload)
    if status.objections:
        return status.objections
    with installation.lock_champion(home.tables, home.locks, workload, wait=False) as is_ours:
        if is_ours:  # else whoever changes the champion does the same
            champions.project(release_home.of(home), workload)
    return ()


def older(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    """Yield each of a workload's waiting promotions but that of the newest evidence, and why."""
    ordered = sorted(runs, key=lambda run: (run.created, str(run.id)))
    newest = approvals.asked_evidence(ordered[-1])
    for run in ordered[:-1]:
        if approvals.asked_evidence(run) != newest:
            yield run, f"{NEWER} {newest} waits for an answer"


def broken_off(since: datetime) -> list[Run]:
    """List the promotions that crashed or failed after a time, unless another asks on the same."""
    ended = prefect_api.find("promote", states=[StateType.CRASHED, StateType.FAILED])
    going = prefect_api.find("promote", states=approvals.UNDER_WAY)
    asked = {approvals.asked_evidence(run) for run in going}
    fresh = [run for run in ended if run.state and run.state.timestamp >= since]
    latest = {approvals.asked_evidence(run): run for run in reversed(fresh)}
    return [run for evidence, run in latest.items() if evidence and evidence not in asked]


def is_decided(run: Run, since: datetime) -> bool:
    """Return whether a promotion's evidence was decided after a time, and nothing came of it."""
    workload, evidence = approvals.tag_value(run, "workload"), approvals.asked_evidence(run)
    version = registry.version_of_evidence(workload, evidence) if workload else None
    if version is None:
        return False
    with warehouse.connect(settings.load().tables) as con:
        decision = decision_log.decision_on(con, evidence, _rules(workload))
    if decision is None or decision.decision == version.decision:
        return False
    return decision.decided_at >= since


def has_unrecorded_answer(run: Run, since: datetime) -> bool:
    """Return whether Prefect holds an answer to a promotion, given after a time, that is lost."""
    with warehouse.connect(settings.load().tables) as con:
        recorded = decision_log.links(con, flow_run_id=str(run.id))
    try:
        return approvals.answered_at(run.id, 1 + len(recorded)) >= since
    except LookupError:
        return False


def has_beaten(client: SyncPrefectClient, run: Run, since: datetime) -> bool:
    """Return whether the server received a heartbeat of the run after a time."""
    query: Json = {
        "filter": {
            "event": {"name": [BEAT]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
            "occurred": {"since": since.isoformat(), "until": datetime.now(UTC).isoformat()},
        },
        "limit": 1,
    }
    reply = client.request("POST", "/events/filter", json=query).raise_for_status()
    return bool(reply.json()["events"])


def _record(con: Connection, expiry: Expiry, *, now: datetime) -> bool:
    run = str(expiry.flow_run_id)
    decided = decision_log.decision_on(con, expiry.evidence, _rules(expiry.workload))
    about = decision_log.links(con, evidence=expiry.evidence)
    heard = {link.flow_run_id for link in about if link.kind in ("approve", "reject")}
    # Of two approvals that decide together, each may have been given to another run.
    if decided and run in heard:
        return False
    event = LogEvent(
        kind="lapsed",
        workload=expiry.workload,
        evidence=expiry.evidence,
        flow_run_id=run,
        attempt=0,
        reason=expiry.reason,
        decided_at=now,
        comment=expiry.message,
    )
    with warehouse.transaction(con):
        decision_log.append_event(con, event)
    return True


def _of_ended(run: Run) -> Expiry | None:
    message = (run.state.message if run.state else None) or ""
    if message.startswith(NEWER):  # an earlier run was killed between the two
        return _expiry(run, "superseded", message)
    if run.state and run.state.name == approval_loop.STALE:
        return _expiry(run, "stale", message)
    if run.state_type == StateType.CANCELLED:
        return _expiry(run, "cancelled", message or "cancelled in Prefect")
    return _expiry(run, "timed_out", message) if NEVER_RESUMED in message else None


def _expiry(run: Run, reason: ExpiryReason, message: str) -> Expiry:
    workload, evidence = approvals.tag_value(run, "workload"), approvals.asked_evidence(run)
    return Expiry(run.id, workload, evidence, reason, message)


def _rules(workload: str) -> ApprovalRules:
    try:
        file = home_workloads.require(settings.load(), workload)
        return workload_file.read_workload(file).approve.rules()
    except (workload_file.WorkloadError, WorkloadFileError):
        return OPEN  # its file is missing by now, or has mistakes


LONG = 7.0
# Each flow's limit, as a multiple of ``FLYWHEEL_FLOW_HOURS``: a turn waits for its trainings and
# evaluations. A run that is suspended until somebody approves does not compute.
SHARES: Mapping[str, float] = {
    "collect": 1.0,
    "consider": 1.0,
    "curate": 1.0,
    "evaluate": LONG,
    "maintenance": 1.0,
    "monitor": 1.0,
    "promote": 1.0,
    "prune": 1.0,
    "rollback": 1.0,
    "settle_rollouts": 1.0,
    "train": LONG,
    "turn": LONG,
}


def cancel_late(client: SyncPrefectClient, hours: float, *, now: datetime) -> list[Run]:
    """Cancel the runs that have computed for longer than their flow may, and return them."""
    late: list[Run] = []
    for name, share in SHARES.items():
        limit = timedelta(hours=hours * share)
        for run in prefect_api.find(name, states=[StateType.RUNNING], pools=POOLS):
            if run.state is not None and run.state.timestamp < now - limit:
                message = f"Ran for more than {hours * share:g} h, which FLYWHEEL_FLOW_HOURS allows"
                client.set_flow_run_state(run.id, Cancelling(message=message))
                late.append(run)
    return late
