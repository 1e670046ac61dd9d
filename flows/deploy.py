"""Say which flows there are, on which pool and when they run: ``python -m flows.deploy``."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import automations, config, janitor, monitor, sweep
from flows.settings import Settings, load
from flows.stack import health
from flows.stack.deployment import Spec, Timing, deploy
from flows.workload import Workload

SCHEDULES: dict[str, Callable[[Workload], str | None]] = {
    "collect": lambda found: found.collect_schedule,
    "turn": lambda found: found.turn_schedule,
    "consider": lambda found: found.trigger and found.trigger.schedule,
}
"""The cron line of each scheduled flow, as a workload's file gives it."""

UNREAD = Workload.model_construct()
"""What stands for a file with mistakes: the schedules of one that names none."""


def specs(workloads: Path) -> tuple[Spec, ...]:
    """Say how all flows are deployed, scheduled for each ``*.yaml`` in the folder ``workloads``."""
    files = sorted(workloads.glob("*.yaml"))
    timings = {name: _timings(files, when) for name, when in SCHEDULES.items()}
    return (
        Spec("flows.collect:collect", "cpu", timings["collect"], limit=1, drops_surplus=True),
        Spec("flows.consider:consider", "cpu", timings["consider"], limit=1),
        Spec("flows.curate:curate", "cpu"),
        Spec("flows.train:train", "gpu"),
        Spec("flows.evaluate:evaluate", "gpu"),
        Spec("flows.promote:promote", "cpu"),
        Spec("flows.janitor:janitor", "cpu", (Timing(janitor.EVERY),), limit=1, drops_surplus=True),
        Spec("flows.monitor:monitor", "cpu", (Timing(monitor.EVERY),), limit=1, drops_surplus=True),
        Spec("flows.sweep:sweep", "cpu", (Timing(sweep.EVERY),), limit=1, drops_surplus=True),
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


def deploy_all(home: Settings) -> None:
    """Deploy all flows with the schedules of the home's workloads, and install the automations."""
    deploy(specs(home.workloads), home)
    automations.install()


def _timings(files: Sequence[Path], when: Callable[[Workload], str | None]) -> tuple[Timing, ...]:
    found = [(file, _cron(file, when)) for file in files]
    return tuple(Timing(cron, file.stem, file.resolve()) for file, cron in found if cron)


def _cron(file: Path, when: Callable[[Workload], str | None]) -> str | None:
    try:
        return when(config.read(file.resolve()))
    except config.ConfigError:
        # Scheduled all the same: each run fails and lists the mistakes, where an operator looks.
        return when(UNREAD)


def main() -> None:
    """Deploy all flows for the workloads of the environment's home, once Prefect answers.

    Prefect is the one that ``PREFECT_API_URL`` names, else that of the home's own stack.
    """
    settings = load()
    url = PREFECT_API_URL.value() or settings.prefect_api_url
    health.wait_for(f"{url}/health")
    with temporary_settings({PREFECT_API_URL: url}):
        deploy_all(settings)


if __name__ == "__main__":
    main()
