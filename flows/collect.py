"""Flow `collect`: load new log lines, traces and received traffic into the warehouse."""

from datetime import UTC, datetime

from prefect import flow, task
from prefect.logging import get_run_logger

from components.collect import retention
from components.collect.load_file import Loaded
from components.store import warehouse
from flows import home_workloads, settings, sources
from flows.flow_runs import run_name
from flows.source_entries import Traffic
from flows.sources import UnreadFilesError
from flows.stack import prometheus
from flows.workload_file import Workload


@flow(flow_run_name=run_name)
def collect(config: str) -> str:
    """Load every file of the workload that was not loaded before; bad lines go to quarantine."""
    return load_sources(home_workloads.workload_of_run(config))


@prometheus.count_stage("collect")
def load_sources(workload: Workload) -> str:
    """Load a workload's traffic and archive what is too old; return what came of it.

    Raises:
        UnreadFilesError: Places can't be read; all others were, and the message says what came of
            it.
    """
    try:
        traffic = workload.traffic()
    except (OSError, ImportError):  # an impossible address keeps no received traffic in the spool
        load_new(Traffic())
        raise
    loaded, unread = load_new(traffic)
    summary = sources.loading_summary(loaded, traffic.folders_not_read)
    if workload.retention_days is not None:
        summary += (
            f"; {archive_old_rows(workload.workload, workload.retention_days)} old rows archived"
        )
    if unread:
        raise UnreadFilesError(f"{summary}; {unread}")
    get_run_logger().info(summary)
    return summary


@task
def load_new(traffic: Traffic) -> tuple[list[Loaded], str]:
    """Load file by file, each whole or not at all, then the spool, segment by segment.

    Returns what was loaded, and which places can't be read, if any.
    """
    now, unread = datetime.now(UTC), ""
    home = settings.load()
    loaded: list[Loaded] = []
    loading = sources.load_inputs(home.tables, traffic.inputs, now=now, unlisted=traffic.unlisted)
    try:
        for file in loading:
            loaded.append(file)  # noqa: PERF402 - what is loaded before it raises counts
    except UnreadFilesError as error:
        unread = str(error)
    except (OSError, ImportError):  # as above
        sources.load_spool(home, now=now)
        raise
    return loaded + sources.load_spool(home, now=now), unread


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
