"""Which flows there are, on which pool and when they run; knows neither the flows nor Prefect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows import workload_file
from flows.workload_file import Workload

MAINTENANCE, VERIFICATION, MONITOR = "*/15 * * * *", "52 * * * *", "22 * * * *"
"""Cron lines (UTC) of the flows that look after all workloads. Only a maintenance that verifies
fetches and digests every champion's files."""

GONE = ("janitor/janitor", "sweep/sweep")
"""Deployments of older homes, which ``maintenance`` has replaced."""

SCHEDULES: dict[str, Callable[[Workload], str | None]] = {
    "collect": lambda workload: workload.collect_schedule,
    "turn": lambda workload: workload.turn_schedule,
    "consider": lambda workload: workload.trigger and workload.trigger.schedule,
}
"""The cron line of each scheduled flow, as a workload's file gives it."""

UNREAD = Workload.model_construct()  # replaces a file with mistakes: the default schedules


@dataclass(frozen=True, slots=True)
class Timing:
    """When a flow runs by itself: for one workload, or with neither name nor file for all."""

    cron: str
    """UTC."""
    workload: str = "all"
    config: Path | None = None
    parameters: Mapping[str, bool] = field(default_factory=dict[str, bool])
    """Additional parameters of its runs."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How one flow is deployed."""

    flow: str
    """``module:function``; the module must be importable wherever its pool's worker runs."""
    pool: str
    """``cpu`` or ``gpu``; a pool that is there may be of another type than ours, see ``deploy``."""
    timings: tuple[Timing, ...] = ()
    limit: int | None = None
    """How many runs may be active at a time."""
    drops_surplus: bool = False
    """Whether a run above the limit is cancelled; else it waits."""
    name: str | None = None
    """The deployment's name; its flow's if unset: ``turn/turn``."""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    """Default parameters of a run."""


_MAINTAINED = (
    Timing(MAINTENANCE, parameters={"verify": False}),
    Timing(VERIFICATION, "verify", parameters={"verify": True}),
)


def specs(workloads: Path) -> tuple[Spec, ...]:
    """Return the deployments of all flows, scheduled for each ``*.yaml`` in ``workloads``."""
    files = sorted(workloads.glob("*.yaml"))
    timings = {name: _timings(files, when) for name, when in SCHEDULES.items()}
    return (
        Spec("flows.collect:collect", "cpu", timings["collect"], limit=1, drops_surplus=True),
        Spec("flows.monitor:consider", "cpu", timings["consider"], limit=1),
        Spec("flows.curate:curate", "cpu"),
        Spec("flows.train:train", "gpu"),
        Spec("flows.evaluate:evaluate", "gpu"),
        Spec("flows.promote:promote", "cpu"),
        Spec("flows.maintenance:maintenance", "cpu", _MAINTAINED, limit=1, drops_surplus=True),
        Spec("flows.monitor:monitor", "cpu", (Timing(MONITOR),), limit=1, drops_surplus=True),
        # No limit on what runs for long: a run renews its hold on a slot every few minutes, and
        # ends itself if Prefect is away just then, or was started again and forgot who holds it.
        Spec("flows.turn:turn", "cpu", timings["turn"]),
        *(_rollback(name) for name in (None, *(file.stem for file in files))),
    )


def _rollback(workload: str | None) -> Spec:
    """Describe the rollback of a workload, run by one click, or the one that asks for a name.

    A second click while the first is under way does not go back twice.
    """
    flow = "flows.rollback:rollback"
    if workload is None:
        return Spec(flow, "cpu")
    return Spec(
        flow,
        "cpu",
        limit=1,
        drops_surplus=True,
        name=workload,
        parameters={"workload": workload},
    )


def _timings(files: Sequence[Path], when: Callable[[Workload], str | None]) -> tuple[Timing, ...]:
    crons = [(file, _cron(file, when)) for file in files]
    return tuple(Timing(cron, file.stem, file.resolve()) for file, cron in crons if cron)


def _cron(file: Path, when: Callable[[Workload], str | None]) -> str | None:
    try:
        return when(workload_file.read_workload(file.resolve()))
    except workload_file.WorkloadError:
        # Scheduled all the same: each run fails and lists the mistakes, where an operator looks.
        return when(UNREAD)
