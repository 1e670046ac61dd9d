"""Flow `train`: train one adapter on a snapshot, in a process on the `gpu` pool."""

import json
import math
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_run_logger

from components import costs
from components.chat import chat_templates, prompt
from components.dataset import snapshot_figures
from components.models import base
from components.pages import templates
from components.register import registry, tracking
from components.schema import Json, Progress
from components.store import output_folders
from components.store.manifest import AdapterManifest, SnapshotManifest
from components.train import checkpoints, recipe
from components.train.checkpoints import StopCondition, TrainingProgress
from flows import adapters, approvals, candidate_search, home_workloads, settings
from flows.candidate_search import TrainingPart
from flows.flow_runs import run_name
from flows.jobs import runner
from flows.jobs.job_specs import TrainSpec
from flows.machines import shared_job
from flows.settings import code_version
from flows.stack import prometheus
from flows.workload_file import Workload

HISTORY, CURVE_PICTURE = "history.jsonl", "loss.png"

REDRAW_SECONDS = 60.0  # how often a running training's chart is redrawn


class TrainingCurve:
    """The history of one training, through kills; shown in Prefect and its MLflow run."""

    def __init__(self, folder: Path, workload: str, run_id: str, title: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._workload = folder, workload
        self._run_id, self._title = run_id, title
        self._artifact: UUID | None = None
        self._drawn = time.monotonic()

    def add(self, progress: Progress) -> None:
        """Append a line, and redraw the chart when due."""
        with (self._folder / HISTORY).open("a") as file:
            # Starting on a new line: a kill may have cut the last one off.
            file.write("\n" + runner.progress_line(progress))
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self.show()

    def show(self) -> None:
        """Redraw the curve from the metrics so far; no-op if there are none."""
        from components.train import training_curve  # noqa: PLC0415 - loads matplotlib

        self._drawn = time.monotonic()
        history = read_curve(self._folder)
        if not history:
            return
        path = self._folder / CURVE_PICTURE
        training_curve.draw_curve(history, path)
        tracking.log_picture(self._run_id, path)
        text = write_curve_page(self._title, history, path)
        if self._artifact is None:
            key = approvals.artifact_key("loss", self._workload)
            made = create_markdown_artifact(text, key=key, description=self._title)
            assert isinstance(made, UUID)  # it is a coroutine only where the caller is one
            self._artifact = made
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._artifact, ArtifactUpdate(data=text))


def read_curve(folder: Path) -> list[Progress]:
    """Read the metrics of a job folder's training; skip a line that a kill truncated."""
    path, history = folder / HISTORY, list[Progress]()
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            history.append(Progress(**json.loads(line)))
    return history


def write_curve_page(title: str, history: Iterable[Progress], path: Path) -> str:
    """Write the page: the picture, and the newest figure of each name."""
    newest = {name: (line, value) for line in history for name, value in line.figures.items()}
    return templates.render(
        "components/train/curve.md.j2", title=title, newest=newest, picture=path
    )


@dataclass(frozen=True, slots=True)
class TrainingStart:
    """The adapter that a training starts from, or ``None`` for the base, and why."""

    adapter: Path | None
    reason: str


def find_training_start(workload: Workload) -> TrainingStart:
    """Return the start of a training: the champion's adapter if the recipe has a warm start."""
    if not workload.train.warm_start:
        return TrainingStart(None, "the recipe has no warm start")
    champion = registry.champion_version(workload.workload)
    if champion is None:
        return TrainingStart(None, "there is no champion yet")
    adapter = settings.load().adapters / workload.workload / champion.adapter
    version = f"champion version {champion.number}"
    if champion.tainted:
        return TrainingStart(None, f"{version} has learned from rows that were erased")
    if not output_folders.fetch(adapter):
        return TrainingStart(None, f"the adapter of {version} is not at {adapter}")
    made_from = AdapterManifest.read_untouched(adapter)
    content = base.content_hash(workload.base)
    if objection := checkpoints.warm_start_problem(workload.train, content, made_from):
        return TrainingStart(None, f"{version} can't be continued: {objection}")
    return TrainingStart(adapter, f"{version} is of the same shape")


ROWS = "rows.json"  # the file in a training's job folder with the outcome of the snapshot's rows

LOG_SECONDS = 10.0
"""Prefect keeps each log line in its database, so training logs there only this often."""


class AdapterChangedError(RuntimeError):
    """A training would not make the adapter the turn waits for: the champion has changed."""


@flow(flow_run_name=run_name)
def train(config: str, snapshot: str, order: str = "", adapter: str = "") -> str:
    """Train the workload's adapter on a snapshot; a finished one is not trained again.

    With the file of an order, train that candidate of a search up to its rung instead. A turn
    names the folder of the ``adapter`` that it waits for.

    Raises:
        ForeignPathError: A path is not of this home.
        AdapterChangedError: The adapter would be another one.
    """
    workload, home = home_workloads.workload_of_run(config), settings.load()
    return learn(
        workload,
        home_workloads.path_within(home.snapshots, snapshot, "snapshot"),
        home_workloads.path_within(home.jobs, order, "order") if order else None,
        home_workloads.path_within(home.adapters, adapter, "adapter") if adapter else None,
    )


def train_file(workload: Workload, snapshot: Path) -> str:
    """Train as a person's own file at the command line says; return the adapter's folder.

    The flow run has no parameters, so a client of Prefect can't start it with another file.
    """

    @flow(name="train", flow_run_name=f"train {workload.workload}")
    def train_by_hand() -> str:
        return learn(workload, snapshot)

    return train_by_hand()


@prometheus.count_stage("train")
def learn(
    workload: Workload, snapshot: Path, order: Path | None = None, expected: Path | None = None
) -> str:
    """Train an adapter, or a candidate of a search, and return its folder."""
    if order is not None:
        return str(candidate_search.find().train_candidate(workload, snapshot, order))
    begins = find_training_start(workload)
    adapter = adapter_folder(workload, snapshot, begins)
    if expected is not None and adapter != expected:
        raise AdapterChangedError(
            f"training adapter {expected.name} of {workload.workload}: what it would be made from "
            f"now makes {adapter.name} ({begins.reason}); run the turn again"
        )
    if not output_folders.fetch(adapter):
        with sole_training(adapter):
            if not output_folders.fetch(adapter):  # the run that this one waited for has made it
                fit_adapter(workload, snapshot, adapter, begins)
    return str(adapter)


def sole_training(adapter: Path) -> AbstractContextManager[None]:
    """Wait until no other run on this machine trains an adapter, and let none begin meanwhile."""
    message = f"waiting for another run, which trains adapter {adapter.name}, too"
    return runner.sole(training_job_folder(adapter), lambda: get_run_logger().info(message))


def adapter_folder(workload: Workload, snapshot: Path, begins: TrainingStart | None = None) -> Path:
    """Return the adapter's folder; its key digests snapshot, base, recipe and origin."""
    fresh = key_of_adapter(workload, snapshot)
    earlier = (begins or find_training_start(workload)).adapter
    if earlier is None:
        return settings.load().adapters / workload.workload / fresh
    if AdapterManifest.read(earlier).fresh_key == fresh:
        return earlier  # a champion of the same inputs does not start from itself
    return earlier.with_name(key_of_adapter(workload, snapshot, earlier.name))


def key_of_adapter(workload: Workload, snapshot: Path, warm_start: str | None = None) -> str:
    """Return the adapter's key, a digest of all its inputs."""
    objective, taught_by = workload.train.objective, None
    if objective.kind == "distillation":
        taught_by = base.content_hash(objective.teacher_model_name_or_path)
    return recipe.adapter_key(
        snapshot.name,
        base.content_hash(workload.base),
        workload.train,
        teacher=taught_by,
        warm_start=warm_start,
    )


def training_job_folder(adapter: Path) -> Path:
    """Return the folder with the log and progress of ``adapter``'s training."""
    return settings.load().jobs / f"train-{adapter.name}"


@task
def fit_adapter(
    workload: Workload,
    snapshot: Path,
    adapter: Path,
    begins: TrainingStart,
    part: TrainingPart | None = None,
) -> TrainingProgress | None:
    """Train in a subprocess, from the last checkpoint if there is one; metrics go to MLflow.

    Return a part's progress; the adapter is finished only at its end.
    """
    if workload.train.warm_start:
        origin = begins.adapter.name if begins.adapter else "the base alone"
        get_run_logger().info("starts from %s: %s", origin, begins.reason)
    lineage = {"snapshot": snapshot.name, "base": base.content_hash(workload.base)}
    spec = TrainSpec(
        snapshot=snapshot,
        base=workload.base,
        folder=adapter,
        recipe=workload.train,
        base_content=lineage["base"],
        warm_start=begins.adapter,
        rows=training_job_folder(adapter) / ROWS,
    )
    frozen = SnapshotManifest.read(snapshot)
    chat_templates.require_same(frozen.prompt_format, prompt.FORMAT, f"training on {snapshot}")
    run_id = tracking.open_run(
        workload.workload,
        adapter.name,
        params=workload.train.model_dump(),
        tags=lineage | ({tracking.PARENT_TAG: part.parent} if part else {}),
        name=part.name if part else None,
    )
    metrics, started = tracking.MetricWriter(run_id), time.monotonic()
    called = f"candidate {part.name}" if part else f"adapter {adapter.name}"
    title = f"{workload.workload}: training of {called}"
    curve = TrainingCurve(training_job_folder(adapter), workload.workload, run_id, title)
    try:
        tracking.log_datasets(run_id, snapshot)
        reached = _run_training_job(spec, adapter, part, reporter(metrics, curve))
    except BaseException as error:  # the run must not look as if it continued
        metrics.send()
        curve.show()
        tracking.close_run(run_id, "FAILED" if isinstance(error, runner.JobError) else "KILLED")
        raise
    metrics.send()
    curve.show()
    if (reached is None or reached.finished) and not output_folders.fetch(adapter):
        # A search paid for every candidate; a training that was killed, only since it resumed.
        earlier = candidate_search.find().spent(part.search) if part else []
        total = costs.total(
            [*(work for _, work in earlier), runner.read_work(training_job_folder(adapter))]
        )
        waited = runner.read_waiting(training_job_folder(adapter))
        trained = math.fsum(seconds for seconds, _ in earlier) + time.monotonic() - started - waited
        body = made_from(workload, snapshot, begins) | {
            "mlflow_run": run_id,
            "commit": code_version(),
            "training_seconds": round(trained, 1),
            costs.TRAINING: asdict(total) if total else None,
            snapshot_figures.RECORD: learned_rows(adapter),
        }
        adapters.finish_adapter(workload, snapshot, adapter, body, now=datetime.now(UTC))
        shared_job.forget_checkpoints(adapter)
    tracking.close_run(run_id, "FINISHED" if output_folders.fetch(adapter) else "SCHEDULED")
    return reached


def _run_training_job(
    spec: TrainSpec, adapter: Path, part: TrainingPart | None, listener: runner.Listener
) -> TrainingProgress | None:
    if part is None:
        runner.run_job(spec, training_job_folder(adapter), listener)
        return None
    deadline = time.monotonic() + part.seconds if part.seconds is not None else None
    if not part.reached.exists():
        stop = StopCondition(part.at_step, deadline, str(part.kept) if part.kept else None)
        until = spec.model_copy(update={"stop": stop, "reached": part.reached})
        runner.run_job(until, training_job_folder(adapter), listener)
    return TrainingProgress.read(part.reached)


def learned_rows(adapter: Path) -> dict[str, Json]:
    """Read and log the outcome of the snapshot's rows."""
    rows: dict[str, Json] = json.loads((training_job_folder(adapter) / ROWS).read_text())
    for sentence in snapshot_figures.learned_sentences(rows):
        get_run_logger().info(sentence)
    return rows


def made_from(workload: Workload, snapshot: Path, begins: TrainingStart) -> dict[str, object]:
    """Return what an adapter was made from; ``fresh_key`` digests all of it but the warm start."""
    return {
        "snapshot": snapshot.name,
        "base": base.content_hash(workload.base),
        "recipe": workload.train.model_dump(mode="json"),
        "warm_start": begins.adapter.name if begins.adapter else None,
        "fresh_key": key_of_adapter(workload, snapshot),
    }


def reporter(
    metrics: tracking.MetricWriter | None = None, curve: TrainingCurve | None = None
) -> runner.Listener:
    """Return a listener that adds figures to ``metrics`` and ``curve``, and logs when due."""
    logger = get_run_logger()
    logged_at, stage = 0.0, ""

    def report(progress: Progress) -> None:
        nonlocal logged_at, stage
        if metrics:
            metrics.add(progress)
        if curve and progress.figures:
            curve.add(progress)
        is_due = time.monotonic() - logged_at >= LOG_SECONDS or progress.done == progress.total
        if is_due or progress.stage != stage:
            logged_at, stage = time.monotonic(), progress.stage
            figures = ", ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
            counts = (progress.stage, progress.done, progress.total, progress.unit)
            logger.info("%s: %d of %d %s; %s", *counts, figures)

    return report
