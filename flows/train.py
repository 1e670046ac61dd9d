"""Train: one adapter on a snapshot, in a process of its own on the ``gpu`` pool."""

import json
import shutil
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, task
from prefect.logging import get_run_logger
from pydantic import TypeAdapter

from components import base, costs, manifest, prompt, rendering
from components.dataset import learned
from components.register import datasets, tracking
from components.schema import Json, Progress
from components.train import recipe
from components.train.search import records
from components.train.search.records import Order, Outcome
from components.train.stops import Reached, Stop
from flows import finishing, jobs, metrics, origins, run_inputs, settings, validation
from flows.curve import Curve
from flows.job_specs import TrainSpec
from flows.origins import Origin
from flows.revision import revision
from flows.run_names import run_name
from flows.workload import Workload

ROWS = "rows.json"
"""The file in a training's job folder that says what became of the snapshot's rows."""

LOG_SECONDS = 10.0
"""Prefect keeps each log line in its database, so training speaks there only this often."""


class AdapterChangedError(RuntimeError):
    """A training would not make the adapter that the turn waits for: the champion has changed."""


@flow(flow_run_name=run_name)
def train(config: str, snapshot: str, order: str = "", adapter: str = "") -> str:
    """Train the workload's adapter on a snapshot; a finished one is not trained again.

    With the file of an order, train that candidate of a search up to its rung instead. A turn
    names the folder of the ``adapter`` that it waits for.

    Raises:
        ForeignPathError: A path is not of this home.
        AdapterChangedError: The adapter would be another one.
    """
    workload, home = run_inputs.workload(config), settings.load()
    return learn(
        workload,
        run_inputs.within(home.snapshots, snapshot, "snapshot"),
        run_inputs.within(home.jobs, order, "order") if order else None,
        run_inputs.within(home.adapters, adapter, "adapter") if adapter else None,
    )


@metrics.staged("train")
def learn(
    workload: Workload, snapshot: Path, order: Path | None = None, expected: Path | None = None
) -> str:
    """Train an adapter, or a candidate of a search, and return its folder."""
    if order is not None:
        return str(climb(workload, snapshot, order))
    begins = origins.find(workload)
    adapter = folder(workload, snapshot, begins)
    if expected is not None and adapter != expected:
        raise AdapterChangedError(
            f"training adapter {expected.name} of {workload.workload}: what it would be made from "
            f"now makes {adapter.name} ({begins.reason}); run the turn again"
        )
    if not manifest.is_finished(adapter):
        fit(workload, snapshot, adapter, begins)
    return str(adapter)


def climb(workload: Workload, snapshot: Path, path: Path) -> Path:
    """Train a candidate up to its rung, unless that was done; what came of it is kept.

    Where candidates are compared by the target metric, it is measured on the validation side then.
    A training that fails is a result, too: the search goes on without it.
    """
    order = Order.model_validate_json(path.read_text())
    adapter = settings.load().adapters / workload.workload / order.entry.key
    if records.outcome(path) is not None:
        return adapter
    candidate: dict[str, object] = {"base": order.entry.base, "train": order.entry.recipe}
    if order.entry.base != workload.base:
        candidate["base_served_as"] = None  # that is another base's name
    given = workload.model_copy(update=candidate)
    started = time.monotonic()
    came: dict[str, object] = {"key": order.entry.key, "rung": order.rung}
    measuring = path.with_name(f"{path.stem}.measuring")
    try:
        begins = Origin(None, "a candidate starts from its base")
        reached = fit(given, snapshot, adapter, begins, path)
        came |= asdict(reached) if reached else {}
        if order.metric:
            came |= {"scores": scores(given, snapshot, adapter, order.metric, path, measuring)}
    except jobs.JobError as error:
        came |= {"trouble": str(error).splitlines()[-1]}
    took = jobs.work(job_folder(adapter))
    if measuring.exists():
        took = costs.total([took, jobs.work(measuring)])
    came |= {"seconds": time.monotonic() - started, "work": asdict(took) if took else None}
    records.keep(path, Outcome.model_validate(came))
    shutil.rmtree(kept(path), ignore_errors=True)
    return adapter


@task
def scores(
    workload: Workload, snapshot: Path, adapter: Path, metric: str, order: Path, job: Path
) -> dict[int, float]:
    """Measure a candidate as it stands at its rung; give a metric by a validation row's number."""
    standing = adapter if manifest.is_finished(adapter) else kept(order)
    if not manifest.is_finished(standing):
        body = {
            "snapshot": snapshot.name,
            "base": base.content_hash(workload.base),
            rendering.TEMPLATE: rendering.template_hash(workload.base),
        }
        manifest.write(standing, kind="adapter", now=datetime.now(UTC), body=body)
    card = validation.measure_candidate(
        settings.load(), workload, snapshot, standing, job, reporter()
    )
    found = {one.doc_id: one.scores.get(metric) for one in card.samples}
    return {number: score for number, score in found.items() if score is not None}


def kept(order: Path) -> Path:
    """Name the folder of a candidate's adapter as it stands at the end of an order."""
    return order.with_name(f"{order.stem}.adapter")


def folder(workload: Workload, snapshot: Path, begins: Origin | None = None) -> Path:
    """Name the folder of the adapter: its key is the digest of snapshot, base, recipe and origin.

    A champion that was made of the same is that adapter: it does not go on from itself.
    """
    fresh = key(workload, snapshot)
    earlier = (begins or origins.find(workload)).adapter
    if earlier is None:
        return settings.load().adapters / workload.workload / fresh
    if manifest.read(earlier).get("fresh_key") == fresh:
        return earlier
    return earlier.with_name(key(workload, snapshot, earlier.name))


def key(workload: Workload, snapshot: Path, warm_start: str | None = None) -> str:
    """Name the adapter by all that it is made from."""
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


def job_folder(adapter: Path) -> Path:
    """Name the folder where the training of ``adapter`` keeps its log and progress."""
    return settings.load().jobs / f"train-{adapter.name}"


@task
def fit(
    workload: Workload, snapshot: Path, adapter: Path, begins: Origin, order: Path | None = None
) -> Reached | None:
    """Train in a subprocess, from the last checkpoint if there is one; metrics go to MLflow.

    Of a candidate it is told how far it came; its adapter is finished only at its end.
    """
    if workload.train.warm_start:
        get_run_logger().info(
            "starts from %s: %s",
            begins.adapter.name if begins.adapter else "the base alone",
            begins.reason,
        )
    spec = TrainSpec(
        snapshot=snapshot,
        base=workload.base,
        folder=adapter,
        recipe=workload.train,
        warm_start=begins.adapter,
        rows=job_folder(adapter) / ROWS,
    )
    lineage = {"snapshot": snapshot.name, "base": base.content_hash(workload.base)}
    frozen = manifest.read(snapshot)
    rendering.require_same(frozen.get("prompt_format"), prompt.FORMAT, f"training on {snapshot}")
    given = Order.model_validate_json(order.read_text()) if order else None
    run_id = tracking.open_run(
        workload.workload,
        adapter.name,
        params=workload.train.model_dump(),
        tags=lineage | ({tracking.PARENT_TAG: given.parent} if given else {}),
        name=given.entry.name if given else None,
    )
    metrics, started = tracking.Metrics(run_id), time.monotonic()
    called = f"candidate {given.entry.name}" if given else f"adapter {adapter.name}"
    title = f"{workload.workload}: training of {called}"
    curve = Curve(job_folder(adapter), workload.workload, run_id, title)
    try:
        datasets.log(run_id, snapshot)
        reached = _do(spec, adapter, order, reporter(metrics, curve))
    except BaseException as error:  # the run must not look as if it went on
        metrics.send()
        curve.show()
        tracking.close_run(run_id, "FAILED" if isinstance(error, jobs.JobError) else "KILLED")
        raise
    metrics.send()
    curve.show()
    if (reached is None or reached.finished) and not manifest.is_finished(adapter):
        body = made_from(workload, snapshot, begins) | {"mlflow_run": run_id, "commit": revision()}
        # A search paid for every candidate; a training that was killed, only since it went on.
        searched = order.parent.parent if order else None
        earlier = records.seconds(searched) if searched else 0.0
        body |= {"training_seconds": round(earlier + time.monotonic() - started, 1)}
        works = records.works(searched) if searched else []
        total = costs.total([*works, jobs.work(job_folder(adapter))])
        body |= {costs.TRAINING: asdict(total) if total else None}
        body |= {learned.RECORD: learned_rows(adapter)}
        finishing.finish(workload, snapshot, adapter, body, now=datetime.now(UTC))
    tracking.close_run(run_id, "FINISHED" if manifest.is_finished(adapter) else "SCHEDULED")
    return reached


def _do(
    spec: TrainSpec, adapter: Path, order: Path | None, listener: jobs.Listener
) -> Reached | None:
    """Run the training's job; a candidate's only if it didn't come to its rung's end before."""
    if order is None:
        jobs.run(spec, job_folder(adapter), listener)
        return None
    given = Order.model_validate_json(order.read_text())
    deadline = time.monotonic() + given.seconds if given.seconds is not None else None
    reached = order.with_name(f"{order.stem}.reached")
    if not reached.exists():
        stop = Stop(given.at_step, deadline, str(kept(order)) if given.metric else None)
        until = spec.model_copy(update={"stop": stop, "reached": reached})
        jobs.run(until, job_folder(adapter), listener)
    return TypeAdapter(Reached).validate_json(reached.read_text())


def learned_rows(adapter: Path) -> dict[str, Json]:
    """Read what became of the snapshot's rows, and log it; a job of an older version didn't say."""
    path = job_folder(adapter) / ROWS
    found: dict[str, Json] = json.loads(path.read_text()) if path.exists() else {}
    for sentence in learned.said({learned.RECORD: found}):
        get_run_logger().info(sentence)
    return found


def made_from(workload: Workload, snapshot: Path, begins: Origin) -> dict[str, object]:
    """Say what an adapter was made from; its ``fresh_key`` is all of that but the warm start."""
    return {
        "snapshot": snapshot.name,
        "base": base.content_hash(workload.base),
        "recipe": workload.train.model_dump(mode="json"),
        "warm_start": begins.adapter.name if begins.adapter else None,
        "fresh_key": key(workload, snapshot),
    }


def reporter(metrics: tracking.Metrics | None = None, curve: Curve | None = None) -> jobs.Listener:
    """Give a listener that keeps figures where it is told to, and now and then logs a line."""
    logger = get_run_logger()
    said, stage = 0.0, ""

    def report(progress: Progress) -> None:
        nonlocal said, stage
        if metrics:
            metrics.add(progress)
        if curve and progress.figures:
            curve.add(progress)
        is_due = time.monotonic() - said >= LOG_SECONDS or progress.done == progress.total
        if is_due or progress.stage != stage:
            said, stage = time.monotonic(), progress.stage
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
