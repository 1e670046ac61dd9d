"""Pick the interactions on which a person's answer would help most, with reasons."""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from components import scorecard
from components.schema import Json
from components.scorecard import BASELINES, HOLDOUT, Scorecard
from components.store import output_folders, warehouse
from components.store.manifest import ScorecardManifest
from components.store.warehouse import Connection

BLAMED = 8.0  # by a rejection
DISPUTED = 4.0  # people disagree
DIVIDED = 3.0  # some measured models are right and some are wrong
CONTRADICTED = 2.5  # no measured model answers as logged
VARIED = 2.0  # near-duplicates were answered in different ways
FLAGGED = 1.0  # by a rule
FLAGGED_MORE = 0.25  # by each further rule

WAITING = 1000  # questions held besides the best, of texts that may be long


@dataclass(frozen=True, slots=True)
class MeasuredAnswers:
    """The number of models measured on a request, and of those that were right."""

    models: int
    right: int


def read_measured(root: Path, metric: str) -> Mapping[str, MeasuredAnswers]:
    """Count models by example, on the newest holdout version that was measured.

    ``root`` is the folder of the workload's scorecards, which may be missing; ``metric`` is 1 for a
    right answer and 0 for a wrong one. Of a metric with scores between, such as ``f1``, nothing is
    counted: hardly any text is the logged one word for word.
    """
    folders = output_folders.find(root)
    records = {folder: ScorecardManifest.read(folder) for folder in folders}
    oldest_first = sorted(
        (
            folder
            for folder, record in records.items()
            if record.task == HOLDOUT and record.adapter not in BASELINES
        ),
        key=lambda folder: records[folder].age,
    )
    # Each model counts once, by its last scorecard.
    latest: dict[tuple[Json, ...], Path] = {}
    for folder in oldest_first:
        record = records[folder]
        version, shots = (record.conditions.get(key) for key in ("holdout_version", "num_fewshot"))
        latest[version, record.base, record.adapter, str(shots)] = folder
    if not latest:
        return {}
    newest = records[oldest_first[-1]].conditions.get("holdout_version")
    # One at a time: after a year there are hundreds, each with thousands of texts.
    return _count(
        (scorecard.read(folder) for (version, *_), folder in latest.items() if version == newest),
        metric,
    )


def _count(cards: Iterable[Scorecard], metric: str) -> dict[str, MeasuredAnswers]:
    scores: dict[str, list[float]] = defaultdict(list)
    for card in cards:
        for sample in card.samples:
            value = sample.scores.get(metric)
            if value is not None:
                scores[sample.example_id].append(value)
    if any(value not in (0, 1) for values in scores.values() for value in values):
        return {}
    return {
        example_id: MeasuredAnswers(len(values), sum(value == 1 for value in values))
        for example_id, values in scores.items()
    }


@dataclass(frozen=True, slots=True)
class Reviewable:
    """One interaction as shown to a reviewer, without personal data, and the facts for its score.

    ``messages``, ``tools`` and ``answer`` are JSON text.
    """

    interaction_id: str
    workload_id: str
    client_id: str
    response_id: str
    example_id: str
    messages: str
    tools: str
    answer: str
    cluster_id: str
    requests: int  # the interaction and its near-duplicates
    judged: int  # those with feedback
    labels: int  # their distinct answers
    people_for: int
    people_against: int
    flags: list[str]
    blamed: int | None = None  # the number of the decision that blames it
    models: int = 0  # measured on it
    right: int = 0  # those that answered as logged


@dataclass(frozen=True, slots=True)
class Reason:
    """One part of a score, and its description."""

    points: float
    text: str


@dataclass(frozen=True, slots=True)
class ReviewQuestion:
    """A question to a person, with the reasons."""

    about: Reviewable
    reasons: tuple[Reason, ...]

    @property
    def points(self) -> float:
        """The score: how much a person's answer is expected to help."""
        return sum(reason.points for reason in self.reasons)


def pick(reviewable: Iterable[Reviewable], count: int) -> list[ReviewQuestion]:
    """Pick up to ``count`` interactions, at most one a cluster, the most helpful first.

    Ties are broken by the larger cluster, then by the smaller id, so the input's order does not
    matter.
    """
    best: dict[str, ReviewQuestion] = {}  # of each cluster; the least helpful are let go at times
    for row in reviewable:
        question = ReviewQuestion(row, tuple(reasons(row)))
        rival = best.get(row.cluster_id)
        if rival is None or _rank(question) < _rank(rival):
            best[row.cluster_id] = question
        if len(best) > count + WAITING:
            best = {
                each.about.cluster_id: each for each in heapq.nsmallest(count, best.values(), _rank)
            }
    return sorted(best.values(), key=_rank)[:count]


def _rank(question: ReviewQuestion) -> tuple[float, int, str]:
    return (-question.points, -question.about.requests, question.about.interaction_id)


def reasons(facts: Reviewable) -> Iterator[Reason]:
    """Yield the reasons for a review of an interaction, with their points.

    Near-duplicates that nobody judged add log2(1 + their number) / 2, so hundreds of them outweigh
    a single flag.
    """
    if facts.blamed is not None:
        yield Reason(BLAMED, f"decision {facts.blamed}, a rejection, blames it")
    if facts.people_for and facts.people_against:
        both = f"{facts.people_for} for, {facts.people_against} against"
        yield Reason(DISPUTED, f"people disagree: {both}")
    if 0 < facts.right < facts.models:
        yield Reason(DIVIDED, f"models disagree: {facts.right} of {facts.models} answer as logged")
    if facts.models and not facts.right:
        yield Reason(CONTRADICTED, f"none of {facts.models} models answers as logged")
    if facts.labels > 1:
        yield Reason(
            VARIED, f"{facts.requests} requests like it were answered in {facts.labels} ways"
        )
    if facts.flags:
        points = FLAGGED + FLAGGED_MORE * (len(facts.flags) - 1)
        yield Reason(points, f"flagged by {', '.join(facts.flags)}")
    if not facts.judged:
        like = "nobody has judged it"
        if facts.requests > 1:
            like = f"nobody has judged any of the {facts.requests} requests like it"
        yield Reason(math.log2(1 + facts.requests) / 2, like)


def choose_questions(
    con: Connection,
    workload_id: str,
    count: int,
    *,
    reviewer: str,
    measured: Mapping[str, MeasuredAnswers],
) -> list[ReviewQuestion]:
    """Choose the ``count`` most helpful questions of the workload that was curated last.

    Interactions that the reviewer judged before are skipped. ``measured`` has the measured models'
    answers, by example.
    """
    values = {"workload_id": workload_id, "reviewer": reviewer}
    rows = warehouse.read(con, "marts/reviewable", Reviewable, **values)
    return pick(
        (
            replace(row, **asdict(measured[row.example_id])) if row.example_id in measured else row
            for row in rows
        ),
        count,
    )
