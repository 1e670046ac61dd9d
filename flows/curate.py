"""Flow `curate`: judge each interaction of a workload and freeze the result into a snapshot."""

from datetime import UTC, datetime

from prefect import flow, task
from prefect.logging import get_run_logger

from flows import home_workloads, settings, snapshots
from flows.flow_runs import run_name
from flows.snapshots import FrozenWorkload
from flows.stack import prometheus
from flows.workload_file import Workload


@flow(flow_run_name=run_name)
def curate(config: str) -> FrozenWorkload:
    """Turn collected interactions and feedback into an immutable training and test set.

    Nothing is frozen while a rule left out so much that a person is asked.
    """
    return report(home_workloads.workload_of_run(config))


@prometheus.count_stage("curate")
def report(workload: Workload) -> FrozenWorkload:
    """Freeze a workload's snapshot, and log what is in it or why nothing was frozen."""
    curated = freeze(workload)
    frozen = curated.snapshot
    if frozen is None:
        for rule in curated.lost:
            get_run_logger().warning("nothing was frozen: %s", rule.loss)
        get_run_logger().warning(
            "`flywheel held` shows examples, and `flywheel held --release --workload %s --rule "
            "RULE` continues",
            workload.workload,
        )
        return curated
    get_run_logger().info(
        "snapshot %s: %d to train on, %d to validate, %d held out in %d clusters (%s); "
        "verdicts: %s",
        frozen.key,
        frozen.train_rows,
        frozen.validation_rows,
        frozen.holdout_rows,
        frozen.clusters["holdout"],
        frozen.holdout_version,
        frozen.counts,
    )
    for short in snapshots.shortages(workload, frozen):
        get_run_logger().warning("%s", short)
    return curated


@task
def freeze(workload: Workload) -> FrozenWorkload:
    """Judge every interaction, then write the snapshot unless an equal one exists."""
    curated = snapshots.freeze_workload(workload, settings.load(), now=datetime.now(UTC))
    tally = curated.tally
    get_run_logger().info(
        "judged %d of %d interactions, and %d by changed rules; the others' judgements were kept",
        tally.judged,
        tally.interactions,
        tally.screened,
    )
    if tally.redactions:
        get_run_logger().info("redacted, by kind: %s", tally.redactions)
    if tally.replayed:
        get_run_logger().info("%d rows to train on are replayed from other sets", tally.replayed)
    for sentence in snapshots.tally_sentences(tally):
        get_run_logger().info(sentence)
    return curated
