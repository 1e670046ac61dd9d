"""Flow `prune`: delete a workload's old outputs, as often as its file says."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.logging import get_run_logger

from flows import home_workloads, settings
from flows.flow_runs import run_name
from flows.prune import prune_outputs
from flows.prune.prune_outputs import PruneBusyError


@flow(flow_run_name=run_name)
def prune(config: str) -> str:
    """Delete the workload's outputs that nothing needs and that are older than its ``prune_days``.

    The next run does it where a turn of the workload, a backup or an erasure is under way.
    """
    workload = home_workloads.workload_of_run(config)
    summary = prune_workload(workload.workload, workload.prune_days)
    get_run_logger().info(summary)
    return summary


def prune_workload(workload: str, days: int | None) -> str:
    """Delete a workload's outputs of that age; return what came of it."""
    if days is None:
        return f"all outputs of {workload} stay: its file has no prune_days"
    home = settings.load()
    reaching = home.store.reaching if home.store else nullcontext
    before = datetime.now(UTC) - timedelta(days=days)
    try:
        with reaching("pruning"):
            pruned = prune_outputs.prune(home, before, workload)
    except PruneBusyError as error:
        return str(error)
    kinds = [f"{kind.kind} {kind.count:,} ({kind.size:,} bytes)" for kind in pruned.kinds]
    left = [f"left alone: {folder}, with files of others" for folder in pruned.unused.foreign]
    if workload in pruned.under_way:
        left.append("left alone: all outputs, as a turn or a training is under way")
    return "; ".join([f"deleted of {workload}: {', '.join(kinds) or 'nothing'}", *left])
