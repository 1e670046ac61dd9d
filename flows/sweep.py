"""Sweep: record the approvals that nobody can give any more, and check each champion.

Prefect runs no code for a suspended run that is cancelled or has waited for too long, and knows
nothing of evidence. So this looks, once an hour and whenever it is started. It also compares what
MLflow has as champion with the chain of decisions, and signs champions of older homes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from components import warehouse
from components.decide import record
from components.decide.reasons import Lapsed
from components.decide.record import Event
from components.decide.rules import OPEN, Rules
from components.register import journal, registry
from components.warehouse import Connection
from flows import approvals, consequences, dispatch, releases, settings, workload_files
from flows import config as configs
from flows.releases import NotApprovedError
from flows.workload_files import WorkloadFileError

NEVER_RESUMED = "never resumed"
"""What Prefect says of a run that waited for longer than it may."""

NEWER = "newer evidence"


@dataclass(frozen=True, slots=True)
class Lapse:
    """A promotion that nobody can answer any more, and why; ``rules`` are those of now."""

    flow_run_id: UUID
    workload: str
    evidence: str
    reason: Lapsed
    said: str
    rules: Rules


@flow
def sweep() -> int:
    """Cancel superseded approvals, record all that lapsed, and compare champions with the chain.

    Raises:
        NotApprovedError: A champion is not what was approved; it says which, and what differs.
    """
    found = [*superseded(), *ended()]
    recorded = note(found)
    get_run_logger().info("%d approvals lapsed since the last time", recorded)
    if objections := compare():
        raise NotApprovedError("; ".join(objections))
    return recorded


@task
def compare() -> list[str]:
    """Compare each workload's champion with the chain, and sign one that an older home left."""
    home = settings.load()
    if not consequences.has_mlflow(home):
        return []
    objections = list[str]()
    for workload in registry.names():
        found = releases.standing(home, workload)
        objections += found.objections
        if found.unsigned and not found.objections:
            with journal.held(home.locks, workload):
                signed = releases.sign_older(home, workload)
            get_run_logger().warning(
                "no signature: %s; signed now: %s", ", ".join(found.unsigned), signed or "none"
            )
    return objections


@task
def superseded() -> list[Lapse]:
    """Cancel each approval that waits while one of newer evidence of its workload does, too."""
    waiting: dict[str, list[FlowRun]] = defaultdict(list)
    for run in dispatch.find("promote", states=[StateType.PAUSED]):
        waiting[approvals.tagged(run, "workload")].append(run)
    found = [lapse for runs in waiting.values() for lapse in older(runs)]
    with get_client(sync_client=True) as client:
        for lapse in found:
            client.set_flow_run_state(lapse.flow_run_id, Cancelled(message=lapse.said), force=True)
    return found


def older(runs: Sequence[FlowRun]) -> Iterator[Lapse]:
    """Go through all of a workload's waiting promotions but the newest."""
    ordered = sorted(runs, key=lambda run: (str(run.created), str(run.id)))
    newest = approvals.tagged(ordered[-1], "evidence")
    for run in ordered[:-1]:
        yield _lapse(run, "superseded", f"{NEWER} {newest} waits for an answer")


@task
def ended() -> list[Lapse]:
    """Find the promotions that were cancelled, or that waited for longer than they may."""
    runs = dispatch.find("promote", states=[StateType.CANCELLED, StateType.FAILED])
    return [lapse for run in runs if (lapse := _of_ended(run)) is not None]


@task
def note(found: Sequence[Lapse]) -> int:
    """Record each lapse once, unless its evidence was decided; return how many were new."""
    now = datetime.now(UTC)
    with warehouse.connect(settings.load().warehouse) as con:
        noted = {link.flow_run_id for link in record.links(con) if link.kind == "lapsed"}
        # What was just cancelled is found among what has ended, too.
        fresh = {one.flow_run_id: one for one in found if str(one.flow_run_id) not in noted}
        return sum(_note(con, lapse, now=now) for lapse in fresh.values())


def _note(con: Connection, lapse: Lapse, *, now: datetime) -> bool:
    run = str(lapse.flow_run_id)
    decided = record.decision_on(con, lapse.evidence, lapse.rules)
    if decided and decided.flow_run_id == run:
        return False
    event = Event(
        kind="lapsed",
        workload=lapse.workload,
        evidence=lapse.evidence,
        flow_run_id=run,
        attempt=0,
        reason=lapse.reason,
        decided_at=now,
        comment=lapse.said,
    )
    with warehouse.transaction(con):
        record.append(con, event)
    return True


def _of_ended(run: FlowRun) -> Lapse | None:
    said = (run.state.message if run.state else None) or ""
    if said.startswith(NEWER):  # a sweep was killed between the two
        return _lapse(run, "superseded", said)
    if run.state_type == StateType.CANCELLED:
        return _lapse(run, "cancelled", said or "cancelled in Prefect")
    return _lapse(run, "timed_out", said) if NEVER_RESUMED in said else None


def _lapse(run: FlowRun, reason: Lapsed, said: str) -> Lapse:
    workload, evidence = (approvals.tagged(run, name) for name in ("workload", "evidence"))
    return Lapse(run.id, workload, evidence, reason, said, rules(workload))


def rules(workload: str) -> Rules:
    """Read a workload's rules for deciding; its file may be gone since, or wrong."""
    try:
        file = workload_files.require(settings.load(), workload)
        return configs.read(file).approve.rules()
    except (configs.ConfigError, WorkloadFileError):
        return OPEN
