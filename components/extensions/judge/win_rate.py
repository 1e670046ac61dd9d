"""Scorecards of a judge's verdicts, with its measured agreement with people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow.parquet as pq
import scipy

from components import scorecard
from components.chat import dialects
from components.evaluate import text_answers
from components.evaluate.answer_judge import JUDGE_METRIC, JUDGE_TASK, JudgeSettings
from components.evaluate.holdout_task import (
    HOLDOUT_FILE,
    cluster_bounds,
    has_thoughts,
    unusual_answers,
)
from components.extensions.judge import comparisons
from components.extensions.judge.comparisons import AnswerPair, JudgeEndpoint, VerdictCache
from components.schema import Json, Message
from components.scorecard import (
    BASELINES,
    FEW_SHOT,
    HOLDOUT,
    PRODUCTION,
    Metric,
    Sample,
    ScorecardFolders,
)
from components.store import manifest, output_folders
from components.store.addresses import without_secrets
from components.store.manifest import SnapshotManifest

PREFERENCE_FILES = ("holdout_preferences.parquet", "preferences.parquet")
"""The judge was trained on neither, so training pairs are as good as held-out ones."""

TIE = 0.5

MAX_UNJUDGED = 0.05
"""A judge is evidence only if at most this share of the requests, or one, has no verdict. Each is a
tie, so a model whose answers leave the judge without one gains or loses half of that at most."""

MAX_PAIRS = 200  # pairs for the agreement: more would hardly narrow the interval

PreferenceRow: TypeAlias = dict[str, object]
HoldoutRow: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """How often a judge chose what people chose.

    It ``decided`` some of the ``pairs``, equally in both orders, and ``agreed`` with people on
    some of those; ``low`` and ``high`` are Wilson's (1927) 95 % interval of that share.
    """

    pairs: int
    unjudged: int
    decided: int
    agreed: int
    low: float | None
    high: float | None

    def sentence(self) -> str:
        """Return the agreement as a sentence."""
        if self.low is None or self.high is None:
            return f"of {self.pairs} pairs that people compared it decided none"
        return (
            f"it agreed with people on {self.agreed} of the {self.decided} pairs that it decided "
            f"({self.agreed / self.decided:.0%}, 95 % interval {self.low:.0%} to {self.high:.0%}), "
            f"of {self.pairs} that they compared"
        )

    def doubt(self, least: float) -> str | None:
        """Return why the judge is not evidence; ``None`` if it is."""
        if self.low is None:
            known = "whether the judge agrees with people here is not known"
            return f"is no evidence: {known}, {self.sentence()}"
        if not self.low >= least:  # NaN is not agreement
            return (
                f"is no evidence: {self.sentence()}; the interval has to begin at {least:.0%} "
                "(evaluate.judge.min_agreement)"
            )
        return None


def measure_agreement(scores: Sequence[float | None]) -> JudgeAgreement:
    """Measure agreement from scores: 1 for people's choice, 0 for the other, 0.5 or ``None``."""
    decided = [score for score in scores if score in (0.0, 1.0)]
    agreed, unjudged = decided.count(1.0), [*scores].count(None)
    if not decided:
        return JudgeAgreement(len(scores), unjudged, 0, 0, None, None)
    ends = scipy.stats.binomtest(agreed, len(decided)).proportion_ci(method="wilson")
    return JudgeAgreement(
        len(scores), unjudged, len(decided), agreed, float(ends.low), float(ends.high)
    )


def read_pairs(snapshot: Path) -> list[AnswerPair]:
    """Read pairs that people compared, the chosen one first: one per request, drawn by hash."""
    by_request: dict[str, PreferenceRow] = {}
    rows = _read_rows(snapshot)
    rows.sort(key=lambda row: manifest.digest(["pair", row["preference_id"]]))
    for row in rows:
        by_request.setdefault(_conversation_text(row["prompt"]), row)
    return [
        AnswerPair(request, _answer_text(row["chosen"]), _answer_text(row["rejected"]))
        for request, row in [*by_request.items()][:MAX_PAIRS]
    ]


def _conversation_text(prompt: object) -> str:
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in cast("list[Message]", prompt))


def _read_rows(snapshot: Path) -> list[PreferenceRow]:
    columns = ["preference_id", "prompt", "chosen", "rejected"]
    paths = [snapshot / name for name in PREFERENCE_FILES if (snapshot / name).exists()]
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


def _answer_text(answer: object) -> str:
    content = cast("list[Message]", answer)[0]["content"]
    return dialects.without_thought(content).strip()


def add_judge_folders(
    snapshot: Path, cards: ScorecardFolders, root: Path, settings: JudgeSettings
) -> ScorecardFolders:
    """Add each model's scorecard folder of the judge, finished or not.

    Baselines are not judged: each answer costs money, and their other scores suffice.
    """
    digest = manifest.digest([asdict(pair) for pair in read_pairs(snapshot)])
    folders = {model: {**tasks} for model, tasks in cards.items()}
    for model, tasks in folders.items():
        if model not in BASELINES:
            conditions = _judge_conditions(model, digest, snapshot, settings)
            tasks[JUDGE_TASK] = root / manifest.digest([tasks[HOLDOUT].name, conditions])
    return folders


def judge_answers(
    snapshot: Path,
    cards: ScorecardFolders,
    root: Path,
    settings: JudgeSettings,
    *,
    key: str | None,
    now: datetime,
) -> None:
    """Judge each model's answers against the references, skipping finished scorecards.

    ``cards`` are scorecards by model and task, the holdout's finished; see
    ``add_judge_folders``. ``key`` is the endpoint's, if any.

    Raises:
        JudgeError: The judge can't be queried; no partial scorecard is written.
        SourceGoneError: The snapshot was deleted meanwhile, as by an erasure.
    """
    sources = output_folders.count_copies([snapshot])
    missing = {
        model: tasks
        for model, tasks in cards.items()
        if JUDGE_TASK in tasks and not output_folders.fetch(tasks[JUDGE_TASK])
    }
    if not missing:
        return
    people = read_pairs(snapshot)
    digest = manifest.digest([asdict(pair) for pair in people])
    requests = _read_requests(snapshot)
    cards_by_model = {model: scorecard.read(tasks[HOLDOUT]) for model, tasks in missing.items()}
    counted = {
        model: [sample for sample in card.samples if _is_counted(sample)]
        for model, card in cards_by_model.items()
    }
    answers = [_answer_pair(s, requests) for samples in counted.values() for s in samples]
    cache = VerdictCache(root / scorecard.VERDICTS_FILE, sources)
    with JudgeEndpoint(settings, key) as endpoint:
        # All at once: of a model with few answers the endpoint may refuse every one.
        scores = iter(
            comparisons.compare_answers([*people, *answers], endpoint.ask, cache, settings)
        )
    agreement = measure_agreement([*islice(scores, len(people))])
    for model, card in cards_by_model.items():
        by_id = {sample.example_id: next(scores) for sample in counted[model]}
        unjudged = [*by_id.values()].count(None)
        samples = [
            replace(sample, scores={JUDGE_METRIC: _score(sample, by_id)}, rescored={})
            for sample in card.samples
        ]
        body = {
            "base": card.base,
            "adapter": card.adapter,
            "task": JUDGE_TASK,
            "conditions": _judge_conditions(model, digest, snapshot, settings),
            "answers_of": card.key,
            "agreement": asdict(agreement),
            "unjudged": unjudged,
        }
        metric = _judge_metric(agreement, len(by_id), unjudged, settings)
        folder = missing[model][JUDGE_TASK]
        with output_folders.while_kept(sources, folder):
            scorecard.write(folder, samples, {JUDGE_METRIC: metric}, body=body, now=now)


def _score(sample: Sample, scores: Mapping[str, float | None]) -> float | None:
    if sample.example_id not in scores:
        return None
    score = scores[sample.example_id]
    return TIE if score is None else score


def _judge_conditions(
    model: str, pairs_digest: str, snapshot: Path, settings: JudgeSettings
) -> dict[str, Json]:
    record = SnapshotManifest.read(snapshot)
    shown = settings.model_copy(update={"base_url": without_secrets(settings.base_url)})
    return {
        "task": JUDGE_TASK,
        "holdout_version": record.holdout_version,
        **cluster_bounds(record),
        "question": comparisons.QUESTION_VERSION,
        "compared_by_people": pairs_digest,
        "judge": shown.model_dump(include={"model", "base_url", "min_agreement"}),
        "asked_as": model if model in (FEW_SHOT, PRODUCTION) else "model",
        **({"thoughts": "left out"} if has_thoughts(snapshot) else {}),
        **({"tags": "kept"} if "tags as text" in unusual_answers(snapshot, "text") else {}),
    }


def _read_requests(snapshot: Path) -> Mapping[str, HoldoutRow]:
    columns = ["example_id", "prompt", "tools"]
    rows = pq.read_table(snapshot / HOLDOUT_FILE, columns=columns).to_pylist()
    return {str(row["example_id"]): row for row in rows}


def _is_counted(sample: Sample) -> bool:
    # Where production's answer is the reference itself, it has no scores.
    return any(score is not None for score in sample.scores.values())


def _answer_pair(sample: Sample, requests: Mapping[str, HoldoutRow]) -> AnswerPair:
    # Thoughts are not part of an answer, nor of a reference. Llama's form reads every form's calls.
    request = requests[sample.example_id]
    offers_tools = bool(json.loads(str(request["tools"])))
    answer = dialects.read_answer("llama3", sample.output, offers_tools=offers_tools)
    reference = dialects.without_thought(sample.reference).strip()
    return AnswerPair(
        _conversation_text(request["prompt"]), text_answers.whole_text(answer), reference
    )


def _judge_metric(
    agreement: JudgeAgreement, requests: int, unjudged: int, settings: JudgeSettings
) -> Metric:
    without = f"it gave no verdict on {unjudged} of {requests} requests"
    doubt = agreement.doubt(settings.min_agreement)
    if doubt is None and unjudged > max(1, MAX_UNJUDGED * requests):
        doubt = f"is no evidence: {without}, and at most {MAX_UNJUDGED:.0%} may have none"
    ties = f"; {without}, which count as ties" if unjudged else ""
    return Metric(
        f"of all requests: {settings.model} finds the answer better than the reference, asked in "
        f"both orders; ties, and verdicts that change with the order, count half; "
        f"{agreement.sentence()}{ties}",
        doubt=doubt,
    )
