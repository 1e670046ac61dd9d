"""MLflow runs of adapters: parameters, metrics, datasets, evidence; and traces of experiments."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.schema import Json, Progress
from components.store.manifest import SnapshotManifest

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Trace


KEY_TAG = "flywheel.adapter"

LOOKED_TAG = "flywheel.looked"
"""Where the chain of decisions ended when the adapter was judged, with the look at the holdout."""

MOST_METRICS = 1000
"""MLflow takes no more in one request."""


PARENT_TAG = "mlflow.parentRunId"
"""MLflow shows a run below the run that this names."""

PRUNED_TAG = "pruned"
"""Why a candidate of a search is not the one that it found."""


def open_run(
    experiment: str,
    key: str,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    name: str | None = None,
) -> str:
    """Start the run of the adapter ``key``, or go on with the one that a crash left open.

    Args:
        experiment: The workload; made when missing.
        key: The adapter's key, or a search's, kept as the tag ``flywheel.adapter``.
        params: The recipe.
        tags: Snapshot, base and whatever else the adapter came from.
        name: What MLflow calls it; ``adapter`` and the key if not given.

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
    called = name or f"adapter {key}"
    run = client.create_run(experiment_id, run_name=called, tags={KEY_TAG: key, **tags})
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


class MetricWriter:
    """Writes the figures of progress lines as metrics, many at a time.

    A request for each step would burden the server that a small training shares its cores with.
    """

    def __init__(self, run_id: str, seconds: float = 5.0) -> None:
        self.run_id, self.seconds = run_id, seconds
        self.waiting: list[Metric] = []
        self.sent = time.monotonic()

    def add(self, progress: Progress) -> None:
        """Keep a line's figures at step ``progress.done``, and send what waits now and then."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in progress.figures.items():
            self.waiting.append(Metric(name, value, now, progress.done))
        if time.monotonic() - self.sent >= self.seconds or progress.done == progress.total:
            self.send()

    def send(self) -> None:
        """Send what waits."""
        from mlflow import MlflowClient

        for first in range(0, len(self.waiting), MOST_METRICS):
            MlflowClient().log_batch(self.run_id, self.waiting[first : first + MOST_METRICS])
        self.waiting.clear()
        self.sent = time.monotonic()


def log_scores(run_id: str, scores: Mapping[str, float], folders: Iterable[Path]) -> None:
    """Add an evaluation's scores, and its folders with every sample, to the adapter's run."""
    from mlflow import MlflowClient

    client = MlflowClient()
    for name, value in scores.items():
        client.log_metric(run_id, name, value)
    for folder in folders:
        client.log_artifacts(run_id, str(folder), f"scorecards/{folder.name}")


def log_evidence(run_id: str, folder: Path) -> str:
    """Add evidence on an adapter, report and all, to its run; give where MLflow's pages show it.

    Repeating it writes the same files again.
    """
    from mlflow import MlflowClient

    MlflowClient().log_artifacts(run_id, str(folder), f"evidence/{folder.name}")
    return evidence_page(run_id, folder.name)


def tag_chain_head(run_id: str, head: str) -> None:
    """Say on a run where the chain of decisions ended: none of its looks can be cut off unseen."""
    from mlflow import MlflowClient

    MlflowClient().set_tag(run_id, LOOKED_TAG, head)


def chain_heads() -> dict[str, str]:
    """Read where the chain of decisions ended when each run's adapter was judged, by the run."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    found, token = dict[str, str](), None
    while True:
        page = client.search_runs(experiments, f"tags.`{LOOKED_TAG}` != ''", page_token=token)
        found |= {str(one.info.run_id): str(one.data.tags[LOOKED_TAG]) for one in page}
        if not (token := page.token):
            return found


def run_page(run_id: str) -> str:
    """Say where MLflow's pages show a run."""
    from mlflow import MlflowClient

    return f"#/experiments/{MlflowClient().get_run(run_id).info.experiment_id}/runs/{run_id}"


def evidence_page(run_id: str, digest: str) -> str:
    """Say where MLflow's pages show the evidence that was added to a run."""
    return f"{run_page(run_id)}/artifacts/evidence/{digest}"


def log_picture(run_id: str, path: Path) -> None:
    """Add the picture of a training's loss to its run, in place of an earlier one."""
    from mlflow import MlflowClient

    MlflowClient().log_artifact(run_id, str(path), "training")


def prune_candidate(experiment: str, key: str, why: str, status: str) -> None:
    """Say of a candidate why it isn't the best, and end its run; one that never began has none."""
    from mlflow import MlflowClient

    try:
        run_id = find_run(experiment, key)
    except LookupError:
        return
    MlflowClient().set_tag(run_id, PRUNED_TAG, why)
    close_run(run_id, status)


def close_run(run_id: str, status: str) -> None:
    """End a run as ``FINISHED``, ``FAILED`` or ``KILLED``; ``SCHEDULED`` says that it goes on."""
    from mlflow import MlflowClient

    MlflowClient().set_terminated(run_id, status)


DATASET_CONTEXTS = {"train": "training", "validation": "validation", "holdout": "testing"}
"""What each side is for, in MLflow's words."""


def log_datasets(run_id: str, snapshot: Path) -> None:
    """Add the sides of a snapshot that have rows to a run's inputs; repeating it changes nothing.

    A side's digest is the snapshot's key, that of the holdout its version.

    Raises:
        FileNotFoundError: The snapshot is unfinished.
    """
    from mlflow import MlflowClient

    record = SnapshotManifest.read(snapshot)
    inputs = [
        _dataset_input(snapshot, record, side) for side in DATASET_CONTEXTS if record.rows.get(side)
    ]
    MlflowClient().log_inputs(run_id, datasets=inputs)


def _dataset_input(snapshot: Path, record: SnapshotManifest, side: str) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = {"num_rows": record.rows[side]}
    if record.tokens is not None:
        profile["tokens"] = record.tokens[side]
    dataset = Dataset(
        name=f"{record.workload} {side}",
        digest=record.holdout_version if side == "holdout" else record.key,
        source_type="local",
        source=json.dumps({"uri": (snapshot / f"{side}.parquet").as_uri()}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", DATASET_CONTEXTS[side])])


TRACES_PAGE = 100
"""Traces that are asked for at once."""


def pull_traces(experiment: str, *, since: datetime) -> Iterator[dict[str, Json]]:
    """Go through the traces that began at ``since`` or later, the oldest first.

    Each is the dictionary form of a trace with its spans and assessments (``trace.to_dict()``).

    Raises:
        LookupError: There is no such experiment.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise LookupError(f"pulling MLflow traces: there is no experiment {experiment!r}")
    condition = f"trace.timestamp_ms >= {int(since.timestamp() * 1000)}"
    token: str | None = None
    while True:
        page = client.search_traces(
            locations=[found.experiment_id],
            filter_string=condition,
            order_by=["timestamp_ms ASC"],
            max_results=TRACES_PAGE,
            page_token=token,
        )
        yield from (_trace_record(trace) for trace in page)
        token = page.token
        if not token:
            return


def _trace_record(trace: "Trace") -> dict[str, Json]:
    return trace.to_dict()
