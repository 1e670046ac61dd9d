"""Scorecards of a judge's verdicts, once it agrees with people often enough."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow.parquet as pq
from scipy import stats

from components import scorecard
from components.chat import dialects
from components.evaluate.harness import ScorecardFolders
from components.evaluate.holdout_task import HOLDOUT_FILE
from components.evaluate.judge import comparisons
from components.evaluate.judge.comparisons import AnswerPair, JudgeEndpoint, VerdictCache
from components.evaluate.judge.settings import JUDGE_METRIC, JUDGE_TASK, JudgeSettings
from components.schema import Json, Message
from components.scorecard import BASELINES, FEW_SHOT, HOLDOUT, PRODUCTION, Metric, Sample
from components.store import manifest
from components.store.manifest import SnapshotManifest

PREFERENCE_FILES = ("holdout_preferences.parquet", "preferences.parquet")
"""A judge learned from neither, so the pairs that are trained on tell as much."""

MOST_PAIRS = 200
"""Pairs that are asked about: beyond them the interval hardly narrows."""

PreferenceRow: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """How often a judge chose what people chose.

    Of ``pairs`` it ``decided`` some, in both orders alike, and ``agreed`` on so many of them;
    ``low`` and ``high`` are Wilson's (1927) 95 % interval of that share.
    """

    pairs: int
    unjudged: int
    decided: int
    agreed: int
    low: float | None
    high: float | None

    def sentence(self) -> str:
        """Say it in words."""
        if self.low is None or self.high is None:
            return f"of {self.pairs} pairs that people compared it decided none"
        return (
            f"it agreed with people on {self.agreed} of the {self.decided} pairs that it decided "
            f"({self.agreed / self.decided:.0%}, 95 % interval {self.low:.0%} to {self.high:.0%}), "
            f"of {self.pairs} that they compared"
        )

    def doubt(self, least: float) -> str | None:
        """Say why the judge is no evidence; ``None`` if it is."""
        if self.low is None:
            return (
                "is no evidence: whether the judge agrees with people here is not known, "
                f"{self.sentence()}"
            )
        if not self.low >= least:  # what is no number is no agreement
            return (
                f"is no evidence: {self.sentence()}; the interval has to begin at {least:.0%} "
                "(evaluate.judge.min_agreement)"
            )
        return None


def measure_agreement(scores: Sequence[float | None]) -> JudgeAgreement:
    """Count the pairs of which the judge chose people's choice (1), the other (0), or neither."""
    decided = [one for one in scores if one in (0.0, 1.0)]
    agreed, unjudged = decided.count(1.0), [*scores].count(None)
    if not decided:
        return JudgeAgreement(len(scores), unjudged, 0, 0, None, None)
    ends = stats.binomtest(agreed, len(decided)).proportion_ci(method="wilson")
    return JudgeAgreement(
        len(scores), unjudged, len(decided), agreed, float(ends.low), float(ends.high)
    )


def read_pairs(snapshot: Path) -> list[AnswerPair]:
    """Read the pairs that people compared, what they chose first: one a request, drawn by hash."""
    found: dict[str, PreferenceRow] = {}
    for row in sorted(_read_rows(snapshot), key=_draw_key):
        found.setdefault(conversation_text(row["prompt"]), row)
    return [
        AnswerPair(request, _answer_text(row["chosen"]), _answer_text(row["rejected"]))
        for request, row in [*found.items()][:MOST_PAIRS]
    ]


def conversation_text(prompt: object) -> str:
    """Write a request as a judge reads it, all of the conversation."""
    return "\n\n".join(f"{one['role']}: {one['content']}" for one in cast("list[Message]", prompt))


def _read_rows(snapshot: Path) -> list[PreferenceRow]:
    columns = ["preference_id", "prompt", "chosen", "rejected"]
    paths = [snapshot / name for name in PREFERENCE_FILES if (snapshot / name).exists()]
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


def _draw_key(row: PreferenceRow) -> str:
    return manifest.digest(["pair", row["preference_id"]])


def _answer_text(answer: object) -> str:
    return cast("list[Message]", answer)[0]["content"].strip()


VERDICTS_FILE = "verdicts.jsonl"
"""Where verdicts are remembered, beside a workload's scorecards."""


def add_judge_folders(
    snapshot: Path, cards: ScorecardFolders, root: Path, settings: JudgeSettings
) -> ScorecardFolders:
    """Name each model's scorecard of the judge beside its others, whether it is there or not.

    Baselines are not judged: it would be paid for by the answer, and their other scores say enough.
    """
    people = manifest.digest([asdict(one) for one in read_pairs(snapshot)])
    judged = {
        model: {
            JUDGE_TASK: root / _scorecard_key(model, tasks[HOLDOUT], people, snapshot, settings)
        }
        for model, tasks in cards.items()
        if model not in BASELINES
    }
    return {model: {**tasks, **judged.get(model, {})} for model, tasks in cards.items()}


def judge_answers(
    snapshot: Path,
    cards: ScorecardFolders,
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
        if JUDGE_TASK in one and not manifest.is_finished(one[JUDGE_TASK])
    }
    if not missing:
        return
    people = read_pairs(snapshot)
    digest = manifest.digest([asdict(one) for one in people])
    asked = _read_requests(snapshot)
    known = VerdictCache(root / VERDICTS_FILE)
    with JudgeEndpoint(settings, key) as endpoint:
        found = measure_agreement(
            comparisons.compare_answers(people, endpoint.ask, known, settings)
        )
        for model, tasks in missing.items():
            card = scorecard.read(tasks[HOLDOUT])
            counted = [one for one in card.samples if _is_counted(one)]
            pairs = [_answer_pair(one, asked) for one in counted]
            scores = comparisons.compare_answers(pairs, endpoint.ask, known, settings)
            by_id = {one.example_id: score for one, score in zip(counted, scores, strict=True)}
            samples = [
                replace(one, scores={JUDGE_METRIC: by_id.get(one.example_id)})
                for one in card.samples
            ]
            body = {
                "base": card.base,
                "adapter": card.adapter,
                "task": JUDGE_TASK,
                "conditions": _judge_conditions(model, digest, snapshot, settings),
                "answers_of": card.key,
                "agreement": asdict(found),
                "unjudged": scores.count(None),
            }
            metric = _judge_metric(found, scores.count(None), settings)
            scorecard.write(tasks[JUDGE_TASK], samples, {JUDGE_METRIC: metric}, body=body, now=now)


def _scorecard_key(
    model: str, answers: Path, pairs_digest: str, snapshot: Path, settings: JudgeSettings
) -> str:
    return manifest.digest(
        [answers.name, _judge_conditions(model, pairs_digest, snapshot, settings)]
    )


def _judge_conditions(
    model: str, pairs_digest: str, snapshot: Path, settings: JudgeSettings
) -> dict[str, Json]:
    """Gather what must be equal for two models' verdicts to be compared."""
    return {
        "task": JUDGE_TASK,
        "holdout_version": SnapshotManifest.read(snapshot).holdout_version,
        "question": comparisons.QUESTION_VERSION,
        "compared_by_people": pairs_digest,
        "judge": settings.model_dump(include={"model", "base_url", "min_agreement"}),
        "asked_as": model if model in (FEW_SHOT, PRODUCTION) else "model",
    }


def _read_requests(snapshot: Path) -> Mapping[str, str]:
    """Read the requests as a judge reads them, by example."""
    rows = pq.read_table(snapshot / HOLDOUT_FILE, columns=["example_id", "prompt"]).to_pylist()
    return {str(row["example_id"]): conversation_text(row["prompt"]) for row in rows}


def _is_counted(sample: Sample) -> bool:
    """Tell whether a request counts: production's own answers are not held against themselves."""
    return any(score is not None for score in sample.scores.values())


def _answer_pair(sample: Sample, requests: Mapping[str, str]) -> AnswerPair:
    # What a model thought before it answered is not part of the answer, in any form.
    said = dialects.read_answer("hermes", sample.output).text.strip()
    return AnswerPair(requests[sample.example_id], said, sample.reference.strip())


def _judge_metric(agreement: JudgeAgreement, unjudged: int, settings: JudgeSettings) -> Metric:
    left_out = f"; {unjudged} requests were not judged" if unjudged else ""
    return Metric(
        f"of all requests: {settings.model} finds the answer better than the reference, asked in "
        f"both orders; ties, and verdicts that change with the order, count half; "
        f"{agreement.sentence()}{left_out}",
        doubt=agreement.doubt(settings.min_agreement),
    )
