"""Train: one QLoRA adapter on a snapshot, in a process of its own on the ``gpu`` pool."""

import time
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, task
from prefect.logging import get_run_logger

from components import base, manifest
from components.register import datasets, tracking
from components.schema import Progress
from components.train import recipe
from flows import config as configs
from flows import jobs, settings
from flows.config import Workload
from flows.curve import Curve
from flows.revision import revision

LOG_SECONDS = 10.0
"""Prefect keeps each log line in its database, so training speaks there only this often."""


@flow(flow_run_name=configs.run_name)
def train(config: str, snapshot: str) -> str:
    """Train the workload's adapter on a snapshot; a finished one is not trained again."""
    workload = configs.read(Path(config))
    adapter = folder(workload, Path(snapshot))
    if not manifest.is_finished(adapter):
        fit(workload, Path(snapshot), adapter)
    return str(adapter)


def folder(workload: Workload, snapshot: Path) -> Path:
    """Name the folder of the adapter: its key is the digest of snapshot, base and recipe."""
    objective, taught_by = workload.train.objective, None
    if objective.kind == "distillation":
        taught_by = base.content_hash(objective.teacher_model_name_or_path)
    pinned = base.content_hash(workload.base)
    key = recipe.adapter_key(snapshot.name, pinned, workload.train, teacher=taught_by)
    return settings.load().adapters / workload.workload / key


def job_folder(adapter: Path) -> Path:
    """Name the folder where the training of ``adapter`` keeps its log and progress."""
    return settings.load().jobs / f"train-{adapter.name}"


@task
def fit(workload: Workload, snapshot: Path, adapter: Path) -> None:
    """Train in a subprocess, from the last checkpoint if there is one; metrics go to MLflow."""
    spec = {
        "snapshot": str(snapshot),
        "base": str(workload.base),
        "folder": str(adapter),
        "recipe": workload.train.model_dump(mode="json"),
    }
    lineage = {"snapshot": snapshot.name, "base": base.content_hash(workload.base)}
    run_id = tracking.open_run(
        workload.workload, adapter.name, params=workload.train.model_dump(), tags=lineage
    )
    metrics = tracking.Metrics(run_id)
    title = f"{workload.workload}: training of adapter {adapter.name}"
    curve = Curve(job_folder(adapter), workload.workload, run_id, title)
    try:
        datasets.log(run_id, snapshot)
        jobs.run("train", spec, job_folder(adapter), reporter(metrics, curve))
    except BaseException:  # cancelled or failed: the run must not look as if it went on
        metrics.send()
        curve.show()
        tracking.close_run(run_id, "KILLED")
        raise
    curve.show()
    manifest.write(
        adapter,
        kind="adapter",
        now=datetime.now(UTC),
        body={**lineage, "recipe": spec["recipe"], "mlflow_run": run_id, "commit": revision()},
    )
    tracking.close_run(run_id, "FINISHED")


def reporter(metrics: tracking.Metrics | None = None, curve: Curve | None = None) -> jobs.Listener:
    """Give a listener that keeps figures where it is told to, and now and then logs a line."""
    logger = get_run_logger()
    said = 0.0

    def report(progress: Progress) -> None:
        nonlocal said
        if metrics:
            metrics.add(progress)
        if curve:
            curve.add(progress)
        if time.monotonic() - said >= LOG_SECONDS or progress.done == progress.total:
            said = time.monotonic()
            figures = ", ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
            logger.info(
                "%s: %d of %d %s; %s",
                progress.stage,
                progress.done,
                progress.total,
                progress.unit,
                figures,
            )

    return report
