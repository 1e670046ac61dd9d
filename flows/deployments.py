"""Which flows there are, on which pool and when they run; knows neither the flows nor Prefect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows import workload_file
from flows.workload_file import Workload

# Cron lines (UTC). Only a maintenance that verifies fetches and digests every champion's files.
MAINTENANCE, VERIFICATION, MONITOR = "*/15 * * * *", "52 * * * *", "22 * * * *"
PRUNE = "37 */6 * * *"  # while a turn is under way it deletes nothing

POOLS = ("cpu", "gpu")  # of all deployments

SCHEDULES: dict[str, Callable[[Workload], str | None]] = {
    "collect": lambda workload: workload.collect_schedule,
    "turn": lambda workload: workload.turn_schedule,
    "consider": lambda workload: workload.trigger and workload.trigger.schedule,
    "prune": lambda workload: PRUNE if workload.prune_days else None,
}  # the cron line of each scheduled flow in a workload's file

UNREAD = Workload.model_construct()  # replaces a file with mistakes: the default schedules


@dataclass(frozen=True, slots=True)
class Timing:
    """When a flow runs by itself: for one workload, or with neither name nor file for all."""

    cron: str  # UTC
    workload: str = "all"
    config: Path | None = None
    parameters: Mapping[str, bool] = field(default_factory=dict[str, bool])  # additional


@dataclass(frozen=True, slots=True)
class Spec:
    """How one flow is deployed."""

    flow: str  # ``module:function``, importable wherever its pool's worker runs
    pool: str  # ``cpu`` or ``gpu``; an existing pool may be of another type, see ``deploy``
    timings: tuple[Timing, ...] = ()
    limit: int | None = None  # on runs that are active at a time
    drops_surplus: bool = False  # cancels a run above the limit; else it waits
    name: str | None = None  # of the deployment; unset: its flow's, such as ``turn/turn``
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])  # defaults of a run


ROLLBACK = "flows.rollback:rollback"

_MAINTAINED = (
    Timing(MAINTENANCE, parameters={"verify": False}),
    Timing(VERIFICATION, "verify", parameters={"verify": True}),
)


def specs(workloads: Path) -> tuple[Spec, ...]:
    """Return the deployments of all flows, scheduled for each ``*.yaml`` in ``workloads``."""
    files = sorted(workloads.glob("*.yaml"))
    timings = {name: _timings(files, when) for name, when in SCHEDULES.items()}
    # By one click; a second one while the first is under way does not go back twice.
    rollbacks = [
        Spec(ROLLBACK, "cpu", limit=1, drops_surplus=True, name=name, parameters={"workload": name})
        for name in (file.stem for file in files)
    ]
    return (
        Spec("flows.collect:collect", "cpu", timings["collect"], limit=1, drops_surplus=True),
        Spec("flows.monitor:consider", "cpu", timings["consider"], limit=1),
        Spec("flows.curate:curate", "cpu"),
        Spec("flows.train:train", "gpu"),
        Spec("flows.evaluate:evaluate", "gpu"),
        Spec("flows.promote:promote", "cpu"),
        Spec("flows.maintenance:maintenance", "cpu", _MAINTAINED, limit=1, drops_surplus=True),
        Spec("flows.prune.prune_flow:prune", "cpu", timings["prune"], limit=1),
        Spec("flows.canary.settle_rollouts:settle_rollouts", "cpu", limit=1),
        Spec("flows.monitor:monitor", "cpu", (Timing(MONITOR),), limit=1, drops_surplus=True),
        # No limit on what runs for long: a run renews its hold on a slot every few minutes, and
        # ends itself if Prefect is away just then, or was started again and forgot who holds it.
        Spec("flows.turn:turn", "cpu", timings["turn"]),
        Spec(ROLLBACK, "cpu"),
        *rollbacks,
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
