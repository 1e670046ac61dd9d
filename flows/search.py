"""Train the candidates of a search on the `gpu` pool, and keep the best adapter.

It is the port ``flows.candidate_search.CandidateSearch``.
"""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun, StateType
from pydantic import TypeAdapter

from components import costs
from components.chat import chat_templates
from components.evaluate import holdout_task as holdouts
from components.evaluate import task_metrics
from components.evaluate.answer_space import answer_space_of
from components.extensions.search import run, schedule
from components.extensions.search.run import SearchResult, TrialOrder, TrialOutcome
from components.extensions.search.schedule import (
    CandidateCourse,
    PlannedTrial,
    SearchMetric,
    SearchPlan,
    TrainingPace,
)
from components.models import base
from components.register import tracking
from components.scorecard import HOLDOUT, VALIDATION
from components.store import manifest, output_folders
from components.store.manifest import SearchManifest
from components.train.candidates import SearchCandidate
from components.train.recipe import Recipe
from flows import approvals, flow_runs, home_workloads, settings, train, validation
from flows.candidate_search import TrainingPart
from flows.jobs import runner
from flows.jobs.job_specs import CountedCandidate, LengthsSpec
from flows.machines import shared_job
from flows.settings import Settings
from flows.workload_file import Workload

PLAN, COUNTED, PAGE = "plan.json", "lengths.json", "search.md"

NOT_ON_VALIDATION = {"tasks", "built_in", "judge", "num_fewshot"}
"""Settings of ``evaluate`` by which candidates, measured on the validation side, are not scored."""

ATTEMPTS = 2  # of an order whose run ends without an outcome

PACE_STEPS = 4  # steps on which a base's pace is measured, where the budget is in minutes


@dataclass(frozen=True, slots=True)
class SearchRun:
    """A search under way: of which workload, in which folder, under which MLflow run."""

    config: str
    workload: Workload
    snapshot: Path
    folder: Path
    run_id: str

    @property
    def adapters(self) -> Path:
        """Where its candidates' adapters are."""
        return settings.load().adapters / self.workload.workload


def best_adapter(config: str, workload: Workload, snapshot: Path) -> tuple[Path, bool]:
    """Return the best candidate's adapter, and whether an earlier run had found it.

    ``SearchError``: all candidates failed. ``BudgetError``: not enough for a step of each.
    """
    here, home = search_folder(workload, snapshot), settings.load()
    adapters = home.adapters / workload.workload
    if (winner := known_winner(home, here, adapters)) is not None:
        return winner, True
    run_id = open_search_run(workload, snapshot, here)
    search = SearchRun(config, workload, snapshot, here, run_id)
    planned = plan_or_read(search)
    if (winner := surviving_winner(planned, here, adapters)) is not None:
        finish_search(search, winner.name, 0.0)
        return winner, True
    conclude_search(search, planned, run.run_search(planned, partial(run_orders, search)))
    return adapters / SearchManifest.read(here).winner, False


def known_winner(home: Settings, here: Path, adapters: Path) -> Path | None:
    """Return the best adapter of a finished search; ``None`` if there is none.

    A search whose best adapter was deleted is forgotten: by its outcomes nothing would be trained.
    """
    if not output_folders.fetch(here):
        return None
    winner = adapters / SearchManifest.read(here).winner
    if output_folders.fetch(winner):
        return winner
    output_folders.forget(here)
    if home.store is not None:
        home.store.remove(home.portable(here))
    return None


def surviving_winner(planned: SearchPlan, here: Path, adapters: Path) -> Path | None:
    """Return the best adapter of a search of which ``jobs`` has nothing any more, if there is one.

    Of its candidates a search keeps only that, and training it again would overwrite it, perhaps
    while it is the champion.
    """
    fetch_outcomes(here)
    if run.read_outcomes(here):
        return None
    kept = (adapters / entry.key for entry in planned.entries)
    return next(filter(output_folders.fetch, kept), None)


def search_folder(workload: Workload, snapshot: Path) -> Path:
    """Return a search's folder, keyed by its candidates and by what compares them.

    A candidate's part is the key that its adapter would have if it were trained alone.
    """
    assert workload.search is not None
    alone = [
        workload.model_copy(update={"base": candidate.base, "train": candidate.recipe})
        for candidate in workload.candidates()
    ]
    inputs = {
        "candidates": [train.key_of_adapter(candidate, snapshot) for candidate in alone],
        "search": workload.search.model_dump(mode="json", exclude={"over"}),
        "target": [workload.gate.task, workload.gate.metric],
        "evaluate": workload.evaluate.model_dump(mode="json", exclude=NOT_ON_VALIDATION),
    }
    return settings.load().jobs / f"search-{manifest.digest(inputs)}"


@task
def open_search_run(workload: Workload, snapshot: Path, here: Path) -> str:
    """Open the search's MLflow run, the parent of its candidates' runs."""
    assert workload.search is not None
    return tracking.open_run(
        workload.workload,
        here.name,
        params=workload.search.model_dump(mode="json"),
        tags={"snapshot": snapshot.name},
        name=here.name,
    )


def plan_or_read(search: SearchRun) -> SearchPlan:
    """Plan the search, or read the plan of an earlier run."""
    path = search.folder / PLAN
    if not path.exists():
        settings_, candidates = search.workload.search, search.workload.candidates()
        assert settings_ is not None
        by = choose_measure(search.workload, search.snapshot)
        lengths = count_tokens(search, candidates)
        is_timed = settings_.budget.minutes is not None
        learning = [each for each, tokens in zip(candidates, lengths, strict=True) if tokens]
        paces, spent = measure_paces(search, learning, by) if is_timed else ({}, 0.0)
        courses = [
            CandidateCourse(candidate, tokens, paces.get(candidate.base))
            for candidate, tokens in zip(candidates, lengths, strict=True)
        ]
        key_of = partial(candidate_key, search)
        made = schedule.make_search_plan(courses, settings_, key_of, measure=by, spent=spent)
        manifest.write_atomically(path, made.model_dump_json(indent=2))
    return SearchPlan.model_validate_json(path.read_text())


def choose_measure(workload: Workload, snapshot: Path) -> SearchMetric:
    """Choose the metric that compares candidates: the gate's target if enough rows measure it.

    ``SearchMetricError``: the candidates can't be compared on the existing validation rows.
    """
    assert workload.search is not None
    policy, kind = workload.gate, answer_space_of(snapshot, workload.evaluate.kind).kind
    target = task_metrics.KIND_METRICS[kind].get(policy.metric) if policy.task == HOLDOUT else None
    rows = holdouts.count_measured(snapshot, kind, policy.metric, VALIDATION) if target else 0
    return schedule.choose_metric(
        policy.metric if target else None,
        rows,
        workload.search.over,
        higher_is_better=target is None or target.higher_is_better,
    )


def candidate_key(search: SearchRun, model: Path, recipe: Recipe) -> str:
    """Return a candidate's adapter key, unique to this search: elsewhere it may end differently."""
    return manifest.digest([search.folder.name, base.content_hash(model), recipe.learned])


@task
def count_tokens(search: SearchRun, candidates: Sequence[SearchCandidate]) -> list[list[list[int]]]:
    """Count each candidate's tokens by epoch and step, in its own process, since it loads torch."""
    spec = LengthsSpec(
        snapshot=search.snapshot,
        candidates=tuple(CountedCandidate(base=c.base, recipe=c.recipe) for c in candidates),
        counted=search.folder / COUNTED,
    )
    runner.run_job(spec, search.folder, train.reporter())
    return TypeAdapter(list[list[list[int]]]).validate_json(spec.counted.read_text())


def measure_paces(
    search: SearchRun, candidates: Sequence[SearchCandidate], by: SearchMetric
) -> tuple[dict[Path, TrainingPace], float]:
    """Measure each base's pace on the first steps of a candidate, and the seconds that it took.

    If that candidate fails, the base's next one is measured. Where all fail, they will at their
    first rung, too: until then their base is planned with the slowest pace.

    Raises:
        SearchError: No candidate of any base does a step.
    """
    untried: dict[Path, list[SearchCandidate]] = {}
    for candidate in candidates:
        untried.setdefault(candidate.base, []).append(candidate)
    paces: dict[Path, TrainingPace] = {}
    spent, troubles = 0.0, list[str]()
    while left := [of.pop(0) for each, of in untried.items() if of and each not in paces]:
        orders = [pace_order(search, candidate, by) for candidate in left]
        for order, done in zip(orders, run_orders(search, orders), strict=True):
            spent += done.seconds
            forget_pace(search, done.key)
            if done.stepping:  # what fails later, such as scoring it, says nothing of the pace
                pace = TrainingPace(done.seconds - done.stepping, done.tokens / done.stepping)
                paces[order.entry.base] = pace
            else:
                troubles.append(done.trouble or "it did no step")
    if troubles and not paces:
        raise run.SearchError(f"measuring a base's pace: {troubles[0]}")
    for failing in untried.keys() - paces:
        paces[failing] = min(paces.values(), key=lambda pace: pace.tokens_per_second)
    return paces, spent


def pace_order(search: SearchRun, candidate: SearchCandidate, by: SearchMetric) -> TrialOrder:
    """Return the order to measure a base's pace with a candidate."""
    key = candidate_key(search, candidate.base, candidate.recipe)
    entry = PlannedTrial(
        key=manifest.digest(["pace", key]),
        name=f"pace of {candidate.base.name}",
        base=candidate.base,
        recipe=candidate.recipe,
        stops=(PACE_STEPS,),
        costs=(0.0,),
    )
    return TrialOrder(entry=entry, rung=-1, at_step=PACE_STEPS, metric=by.metric)


def forget_pace(search: SearchRun, key: str) -> None:
    """Delete what was trained to measure a pace, and end its run in MLflow."""
    shutil.rmtree(search.adapters / key, ignore_errors=True)
    shared_job.forget_checkpoints(search.adapters / key)
    name = search.workload.workload
    tracking.prune_candidate(name, key, "only to measure a pace", "FINISHED")


def run_orders(search: SearchRun, orders: Sequence[TrialOrder]) -> list[TrialOutcome]:
    """Run the orders without an outcome on the ``gpu`` pool; return all outcomes.

    A run that ended without recording one, since it was interrupted, is followed by a second one,
    unless somebody cancelled it.
    """
    files = [
        run.write_order(search.folder, order.model_copy(update={"parent": search.run_id}))
        for order in orders
    ]
    home = settings.load()
    for file in files:
        home.publish(file)
        shared_job.fetch(run.outcome_file(file))
    ended: dict[Path, FlowRun] = {}
    for _ in range(ATTEMPTS):
        cancelled = {file for file, each in ended.items() if each.state_type == StateType.CANCELLED}
        unknown = [file for file in files if run.read_outcome(file) is None]
        if left := [file for file in unknown if file not in cancelled]:
            ended |= zip(left, train_orders(search, orders, left), strict=True)
    return [
        run.read_outcome(file) or failed_outcome(order, ended[file])
        for file, order in zip(files, orders, strict=True)
    ]


def train_orders(
    search: SearchRun, orders: Sequence[TrialOrder], files: Sequence[Path]
) -> list[FlowRun]:
    """Run the files of some of a rung's orders; return their flow runs, which have ended."""
    home = settings.load()
    parameters = {"config": search.config, "snapshot": home.portable(search.snapshot)}
    ended = flow_runs.run_children(
        "train/train",
        [parameters | {"order": home.portable(file)} for file in files],
        lambda: write_progress(search, orders),
    )
    for file in files:
        shared_job.fetch(run.outcome_file(file))
    return ended


def failed_outcome(order: TrialOrder, ended: FlowRun) -> TrialOutcome:
    """Return the outcome of an order whose last run, too, ended without recording one."""
    trouble = f"its flow run ended {ended.state_name}: {settings.load().run_page(ended.id)}"
    return TrialOutcome(key=order.entry.key, rung=order.rung, trouble=trouble)


def write_progress(search: SearchRun, orders: Sequence[TrialOrder]) -> None:
    """Write the combined progress of a rung's candidates, for display."""
    jobs = [train.training_job_folder(search.adapters / order.entry.key) for order in orders]
    now = run.combined_progress(orders, [*map(runner.newest_progress, jobs)])
    manifest.write_atomically(search.folder / "progress.json", runner.progress_line(now))


@task
def conclude_search(search: SearchRun, planned: SearchPlan, result: SearchResult) -> None:
    """Publish the results, delete all adapters but the best, write the search's manifest."""
    text = run.search_page(search.workload.workload, planned, result)
    (search.folder / PAGE).write_text(text)
    key = approvals.artifact_key("search", search.workload.workload)
    create_markdown_artifact(text, key=key, description=f"search {search.folder.name}")
    for place in result.places[1:]:
        adapter, reason = search.adapters / place.entry.key, run.placement_reason(place)
        status = "FAILED" if place.ending == "failed" else "FINISHED"
        tracking.prune_candidate(search.workload.workload, adapter.name, reason, status)
        output_folders.remove(adapter)
        shared_job.forget_checkpoints(adapter)
    finish_search(search, result.places[0].entry.key, result.spent)


def finish_search(search: SearchRun, winner: str, spent: float) -> None:
    """Write the search's manifest, and close its MLflow run."""
    body = {"snapshot": search.snapshot.name, "winner": winner, "spent": spent}
    manifest.write(search.folder, kind="search", now=datetime.now(UTC), body=body)
    tracking.close_run(search.run_id, "FINISHED")


def train_candidate(workload: Workload, snapshot: Path, path: Path) -> Path:
    """Train a candidate up to its rung, unless that was done; write its outcome.

    If candidates are compared by the target metric, it is then measured on the validation side. A
    failed training is an outcome, too: the search continues without it. One that was interrupted is
    none; it is run again.
    """
    fetch_outcomes(path.parent.parent)
    order = TrialOrder.model_validate_json(path.read_text())
    adapter = settings.load().adapters / workload.workload / order.entry.key
    with train.sole_training(adapter):
        if run.read_outcome(path) is None:
            carry_out(workload, snapshot, adapter, path, order)
    return adapter


def carry_out(
    workload: Workload, snapshot: Path, adapter: Path, path: Path, order: TrialOrder
) -> None:
    """Carry out an order, whose file is ``path``, and write its outcome."""
    model = local_base(workload, order.entry.base)
    candidate: dict[str, object] = {"base": model, "train": order.entry.recipe}
    if model != workload.base:  # whose name is not this one's
        candidate["base_served_as"] = None if model == order.entry.base else str(order.entry.base)
    candidate_workload = workload.model_copy(update=candidate)
    started = time.monotonic()
    came: dict[str, object] = {"key": order.entry.key, "rung": order.rung}
    measuring = path.with_name(f"{path.stem}.measuring")
    jobs = (train.training_job_folder(adapter), measuring)
    for job in jobs:
        runner.forget_waiting(job)
    try:
        begins = train.TrainingStart(None, "a candidate starts from its base")
        reached = train.fit_adapter(
            candidate_workload, snapshot, adapter, begins, training_part(path, order)
        )
        came |= asdict(reached) if reached else {}
        if order.metric:
            came["scores"] = validation_scores(
                candidate_workload, snapshot, adapter, order.metric, path, measuring
            )
    except runner.JobError as error:
        if error.is_interrupted:  # run again, it resumes
            raise
        came |= {"trouble": str(error).splitlines()[-1]}
    took = runner.read_work(train.training_job_folder(adapter))
    if measuring.exists():
        took = costs.total([took, runner.read_work(measuring)])
    seconds = time.monotonic() - started - math.fsum(map(runner.read_waiting, jobs))
    came |= {"seconds": seconds, "work": asdict(took) if took else None}
    run.write_outcome(path, TrialOutcome.model_validate(came))
    settings.load().publish(run.outcome_file(path))
    shutil.rmtree(candidate_folder(path), ignore_errors=True)


def training_part(path: Path, order: TrialOrder) -> TrainingPart:
    """Return the part of its training that a candidate's order asks for."""
    return TrainingPart(
        name=order.entry.name,
        search=path.parent.parent,
        parent=order.parent,
        reached=path.with_name(f"{path.stem}.reached"),
        at_step=order.at_step,
        seconds=order.seconds,
        kept=candidate_folder(path) if order.metric else None,
    )


def local_base(workload: Workload, named: Path) -> Path:
    """Return where this machine has a base of the workload that the turn's machine names."""
    bases = {home_workloads.original_base(path): path for path in workload.bases()}
    return bases.get(named, named)


def fetch_outcomes(search: Path) -> None:
    """Copy the orders and outcomes of a search that only other machines have."""
    home = settings.load()
    for rung in home.names(search):
        if home.store and rung.startswith("rung-"):
            for name in home.store.names(home.portable(search / rung)):
                shared_job.fetch(search / rung / name)


def spent(search: Path) -> list[tuple[float, costs.Work | None]]:
    """Return the seconds and the work of each part that a search has trained so far."""
    return [(outcome.seconds, outcome.work) for outcome in run.read_outcomes(search)]


@task
def validation_scores(
    workload: Workload, snapshot: Path, adapter: Path, metric: str, order: Path, job: Path
) -> dict[int, float]:
    """Measure a candidate at its rung; return a metric by validation row number."""
    standing = adapter if output_folders.fetch(adapter) else candidate_folder(order)
    if not output_folders.fetch(standing):
        body = {
            "snapshot": snapshot.name,
            "base": base.content_hash(workload.base),
            chat_templates.TEMPLATE: chat_templates.template_hash(workload.base),
        }
        manifest.write(standing, kind="adapter", now=datetime.now(UTC), body=body)
    home, report = settings.load(), train.reporter()
    card = validation.score_candidate(home, workload, snapshot, standing, job, report)
    scores = {sample.doc_id: sample.scores.get(metric) for sample in card.samples}
    return {number: score for number, score in scores.items() if score is not None}


def candidate_folder(order: Path) -> Path:
    """Return the folder of a candidate's adapter at the end of an order."""
    return order.with_name(f"{order.stem}.adapter")
