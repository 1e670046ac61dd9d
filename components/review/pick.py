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
    """How many models were measured on a request, and how many of them were right."""

    models: int
    right: int


def read_measured(root: Path, metric: str) -> Mapping[str, MeasuredAnswers]:
    """Count models by example, of the newest state of the holdout that any was measured on.

    Args:
        root: The folder of the workload's scorecards; it need not exist.
        metric: Which score says that an answer is right.
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
    """Tell whether a scorecard is of a language model on the holdout, and not of a baseline."""
    if not manifest.is_finished(folder):
        return False
    record = ScorecardManifest.read(folder)
    return record.task == HOLDOUT and record.adapter not in BASELINES


def _count(cards: list[Scorecard], metric: str) -> dict[str, MeasuredAnswers]:
    """Count each model once: the last card of those that were made of one model."""
    latest = {(one.base, one.adapter, str(one.conditions.get("num_fewshot"))): one for one in cards}
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


BLAMED, DISPUTED, DIVIDED, CONTRADICTED, VARIED, FLAGGED, FLAGGED_MORE = (
    8.0,
    4.0,
    3.0,
    2.5,
    2.0,
    1.0,
    0.25,
)


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """What is known of one interaction.

    ``requests`` counts its near-duplicates and itself, ``judged`` those that somebody has judged,
    ``labels`` the ways they were answered in. ``models`` were measured on it, ``right`` of them
    answered as logged. ``blamed`` is the decision that blames it.
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
    """One part of a score, in words."""

    points: float
    said: str


@dataclass(frozen=True, slots=True)
class Pick:
    """An interaction to ask a person about, and why."""

    interaction_id: str
    reasons: tuple[Reason, ...]

    @property
    def points(self) -> float:
        """How much a word on it is expected to help."""
        return sum(reason.points for reason in self.reasons)


def pick(known: Iterable[ReviewFacts], count: int) -> list[Pick]:
    """Pick up to ``count`` interactions, of each cluster at most one, the most helpful first.

    Of equal scores the larger cluster comes first, then the smaller id: the order of what is given
    does not matter.
    """
    ranked = sorted(
        ((one, Pick(one.interaction_id, tuple(reasons(one)))) for one in known),
        key=lambda pair: (-pair[1].points, -pair[0].requests, pair[0].interaction_id),
    )
    picked: dict[str, Pick] = {}
    for one, candidate in ranked:
        if len(picked) == count:
            break
        picked.setdefault(one.cluster_id, candidate)
    return list(picked.values())


def reasons(one: ReviewFacts) -> Iterator[Reason]:
    """Say what speaks for asking about an interaction."""
    if one.blamed is not None:
        yield Reason(BLAMED, f"decision {one.blamed}, a rejection, blames it")
    if one.people_for and one.people_against:
        both = f"{one.people_for} for, {one.people_against} against"
        yield Reason(DISPUTED, f"people disagree: {both}")
    if 0 < one.right < one.models:
        yield Reason(DIVIDED, f"models disagree: {one.right} of {one.models} answer as logged")
    if one.models and not one.right:
        yield Reason(CONTRADICTED, f"none of {one.models} models answers as logged")
    if one.labels > 1:
        yield Reason(VARIED, f"{one.requests} requests like it were answered in {one.labels} ways")
    if one.flags:
        points = FLAGGED + FLAGGED_MORE * (len(one.flags) - 1)
        yield Reason(points, f"flagged by {', '.join(one.flags)}")
    if not one.judged:
        like = "nobody has judged it"
        if one.requests > 1:
            like = f"nobody has judged any of the {one.requests} requests like it"
        yield Reason(math.log2(1 + one.requests) / 2, like)


UNMEASURED = MeasuredAnswers(0, 0)


@dataclass(frozen=True, slots=True)
class Reviewable:
    """One interaction as a reviewer sees it: without personal data.

    ``messages``, ``tools`` and ``answer`` are JSON text; ``blamed`` is the decision that blames it.
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
        """Give what its score depends on."""
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
    """What is asked of a person, and why."""

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
    """Choose the questions that help most, of a workload that was curated last.

    Args:
        con: The warehouse.
        workload_id: The workload; ``staging`` holds it.
        count: How many at most.
        reviewer: Who is asked; what that person has judged before is left out.
        measured: How models answered, by example.
    """
    values = {"workload_id": workload_id, "reviewer": reviewer}
    found = {
        one.interaction_id: one
        for one in warehouse.read(con, "marts/reviewable", Reviewable, **values)
    }
    known = (one.known(measured.get(one.example_id, UNMEASURED)) for one in found.values())
    return [ReviewQuestion(found[one.interaction_id], one) for one in pick(known, count)]
