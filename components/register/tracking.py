"""MLflow runs: one for each adapter, found again by the adapter's key after a crash."""

import time
from collections.abc import Mapping
from pathlib import Path

from components.schema import Progress

KEY_TAG = "flywheel.adapter"


def open_run(
    experiment: str, key: str, *, params: Mapping[str, object], tags: Mapping[str, str]
) -> str:
    """Start the run of the adapter ``key``, or go on with the one that a crash left open.

    Args:
        experiment: The workload; made when missing.
        key: The adapter's key, kept as the tag ``flywheel.adapter``.
        params: The recipe.
        tags: Snapshot, base and whatever else the adapter came from.

    Returns:
        The run's id.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
    if runs:
        run_id: str = runs[0].info.run_id
        client.set_terminated(run_id, "RUNNING")
        return run_id
    run = client.create_run(experiment_id, run_name=f"adapter {key}", tags={KEY_TAG: key, **tags})
    for name, value in params.items():
        client.log_param(run.info.run_id, name, value)
    return run.info.run_id


def find_run(experiment: str, key: str) -> str:
    """Find the run of the adapter ``key``; ``LookupError`` when there is none."""
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"tags.`{KEY_TAG}` = '{key}'") if found else []
    if not runs:
        raise LookupError(
            f"looking up the MLflow run of adapter {key}: experiment {experiment!r} has none"
        )
    return runs[0].info.run_id


def log_progress(run_id: str, progress: Progress) -> None:
    """Write a progress line's figures as metrics at step ``progress.done``."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, progress.done) for name, value in progress.figures.items()]
    MlflowClient().log_batch(run_id, metrics=metrics)


def log_scores(run_id: str, scores: Mapping[str, float], folder: Path) -> None:
    """Add an evaluation's scores, and its folder with every sample, to the adapter's run."""
    from mlflow import MlflowClient

    client = MlflowClient()
    for name, value in scores.items():
        client.log_metric(run_id, name, value)
    client.log_artifacts(run_id, str(folder), f"scorecards/{folder.name}")


def close_run(run_id: str, status: str) -> None:
    """End a run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
    from mlflow import MlflowClient

    MlflowClient().set_terminated(run_id, status)
