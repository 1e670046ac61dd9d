"""Say which flows there are, on which pool and when they run: ``python -m flows.deploy``."""

from pathlib import Path
from typing import Literal

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import config
from flows.settings import load
from flows.stack import health
from flows.stack.deployment import Spec, Timing, deploy


def specs(workloads: Path) -> tuple[Spec, ...]:
    """Say how all flows are deployed, scheduled for each ``*.yaml`` in the folder ``workloads``."""
    files = sorted(workloads.glob("*.yaml"))
    collecting = tuple(_timing(file, "collect_schedule") for file in files)
    turning = tuple(_timing(file, "turn_schedule") for file in files)
    return (
        Spec("flows.collect:collect", "cpu", collecting, limit=1, drops_surplus=True),
        Spec("flows.curate:curate", "cpu"),
        Spec("flows.train:train", "gpu"),
        Spec("flows.evaluate:evaluate", "gpu"),
        Spec("flows.promote:promote", "cpu"),
        Spec("flows.turn:turn", "cpu", turning, limit=4),
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


def _timing(file: Path, which: Literal["collect_schedule", "turn_schedule"]) -> Timing:
    try:
        cron = getattr(config.read(file.resolve()), which)
    except config.ConfigError:
        # Scheduled all the same: each run fails and lists the mistakes, where an operator looks.
        cron = config.Workload.model_fields[which].default
    return Timing(workload=file.stem, config=file.resolve(), cron=cron)


def main() -> None:
    """Deploy all flows for the workloads of the environment's home, once Prefect answers.

    Prefect is the one that ``PREFECT_API_URL`` names, else that of the home's own stack.
    """
    settings = load()
    wanted = specs(settings.workloads)
    url = PREFECT_API_URL.value() or settings.prefect_api_url
    health.wait_for(f"{url}/health")
    with temporary_settings({PREFECT_API_URL: url}):
        deploy(wanted, settings.home)


if __name__ == "__main__":
    main()
