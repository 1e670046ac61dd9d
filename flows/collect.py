"""Collect: load what is new in files, in MLflow and in the receiver's spool into the warehouse."""

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import flow, task
from prefect.logging import get_run_logger

from components import warehouse
from components.collect import retention
from components.collect.loaded import Loaded
from components.collect.loading import Input
from flows import inputs, metrics, run_inputs, settings
from flows.run_names import run_name
from flows.workload import Workload


@flow(flow_run_name=run_name)
def collect(config: str) -> str:
    """Load every file of the workload that was not loaded before; bad lines go to quarantine."""
    return load_sources(run_inputs.workload(config))


@metrics.staged("collect")
def load_sources(workload: Workload) -> str:
    """Load a workload's traffic and archive what is too old; return what came of it."""
    loaded = load([*workload.log_files(), *workload.feedback_files()])
    said = inputs.summary(loaded)
    if workload.retention_days is not None:
        said += f"; {retire(workload.workload, workload.retention_days)} old rows archived"
    get_run_logger().info(said)
    return said


@task
def load(found: Sequence[Input]) -> list[Loaded]:
    """Load file by file, each whole or not at all, then the spool, segment by segment."""
    now = datetime.now(UTC)
    home = settings.load()
    loaded = [*inputs.load(home.warehouse, found, now=now)]
    return loaded + inputs.load_spool(home.warehouse, home.spool, now=now)


@task
def retire(workload: str, days: int) -> int:
    """Archive the workload's rows that are older than that, and that nothing needs."""
    home = settings.load()
    with warehouse.connect(home.warehouse) as con:
        return retention.archive(con, home.archive, workload, days=days, now=datetime.now(UTC))
