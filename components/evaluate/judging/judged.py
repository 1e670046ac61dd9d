"""Make a scorecard of a judge's verdicts on the answers that a holdout's scorecard holds."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from components import manifest, native, scorecard
from components.evaluate.harness import Folders
from components.evaluate.judging import agreement, comparing, question
from components.evaluate.judging.comparing import Comparison
from components.evaluate.judging.endpoint import Endpoint
from components.evaluate.judging.settings import METRIC, TASK, JudgeSettings
from components.evaluate.judging.verdicts import Verdicts
from components.evaluate.task import FILE
from components.schema import Json
from components.scorecard import BASELINES, FEW_SHOT, HOLDOUT, PRODUCTION, Metric, Sample

KEPT = "verdicts.jsonl"
"""Where verdicts are remembered, beside a workload's scorecards."""


def with_judge(snapshot: Path, cards: Folders, root: Path, settings: JudgeSettings) -> Folders:
    """Name each model's scorecard of the judge beside its others, whether it is there or not.

    Baselines are not judged: it would be paid for by the answer, and their other scores say enough.
    """
    people = manifest.digest([asdict(one) for one in agreement.pairs(snapshot)])
    judged = {
        model: {TASK: root / _key(model, tasks[HOLDOUT], people, snapshot, settings)}
        for model, tasks in cards.items()
        if model not in BASELINES
    }
    return {model: {**tasks, **judged.get(model, {})} for model, tasks in cards.items()}


def judge(
    snapshot: Path,
    cards: Folders,
    root: Path,
    settings: JudgeSettings,
    *,
    key: str | None,
    now: datetime,
) -> None:
    """Have the answers of each model judged against the references, unless they were.

    Args:
        snapshot: A finished snapshot folder.
        cards: Scorecards by model and task, those of the holdout finished; see ``with_judge``.
        root: Where scorecards and verdicts are kept.
        settings: Who judges.
        key: The endpoint's, if it wants one.
        now: When this was asked for (UTC).

    Raises:
        JudgeError: The judge can't be asked; no scorecard is made of a part of the answers.
    """
    missing = {
        name: one
        for name, one in cards.items()
        if TASK in one and not manifest.is_finished(one[TASK])
    }
    if not missing:
        return
    people = agreement.pairs(snapshot)
    digest = manifest.digest([asdict(one) for one in people])
    asked = _requests(snapshot)
    known = Verdicts(root / KEPT)
    with Endpoint(settings, key) as endpoint:
        found = agreement.measure(comparing.compare(people, endpoint.ask, known, settings))
        for model, tasks in missing.items():
            card = scorecard.read(tasks[HOLDOUT])
            counted = [one for one in card.samples if _counts(one)]
            pairs = [_comparison(one, asked) for one in counted]
            scores = comparing.compare(pairs, endpoint.ask, known, settings)
            by_id = {one.example_id: score for one, score in zip(counted, scores, strict=True)}
            samples = [
                replace(one, scores={METRIC: by_id.get(one.example_id)}) for one in card.samples
            ]
            body = {
                "base": card.base,
                "adapter": card.adapter,
                "task": TASK,
                "conditions": _conditions(model, digest, snapshot, settings),
                "answers_of": card.key,
                "agreement": asdict(found),
                "unjudged": scores.count(None),
            }
            metric = _metric(found, scores.count(None), settings)
            scorecard.write(tasks[TASK], samples, {METRIC: metric}, body=body, now=now)


def _key(model: str, answers: Path, people: str, snapshot: Path, settings: JudgeSettings) -> str:
    return manifest.digest([answers.name, _conditions(model, people, snapshot, settings)])


def _conditions(
    model: str, people: str, snapshot: Path, settings: JudgeSettings
) -> dict[str, Json]:
    """Gather what must be equal for two models' verdicts to be compared."""
    return {
        "task": TASK,
        "holdout_version": manifest.read(snapshot)["holdout_version"],
        "question": question.VERSION,
        "compared_by_people": people,
        "judge": settings.model_dump(include={"model", "base_url", "min_agreement"}),
        "asked_as": model if model in (FEW_SHOT, PRODUCTION) else "model",
    }


def _requests(snapshot: Path) -> Mapping[str, str]:
    """Read the requests as a judge reads them, by example."""
    rows = pq.read_table(snapshot / FILE, columns=["example_id", "prompt"]).to_pylist()
    return {str(row["example_id"]): agreement.conversation(row["prompt"]) for row in rows}


def _counts(sample: Sample) -> bool:
    """Tell whether a request counts: production's own answers are not held against themselves."""
    return any(score is not None for score in sample.scores.values())


def _comparison(sample: Sample, asked: Mapping[str, str]) -> Comparison:
    # What a model thought before it answered is not part of the answer, in any form.
    said = native.read_answer("hermes", sample.output).text.strip()
    return Comparison(asked[sample.example_id], said, sample.reference.strip())


def _metric(found: agreement.Agreement, unjudged: int, settings: JudgeSettings) -> Metric:
    left_out = f"; {unjudged} requests were not judged" if unjudged else ""
    return Metric(
        f"of all requests: {settings.model} finds the answer better than the reference, asked in "
        f"both orders; ties, and verdicts that change with the order, count half; "
        f"{found.sentence()}{left_out}",
        doubt=found.doubt(settings.min_agreement),
    )
