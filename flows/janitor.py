"""Janitor: end the flow runs that nothing runs any more, or that run for too long.

It settles what they left half done.

The automation on missing heartbeats can't see a run that never beat, and forgets all runs while the
Prefect server is away. This looks at what the server has kept.
"""

from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging import get_run_logger
from prefect.states import Crashed

from components import warehouse
from components.decide import record
from components.register import registry
from components.schema import Json
from flows import approvals, champions, dispatch, settings, sweep, time_limits
from flows.automations import BEAT, SILENCE

RECENT = timedelta(days=1)
"""A promotion that crashes again and again is started no longer than this."""


@flow
def janitor(silence_seconds: float = SILENCE.total_seconds()) -> str:
    """Crash the runs that claim a process and have given no sign of life for so long.

    A change of champion that was killed is finished, or undone, after that; and a promotion that
    was killed between the answer and what follows from it goes on.
    """
    silence = timedelta(seconds=silence_seconds)
    since = datetime.now(UTC) - silence
    home = settings.load()
    with get_client(sync_client=True) as client:
        dead = [run for run in claiming(since) if not has_beaten(client, run, since)]
        for run in dead:
            said = f"No sign of life for {silence}: nothing runs it"
            client.set_flow_run_state(run.id, Crashed(message=said), force=True)
            get_run_logger().warning("%s (%s): %s", run.name, run.id, said)
        late = time_limits.cancel_late(client, home.flow_hours, now=datetime.now(UTC))
        for run in late:
            get_run_logger().warning("%s (%s) ran for too long and is cancelled", run.name, run.id)
    settled = champions.reconcile(home)
    for entry in settled:
        get_run_logger().warning(champions.say(entry))
    unfinished = [run for run in crashed(datetime.now(UTC) - RECENT) if is_decided(run)]
    for run in unfinished:
        again = dispatch.start("promote/promote", run.parameters, run.tags, f"after {run.id}")
        get_run_logger().warning("%s was decided and crashed: %s goes on", run.name, again.name)
    return (
        f"{len(dead)} runs were dead, {len(late)} ran for too long, {len(settled)} changes of a "
        f"champion were interrupted, {len(unfinished)} promotions that were decided go on"
    )


def claiming(since: datetime) -> list[FlowRun]:
    """List the runs that have claimed to be started, or to run, for longer than that."""
    states = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    found = dispatch.find(None, states=states)
    return [run for run in found if run.state and run.state.timestamp < since]


def crashed(since: datetime) -> list[FlowRun]:
    """List the promotions that crashed after a time, but for those whose evidence is asked on."""
    found = dispatch.find("promote", states=[StateType.CRASHED])
    going = dispatch.find("promote", states=approvals.UNDER_WAY)
    asked = {approvals.tagged(run, "evidence") for run in going}
    fresh = [run for run in found if run.state and run.state.timestamp >= since]
    latest = {approvals.tagged(run, "evidence"): run for run in reversed(fresh)}
    return [run for evidence, run in latest.items() if evidence not in asked]


def is_decided(run: FlowRun) -> bool:
    """Tell whether people have decided on a promotion's evidence, and its version says nothing."""
    workload, evidence = (approvals.tagged(run, name) for name in ("workload", "evidence"))
    version = registry.of_evidence(workload, evidence)
    if version is None or version.decision:
        return False
    with warehouse.connect(settings.load().warehouse) as con:
        return record.decision_on(con, evidence, sweep.rules(workload)) is not None


def has_beaten(client: SyncPrefectClient, run: FlowRun, since: datetime) -> bool:
    """Tell whether the server heard a heartbeat of the run after a time."""
    wanted: Json = {
        "filter": {
            "event": {"name": [BEAT]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
            "occurred": {"since": since.isoformat(), "until": datetime.now(UTC).isoformat()},
        },
        "limit": 1,
    }
    reply = client.request("POST", "/events/filter", json=wanted).raise_for_status()
    return bool(reply.json()["events"])
