"""Cancel flow runs that compute for longer than they may.

Prefect's own timeout can't interrupt a process within a library, and starts anew with each
process. A cancelled run is ended by its worker from outside, what it trains is ended with it, and
its state says why. What it had finished is kept: the next run goes on from there.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling

from flows import dispatch

LONG = 7.0
SHARES: Mapping[str, float] = {
    "collect": 1.0,
    "consider": 1.0,
    "curate": 1.0,
    "evaluate": LONG,
    "maintenance": 1.0,
    "monitor": 1.0,
    "promote": 1.0,
    "rollback": 1.0,
    "train": LONG,
    "turn": LONG,
}
"""Each flow's limit, as a multiple of ``FLYWHEEL_FLOW_HOURS``: a turn waits for its trainings and
evaluations. A run that is suspended until somebody approves does not compute."""


def cancel_late(client: SyncPrefectClient, hours: float, *, now: datetime) -> list[FlowRun]:
    """Cancel the runs that have been running for longer than their flow may, and return them.

    Args:
        client: Of the Prefect server.
        hours: The limit of a flow that neither trains nor waits for that.
        now: The time (UTC).
    """
    late: list[FlowRun] = []
    for name, share in SHARES.items():
        limit = timedelta(hours=hours * share)
        for run in dispatch.find(name, states=[StateType.RUNNING]):
            if run.state is not None and run.state.timestamp < now - limit:
                said = f"Ran for more than {hours * share:g} h, which FLYWHEEL_FLOW_HOURS allows"
                client.set_flow_run_state(run.id, Cancelling(message=said))
                late.append(run)
    return late
