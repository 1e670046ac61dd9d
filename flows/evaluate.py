"""Flow `evaluate`: score base, champion and challenger on each task, on the `gpu` pool."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from prefect import flow, task

from components.evaluate import answer_judge, score_conditions, task_metrics
from components.evaluate import holdout_task as holdouts
from components.evaluate.answer_judge import JudgeError, JudgeSettings
from components.evaluate.answer_space import answer_space_of
from components.models.base import content_hash
from components.register import registry, tracking
from components.register.registry import Version
from components.scorecard import (
    BASE,
    BASELINES,
    CHALLENGER,
    CHAMPION,
    FEW_SHOT,
    HOLDOUT,
    PRODUCTION,
    ScorecardFolders,
)
from components.scorecard import read as read_scorecard
from components.store import manifest, output_folders, warehouse
from components.store.manifest import AdapterManifest, ScorecardManifest, SnapshotManifest
from flows import home_workloads, settings
from flows.flow_runs import run_name
from flows.jobs import runner
from flows.jobs.job_specs import EvaluateSpec
from flows.settings import Settings
from flows.stack import prometheus
from flows.train import reporter
from flows.workload_file import Workload


class UnmeasuredError(ValueError):
    """The gate is to judge by what is not measured."""


class LearnedError(ValueError):
    """An adapter has learned rows that it would be measured on, or may have."""


@flow(flow_run_name=run_name)
def evaluate(
    config: str, snapshot: str, adapter: str, cards: str | None = None
) -> dict[str, dict[str, str]]:
    """Score the base, the challenger and the champion; what was scored before is not run again.

    Where the scorecards are is returned, and written to the file ``cards``, if one is named.
    """
    workload, home = home_workloads.workload_of_run(config), settings.load()
    frozen = home_workloads.path_within(home.snapshots, snapshot, "snapshot")
    trained = home_workloads.path_within(home.adapters / workload.workload, adapter, "adapter")
    job = evaluation_job_folder(trained)
    file = home_workloads.path_within(job, cards, "file of scorecards") if cards else None
    return score(workload, frozen, trained, file)


@prometheus.count_stage("evaluate")
def score(
    workload: Workload, snapshot: Path, adapter: Path, cards: Path | None
) -> dict[str, dict[str, str]]:
    """Score the models that were not scored before, and write where the scorecards are."""
    home, folders = settings.load(), ScorecardFolders()
    # A person may approve another champion while models are scored.
    while folders != (folders := scorecard_folders(workload, snapshot, adapter)):
        if not all(output_folders.fetch(card) for card in all_folders(folders)):
            run_evaluation(workload, snapshot, adapter)
    places = {
        model: {name: home.portable(card) for name, card in of.items()}
        for model, of in folders.items()
    }
    if cards is not None:
        cards.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_atomically(cards, json.dumps(places))
        home.publish(cards)
    return places


def cards_file(workload: Workload, snapshot: Path, adapter: Path) -> Path:
    """Return the path of the file with the scorecard folders of an evaluation."""
    # The worker that measures writes it, since their keys hold its machine and its libraries. It is
    # named by the keys that they would have in this process, so for other questions it is another.
    keys = [card.name for card in all_folders(scorecard_folders(workload, snapshot, adapter))]
    return evaluation_job_folder(adapter) / f"cards-{manifest.digest(keys)}.json"


def cards_in(file: Path) -> ScorecardFolders | None:
    """Read the scorecard folders; ``None`` until all are finished."""
    home = settings.load()
    text = home.read(file)
    if text is None:
        return None
    places: dict[str, dict[str, str]] = json.loads(text)
    cards = {
        model: {name: home.local(card) for name, card in of.items()} for model, of in places.items()
    }
    return cards if all(output_folders.fetch(card) for card in all_folders(cards)) else None


def are_of(cards: ScorecardFolders, workload: str, snapshot: Path, adapter: Path) -> bool:
    """Return whether scorecards are an adapter's on a snapshot's holdout.

    Whoever starts an evaluation names the file that tells where they are, and what it measures.
    """
    card = ScorecardManifest.read(cards[CHALLENGER][HOLDOUT])
    held = SnapshotManifest.read(snapshot).holdout_version
    named = (card.adapter, card.conditions.get("task"), card.conditions.get("holdout_version"))
    return named == (adapter.name, holdouts.task_name(workload), held)


def is_champion_measured(cards: ScorecardFolders, champion: Version | None, adapter: Path) -> bool:
    """Return whether the scorecards are of today's champion, where the challenger is another."""
    if champion is None or champion.adapter == adapter.name:
        return True
    measured = cards.get(CHAMPION)
    return (
        measured is not None
        and ScorecardManifest.read(measured[HOLDOUT]).adapter == champion.adapter
    )


def check_tasks(workload: Workload) -> None:
    """Check that engine and tasks can be run on their documents, before anything is trained.

    Raises:
        GuardError: A task or its documents are invalid.
        UnmeasuredError: A task's own code leaves fewer documents than the gate requires.
    """
    score_conditions.require_installed(workload.evaluate.engine)
    if not workload.evaluate.tasks:
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from components.evaluate import guard_runs  # noqa: PLC0415 - loads lm-eval

    prepared = guard_runs.prepare_guards(workload.evaluate.tasks)
    sizes = {name: len(guard.task.eval_docs) for name, guard in prepared.items()}
    _require_enough(workload, sizes)


def require_measured(workload: Workload, snapshot: Path) -> None:
    """Refuse to train for a target or task that this snapshot doesn't measure."""
    answers = answer_space_of(snapshot, workload.evaluate.kind)
    kind, measured = answers.kind, task_metrics.metric_names(workload.evaluate, answers)
    if mistakes := workload.gate.unmeasured(measured):
        raise UnmeasuredError(
            f"judging {workload.workload}: its answers are {kind.replace('_', ' ')}: "
            f"{'; '.join(mistakes)}; name another under gate, or what the answers are under "
            "evaluate.kind"
        )
    for problem in (partial_target(workload, snapshot), unmeasured_abstention(workload, snapshot)):
        if problem:
            raise UnmeasuredError(f"judging {workload.workload}: {problem}")
    if workload.evaluate.judge and kind != "text":
        raise UnmeasuredError(
            f"judging {workload.workload}: its answers are {kind.replace('_', ' ')}, and a judge "
            "compares texts; leave out evaluate.judge"
        )
    if problems := score_conditions.built_in_problems(snapshot, workload.evaluate):
        raise UnmeasuredError(f"evaluating {workload.workload}: {'; '.join(problems)}")
    enough = workload.gate.min_documents
    _require_enough(workload, score_conditions.document_counts(workload.evaluate, enough, snapshot))


def _require_enough(workload: Workload, sizes: Mapping[str, int]) -> None:
    if mistakes := workload.gate.undersized(sizes):
        raise UnmeasuredError(f"judging {workload.workload}: {'; '.join(mistakes)}")


def partial_target(workload: Workload, snapshot: Path) -> str | None:
    """Explain why the target can't be one, so that nothing could pass.

    The gate requires that it is measured on all requests, and that more is better.
    """
    policy, kind = workload.gate, answer_space_of(snapshot, workload.evaluate.kind).kind
    metric = task_metrics.KIND_METRICS[kind].get(policy.metric) if policy.task == HOLDOUT else None
    if metric is None:
        return None
    if not metric.higher_is_better:
        return f"{policy.metric} is better when lower, so it can be a guard but not the target"
    rows = pq.read_metadata(snapshot / holdouts.HOLDOUT_FILE).num_rows
    measured = holdouts.count_measured(snapshot, kind, policy.metric, HOLDOUT)
    if measured == rows:
        return None
    whole = ", ".join(
        name
        for name, other in task_metrics.KIND_METRICS[kind].items()
        if other.higher_is_better and holdouts.count_measured(snapshot, kind, name, HOLDOUT) == rows
    )
    return (
        f"{policy.metric} is measured on {measured} of the {rows} held-out requests only, and the "
        f"target must be on all of them, as {whole}; any other can be a guard"
    )


def unmeasured_abstention(workload: Workload, snapshot: Path) -> str | None:
    """Explain why the guard on abstention can't be measured, so that nothing could pass."""
    guards = [(guard.task, guard.metric) for guard in workload.gate.guarding()]
    if (HOLDOUT, "abstention") not in guards or holdouts.abstains(snapshot):
        return None
    return (
        "every held-out request is answered by a call, so whether a model rightly refrains from "
        "calling can't be measured, and the gate would pass nothing; log requests that no tool "
        "fits, or set gate.abstention_margin to null"
    )


def require_unlearned(
    home: Settings, workload: str, adapter: Path, snapshot: Path, side: str
) -> None:
    """Refuse an adapter that was trained on rows of a side of a snapshot, or may have been.

    Of the holdout, rows that curation has kept apart from it since are refused, too: they are near
    to a tested row, overlap with one or offer its tools.
    """
    if not output_folders.fetch(adapter):
        raise LookupError(f"measuring {adapter}: it is not a finished adapter")
    where = f"measuring {adapter} on the {side} side"
    made_from = AdapterManifest.read(adapter)
    if made_from.snapshot == snapshot.name:
        return
    # In one home a row never changes side; an adapter from elsewhere may have learned any.
    trained_on = home.snapshots / output_folders.folder_name(workload) / made_from.snapshot
    if not output_folders.fetch(trained_on):
        raise LearnedError(
            f"{where}: it was trained on snapshot {made_from.snapshot}, which is not in "
            f"{trained_on.parent}, so whether it has learned rows of this side can't be told; "
            "train it on a snapshot of this home"
        )
    if both := _ids(trained_on / "train.parquet") & _ids(snapshot / f"{side}.parquet"):
        raise LearnedError(
            f"{where}: it has learned {len(both)} of the rows, from snapshot "
            f"{made_from.snapshot}; train it on snapshot {snapshot.name}"
        )
    if side != HOLDOUT:
        return
    if near := _near_tested(home, workload, trained_on, snapshot):
        raise LearnedError(
            f"{where}: of the requests that it has learned from snapshot {made_from.snapshot}, "
            f"{near} are too close to tested ones, or were not compared with them; train one on "
            f"snapshot {snapshot.name}, as a turn does that names no adapter"
        )
    if made_from.warm_start is not None:
        before = adapter.with_name(made_from.warm_start)
        require_unlearned(home, workload, before, snapshot, side)


def _near_tested(home: Settings, workload: str, trained_on: Path, snapshot: Path) -> int:
    """Count the learned requests that are not known to be apart from the newest holdout."""
    examples = pq.read_table(trained_on / "train.parquet", columns=["example_id"])[0].to_pylist()
    sources = _interactions(trained_on / "train.parquet")
    replayed = {example for example, ids in zip(examples, sources, strict=True) if not ids}
    for file in (trained_on / "preferences.parquet", trained_on / "labels.parquet"):
        sources += _interactions(file) if file.exists() else []
    learned = {interaction for ids in sources for interaction in ids}
    with warehouse.connect(home.tables) as con:
        near = warehouse.select(
            con, "marts/near_tested", workload_id=workload, learned=[*sorted(learned)]
        )
    return len(near) + len(replayed - _ids(snapshot / "train.parquet"))


def _interactions(file: Path) -> list[list[str]]:
    return pq.read_table(file, columns=["interaction_ids"])[0].to_pylist()


def _ids(file: Path) -> set[str]:
    return set(map(str, pq.read_table(file, columns=["example_id"])[0].to_pylist()))


def models_to_measure(workload: Workload, adapter: Path) -> dict[Path, dict[str, Path | None]]:
    """Return the adapters to measure by base and role; ``None`` for the base itself."""
    measured: dict[Path, dict[str, Path | None]] = {
        base_of(workload, adapter): {BASE: None, CHALLENGER: adapter}
    }  # a search may choose another base than the champion's
    champion = registry.champion_version(workload.workload)
    if champion and champion.adapter != adapter.name:
        current = settings.load().adapters / workload.workload / champion.adapter
        measured.setdefault(base_of(workload, current), {})[CHAMPION] = current
    return measured


def base_of(workload: Workload, adapter: Path) -> Path:
    """Find the base that an adapter was trained on, among those that the workload's file names."""
    return base_of_adapters(workload, [adapter]) if workload.search else workload.base


def base_of_adapters(workload: Workload, adapters: Sequence[Path]) -> Path:
    """Find the base that adapters were trained on: the workload's, or one that its search tries."""
    bases = workload.bases()
    hashes = {AdapterManifest.read(adapter).base for adapter in adapters}
    if len(hashes) > 1:
        raise LookupError("measuring adapters: they are of several bases, name those of one")
    if not hashes or not workload.search:
        return workload.base
    for base in bases:
        if content_hash(base) in hashes:
            return base
    raise LookupError(
        f"measuring {', '.join(adapter.name for adapter in adapters)}: the base (content "
        f"{hashes.pop()}) is not one of {', '.join(map(str, bases))}; add it to over.base under "
        "search"
    )


def scorecard_folders(workload: Workload, snapshot: Path, adapter: Path) -> ScorecardFolders:
    """Return each model's scorecard folder of each task, keyed by all that was measured."""
    root, judge = settings.load().scorecards / workload.workload, workload.evaluate.judge
    cards = {
        name: cards
        for model, group in models_to_measure(workload, adapter).items()
        for name, cards in score_conditions.folders(
            snapshot, model, group, root, workload.evaluate
        ).items()
    }
    return answer_judge.find().add_judge_folders(snapshot, cards, root, judge) if judge else cards


def judge_key(judge: JudgeSettings) -> str | None:
    """Read the key of the judge's endpoint from the variable that the workload's file names."""
    if judge.api_key_env is None:
        return None
    if key := os.environ.get(judge.api_key_env):
        return key
    raise JudgeError(
        f"asking the judge {judge.model}: {judge.api_key_env} (evaluate.judge.api_key_env) is not "
        "set where the evaluation runs; set it for the worker of the gpu pool"
    )


def all_folders(cards: ScorecardFolders) -> list[Path]:
    """List the scorecard folders of all models and tasks."""
    return [card for tasks in cards.values() for card in tasks.values()]


def evaluation_job_folder(adapter: Path) -> Path:
    """Return the folder with the log and progress of ``adapter``'s evaluation."""
    return settings.load().jobs / f"evaluate-{adapter.name}"


@task
def run_evaluation(workload: Workload, snapshot: Path, adapter: Path) -> None:
    """Evaluate in a subprocess for each base, and add the challenger's scores to its MLflow run."""
    run_id = tracking.find_run(workload.workload, adapter.name)
    root, judge = settings.load().scorecards / workload.workload, workload.evaluate.judge
    key = judge_key(judge) if judge else None
    for model, group in models_to_measure(workload, adapter).items():
        cards_of_base = score_conditions.folders(snapshot, model, group, root, workload.evaluate)
        if all(output_folders.fetch(card) for card in all_folders(cards_of_base)):
            continue
        spec = EvaluateSpec(
            snapshot=snapshot,
            base=model,
            models=group,
            root=root,
            settings=workload.evaluate,
            side=HOLDOUT,
        )
        runner.run_job(spec, evaluation_job_folder(adapter), reporter())
    cards = scorecard_folders(workload, snapshot, adapter)
    if judge:
        now = datetime.now(UTC)
        answer_judge.find().judge_answers(snapshot, cards, root, judge, key=key, now=now)
    scores = {
        f"{model}/{metric}" if name == HOLDOUT else f"{model}/{name}/{metric}": score.value
        for model in (BASE, FEW_SHOT, PRODUCTION, *BASELINES, CHALLENGER)
        if model in cards
        for name, card in cards[model].items()
        for metric, score in read_scorecard(card).scores.items()
        if score.value is not None
    }
    held_out = read_scorecard(cards[CHALLENGER][HOLDOUT])
    scores |= {
        f"{CHALLENGER}/{metric}/clusters": float(score.clusters)
        for metric, score in held_out.scores.items()
        if score.clusters
    }
    tracking.log_scores(run_id, scores, cards[CHALLENGER].values())
