"""Pick the interactions on which a person's answer would help most, with reasons."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from components import scorecard
from components.scorecard import BASELINES, HOLDOUT, Scorecard
from components.store import manifest, warehouse
from components.store.manifest import ScorecardManifest
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class MeasuredAnswers:
    """The number of models measured on a request, and of those that were right."""

    models: int
    right: int


def read_measured(root: Path, metric: str) -> Mapping[str, MeasuredAnswers]:
    """Count models by example, on the newest holdout version that was measured.

    Args:
        root: The folder of the workload's scorecards; it may be missing.
        metric: The metric that is 1 for a right answer.
    """
    folders = [path for path in sorted(root.glob("*")) if _is_of_the_holdout(path)]
    cards = {folder: scorecard.read(folder) for folder in folders}
    if not cards:
        return {}
    newest = max(folders, key=lambda path: ScorecardManifest.read(path).age)
    version = cards[newest].conditions.get("holdout_version")
    same = [card for card in cards.values() if card.conditions.get("holdout_version") == version]
    return _count(same, metric)


def _is_of_the_holdout(folder: Path) -> bool:
    """Return whether a finished scorecard is of a model on the holdout, not of a baseline."""
    if not manifest.is_finished(folder):
        return False
    record = ScorecardManifest.read(folder)
    return record.task == HOLDOUT and record.adapter not in BASELINES


def _count(cards: list[Scorecard], metric: str) -> dict[str, MeasuredAnswers]:
    """Count each model once, by its last scorecard."""
    latest = {
        (card.base, card.adapter, str(card.conditions.get("num_fewshot"))): card for card in cards
    }
    scores: dict[str, list[float]] = defaultdict(list)
    for card in latest.values():
        for sample in card.samples:
            value = sample.scores.get(metric)
            if value is not None:
                scores[sample.example_id].append(value)
    return {
        example_id: MeasuredAnswers(len(values), sum(value == 1 for value in values))
        for example_id, values in scores.items()
    }


BLAMED = 8.0  # by a rejection
DISPUTED = 4.0  # people disagree
DIVIDED = 3.0  # some measured models are right and some are wrong
CONTRADICTED = 2.5  # no measured model answers as logged
VARIED = 2.0  # near-duplicates were answered in different ways
FLAGGED = 1.0  # by a rule
FLAGGED_MORE = 0.25  # by each further rule


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """The facts that an interaction's score depends on.

    ``requests`` counts the interaction and its near-duplicates, ``judged`` those with feedback,
    ``labels`` their distinct answers. ``models`` were measured on it, ``right`` of them answered as
    logged. ``blamed`` is the number of the decision that blames it.
    """

    interaction_id: str
    cluster_id: str
    requests: int
    judged: int
    labels: int
    people_for: int
    people_against: int
    flags: tuple[str, ...]
    models: int = 0
    right: int = 0
    blamed: int | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """One part of a score, and its description."""

    points: float
    text: str


@dataclass(frozen=True, slots=True)
class Pick:
    """An interaction for review, with the reasons."""

    interaction_id: str
    reasons: tuple[Reason, ...]

    @property
    def points(self) -> float:
        """The score: how much a person's answer is expected to help."""
        return sum(reason.points for reason in self.reasons)


def pick(known: Iterable[ReviewFacts], count: int) -> list[Pick]:
    """Pick up to ``count`` interactions, at most one a cluster, the most helpful first.

    Ties are broken by the larger cluster, then by the smaller id, so the input's order does not
    matter.
    """
    ranked = sorted(
        ((facts, Pick(facts.interaction_id, tuple(reasons(facts)))) for facts in known),
        key=lambda pair: (-pair[1].points, -pair[0].requests, pair[0].interaction_id),
    )
    picked: dict[str, Pick] = {}
    for facts, candidate in ranked:
        if len(picked) == count:
            break
        picked.setdefault(facts.cluster_id, candidate)
    return list(picked.values())


def reasons(facts: ReviewFacts) -> Iterator[Reason]:
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


UNMEASURED = MeasuredAnswers(0, 0)


@dataclass(frozen=True, slots=True)
class Reviewable:
    """One interaction as shown to a reviewer, without personal data.

    ``messages``, ``tools`` and ``answer`` are JSON text; ``blamed`` is the number of the decision
    that blames it.
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
    requests: int
    judged: int
    labels: int
    people_for: int
    people_against: int
    flags: list[str]
    blamed: int | None = None

    def known(self, measured: MeasuredAnswers) -> ReviewFacts:
        """Return the facts that its score depends on."""
        return ReviewFacts(
            self.interaction_id,
            self.cluster_id,
            self.requests,
            self.judged,
            self.labels,
            self.people_for,
            self.people_against,
            tuple(self.flags),
            measured.models,
            measured.right,
            self.blamed,
        )


@dataclass(frozen=True, slots=True)
class ReviewQuestion:
    """A question to a person, with the reasons."""

    about: Reviewable
    pick: Pick


def choose_questions(
    con: Connection,
    workload_id: str,
    count: int,
    *,
    reviewer: str,
    measured: Mapping[str, MeasuredAnswers],
) -> list[ReviewQuestion]:
    """Choose the most helpful questions of the workload that was curated last.

    Args:
        con: The warehouse.
        workload_id: The workload, which is in ``staging``.
        count: The most questions.
        reviewer: The person; interactions that they judged before are skipped.
        measured: The measured models' answers, by example.
    """
    values = {"workload_id": workload_id, "reviewer": reviewer}
    reviewable = {
        row.interaction_id: row
        for row in warehouse.read(con, "marts/reviewable", Reviewable, **values)
    }
    known = (row.known(measured.get(row.example_id, UNMEASURED)) for row in reviewable.values())
    return [
        ReviewQuestion(reviewable[picked.interaction_id], picked) for picked in pick(known, count)
    ]
