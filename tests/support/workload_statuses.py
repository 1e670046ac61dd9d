"""A workload's status of which nothing is to be said but its days; ``replace`` says more."""

from components.monitor.serving_status import ServingStatus
from components.monitor.workload_status import Day, Disk, WorkloadStatus
from tests.support import logs


def quiet(days: list[Day]) -> WorkloadStatus:
    """Return a status without champion, gateway, prices and findings."""
    return WorkloadStatus(
        workload="weather",
        at=logs.NOW,
        span_days=30,
        champion="none",
        serving=ServingStatus(is_running=False),
        answering="not measured",
        days=days,
        prices={},
        latencies={},
        currency="USD",
        findings=[],
        starts=[],
        waiting=[],
        disk=Disk(1, 1),
    )
