"""Flow `collect`: load new log lines, traces and received traffic into the warehouse."""

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import flow, task
from prefect.logging import get_run_logger

from components.collect import retention
from components.collect.load_file import Loaded
from components.collect.source import Input
from components.store import warehouse
from flows import settings, sources, workload_file
from flows.flow_runs import run_name
from flows.stack import prometheus
from flows.workload_file import Workload


@flow(flow_run_name=run_name)
def collect(config: str) -> str:
    """Load every file of the workload that was not loaded before; bad lines go to quarantine."""
    return load_sources(workload_file.workload_of_run(config))


@prometheus.count_stage("collect")
def load_sources(workload: Workload) -> str:
    """Load a workload's traffic and archive what is too old; return what came of it."""
    try:
        folders = workload.unread_folders()
        inputs = [*workload.log_files(), *workload.feedback_files()]
    except (OSError, ImportError):  # a bucket that is away keeps no received traffic in the spool
        load_new([])
        raise
    loaded = load_new(inputs)
    summary = sources.loading_summary(loaded, folders)
    if workload.retention_days is not None:
        summary += (
            f"; {archive_old_rows(workload.workload, workload.retention_days)} old rows archived"
        )
    get_run_logger().info(summary)
    return summary


@task
def load_new(inputs: Sequence[Input]) -> list[Loaded]:
    """Load file by file, each whole or not at all, then the spool, segment by segment."""
    now = datetime.now(UTC)
    home = settings.load()
    try:
        loaded = [*sources.load_inputs(home.tables, inputs, now=now)]
    except (OSError, ImportError):  # as above
        sources.load_spool(home, now=now)
        raise
    return loaded + sources.load_spool(home, now=now)


@task
def archive_old_rows(workload: str, days: int) -> int:
    """Archive the workload's rows that are older than that, and that nothing needs."""
    home = settings.load()
    with warehouse.connect(home.tables, writes=["raw"]) as con:
        return retention.archive(
            con,
            home.archive_root,
            workload,
            snapshots=home.snapshots,
            days=days,
            now=datetime.now(UTC),
        )
