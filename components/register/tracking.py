"""MLflow runs of adapters: parameters, metrics, datasets, evidence; and traces of experiments."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.register import mlflow_api
from components.schema import Json, Progress
from components.store.manifest import SnapshotManifest

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric


KEY_TAG = "flywheel.adapter"

LOOKED_TAG = "flywheel.looked"
"""The head of the chain of decisions when the adapter was judged, including that look."""

MAX_METRICS = 1000  # MLflow's maximum per request

MAX_NAME_CHARACTERS = 250  # MLflow's maximum of a metric's name

PARENT_TAG = "mlflow.parentRunId"  # the tag by which MLflow nests runs

NOTE_TAG = "mlflow.note.content"  # the description that MLflow's pages show, in Markdown

PRUNED_TAG = "pruned"  # why a candidate of a search was pruned


def open_run(
    experiment: str,
    key: str,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    name: str | None = None,
) -> str:
    """Start the run of the adapter ``key``, or resume what a crash left open; return the run's id.

    ``experiment`` is the workload, created if missing; ``key`` may be a search's. ``params``
    are the recipe, ``tags`` the adapter's inputs, ``name`` by default ``adapter`` and the key.
    """
    client = mlflow_api.full_client()
    record = client.get_experiment_by_name(experiment)
    experiment_id = (
        record.experiment_id
        if record
        else client.create_experiment(experiment, tags={NOTE_TAG: _note(experiment)})
    )
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
    if runs:
        run_id: str = runs[0].info.run_id
        client.set_terminated(run_id, "RUNNING")
        return run_id
    run_name = name or f"adapter {key}"
    run = client.create_run(experiment_id, run_name=run_name, tags={KEY_TAG: key, **tags})
    for param, value in params.items():
        client.log_param(run.info.run_id, param, value)
    return run.info.run_id


def _note(workload: str) -> str:
    return (
        f"The adapters of the workload `{workload}`: a run each, with recipe, data, loss and "
        "scores. A run's description is what the gate found; its reports are among the artifacts."
    )


def find_run(experiment: str, key: str) -> str:
    """Return the id of the run of the adapter ``key``; ``LookupError`` if there is none."""
    client = mlflow_api.full_client()
    record = client.get_experiment_by_name(experiment)
    condition = f"tags.`{KEY_TAG}` = '{key}'"
    runs = client.search_runs([record.experiment_id], condition) if record else []
    if not runs:
        raise LookupError(
            f"looking up the MLflow run of adapter {key}: experiment {experiment!r} has none"
        )
    return runs[0].info.run_id


class MetricWriter:
    """Writes the figures of progress lines as metrics, in batches.

    A request per step would burden a server that shares its cores with a small training.
    """

    def __init__(self, run_id: str, seconds: float = 5.0) -> None:
        self.run_id, self.seconds = run_id, seconds
        self.waiting: list[Metric] = []
        self.sent = time.monotonic()

    def add(self, progress: Progress) -> None:
        """Buffer a line's figures at step ``progress.done``; send the buffer now and then."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in progress.figures.items():
            self.waiting.append(Metric(name, value, now, progress.done))
        if time.monotonic() - self.sent >= self.seconds or progress.done == progress.total:
            self.send()

    def send(self) -> None:
        """Send the buffered metrics."""
        client = mlflow_api.full_client()
        for first in range(0, len(self.waiting), MAX_METRICS):
            client.log_batch(self.run_id, self.waiting[first : first + MAX_METRICS])
        self.waiting.clear()
        self.sent = time.monotonic()


def log_scores(run_id: str, scores: Mapping[str, float], folders: Iterable[Path]) -> None:
    """Add an evaluation's scores, and its folders with every sample, to the adapter's run.

    Characters of a name that MLflow refuses are logged as ``_``: a workload's own guard task is
    called as its author likes, and the evaluation is over by now.
    """
    client = mlflow_api.full_client()
    for name, value in scores.items():
        client.log_metric(run_id, _metric_name(name), value)
    for folder in folders:
        client.log_artifacts(run_id, str(folder), f"scorecards/{folder.name}")


def _metric_name(name: str) -> str:
    parts = re.sub(r"[^/\w.\- :]", "_", name).split("/")
    # MLflow takes them for a path, which must be in its shortest form.
    named = (part if part.strip(".") else "_" * len(part) for part in parts)
    return "/".join(filter(None, named))[:MAX_NAME_CHARACTERS]


def log_evidence(run_id: str, folder: Path, finding: str) -> str:
    """Add evidence on an adapter to its run; return its address in MLflow's pages. Idempotent.

    ``finding``, in a few words, becomes the run's description, with the report's place.
    """
    place, client = f"evidence/{folder.name}", mlflow_api.full_client()
    client.log_artifacts(run_id, str(folder), place)
    client.set_tag(run_id, NOTE_TAG, f"{finding}: `{place}/report.html` among the artifacts")
    return evidence_page(run_id, folder.name)


def tag_chain_head(run_id: str, head: str) -> None:
    """Tag a run with the head of the chain of decisions, so that no look can be cut off unseen."""
    mlflow_api.full_client().set_tag(run_id, LOOKED_TAG, head)


def chain_heads() -> dict[str, str]:
    """Return the heads of the chain of decisions when adapters were judged, by run id."""
    judged = mlflow_api.find_runs(f"tags.`{LOOKED_TAG}` != ''")
    return {run.info.run_id: run.data.tags[LOOKED_TAG] for run in judged}


def running() -> dict[str, str]:
    """Return the keys of what claims to be trained or searched now, by run id."""
    claiming = mlflow_api.find_runs(f"attributes.status = 'RUNNING' and tags.`{KEY_TAG}` != ''")
    return {run.info.run_id: run.data.tags[KEY_TAG] for run in claiming}


def run_page(run_id: str) -> str:
    """Return a run's address in MLflow's pages."""
    return (
        f"#/experiments/{mlflow_api.full_client().get_run(run_id).info.experiment_id}/runs/{run_id}"
    )


def evidence_page(run_id: str, digest: str) -> str:
    """Return the address of a run's evidence in MLflow's pages."""
    return f"{run_page(run_id)}/artifacts/evidence/{digest}"


def log_picture(run_id: str, path: Path) -> None:
    """Add the chart of a training's loss to its run, replacing an earlier one."""
    mlflow_api.full_client().log_artifact(run_id, str(path), "training")


def prune_candidate(experiment: str, key: str, why: str, status: str) -> None:
    """Record why a candidate was pruned, and end its run; no-op if it never began."""
    try:
        run_id = find_run(experiment, key)
    except LookupError:
        return
    mlflow_api.full_client().set_tag(run_id, PRUNED_TAG, why)
    close_run(run_id, status)


def close_run(run_id: str, status: str) -> None:
    """End a run: ``FINISHED``, ``FAILED``, ``KILLED``, or ``SCHEDULED`` if it is resumed later."""
    mlflow_api.full_client().set_terminated(run_id, status)


DATASET_CONTEXTS = {"train": "training", "validation": "validation", "holdout": "testing"}
"""The purpose of each side, in MLflow's terms."""


def log_datasets(run_id: str, snapshot: Path) -> None:
    """Add the non-empty sides of a snapshot to a run's inputs; idempotent.

    A side's digest is the snapshot's key, the holdout's is its version.

    Raises:
        FileNotFoundError: The snapshot is unfinished.
    """
    record = SnapshotManifest.read(snapshot)
    sides = [side for side in DATASET_CONTEXTS if record.rows.get(side)]
    inputs = [_dataset_input(snapshot, record, side) for side in sides]
    mlflow_api.full_client().log_inputs(run_id, datasets=inputs)


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


TRACES_PAGE = 100  # traces per request


class TracesError(RuntimeError):
    """Raised when the traces of an experiment can't be pulled."""


def pull_traces(experiment: str, *, since: datetime) -> Iterator[dict[str, Json]]:
    """Yield the traces that began at ``since`` or later, the oldest first.

    Each is the dictionary of a trace with its spans and assessments (``trace.to_dict()``).

    Raises:
        TracesError: There is no such experiment, or MLflow refuses or does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield from _traces(experiment, since)
    except (MlflowException, OSError) as error:  # of its HTTP client
        raise TracesError(f"pulling MLflow traces of {experiment!r}: {error}") from error


def _traces(experiment: str, since: datetime) -> Iterator[dict[str, Json]]:
    client = mlflow_api.full_client()
    record = client.get_experiment_by_name(experiment)
    if record is None:
        raise TracesError(f"pulling MLflow traces: there is no experiment {experiment!r}")
    condition = f"trace.timestamp_ms >= {int(since.timestamp() * 1000)}"
    token: str | None = None
    while True:
        page = client.search_traces(
            locations=[record.experiment_id],
            filter_string=condition,
            order_by=["timestamp_ms ASC"],
            max_results=TRACES_PAGE,
            page_token=token,
        )
        yield from (trace.to_dict() for trace in page)
        if not (token := page.token):
            return
