"""Turn resolved opinions into labels and response scores, comparisons and ratings into pairs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from components.curate.preferences import feedback_signals
from components.curate.preferences.caps import Defence
from components.curate.preferences.consensus import Resolution, Vote
from components.curate.preferences.feedback_signals import (
    Actor,
    AnswerComparison,
    Answers,
    Completion,
    Signal,
    SignalReading,
    Source,
)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One answer preferred to another; ``interaction_ids`` have the same prompt."""

    example_id: str
    chosen: str
    rejected: str
    weight: float
    source: Source
    interaction_ids: tuple[str, ...]
    feedback_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """One answer found good or bad."""

    example_id: str
    answer: str
    is_good: bool
    weight: float
    interaction_ids: tuple[str, ...]
    feedback_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResponseScore:
    """People's ``regard`` of an interaction's answer, from -1 to 1; a ``dislike`` leaves it out."""

    interaction_id: str
    regard: float
    dislike: str | None
    feedback_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """One disagreement: its subject, the votes' weights, and its resolution."""

    kind: str
    example_id: str
    subject: str
    weight_for: float
    weight_against: float = 0.0
    weight_tied: float = 0.0
    method: str
    confidence: float = 1.0
    resolution: str
    for_ids: tuple[str, ...]
    against_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Weighed:
    """The result of weighing all signals of a workload.

    ``reasons`` has for each signal why it is unused, unless it is used elsewhere; ``targets`` has
    the interactions whose answer each correction replaces.
    """

    answers: Answers
    readings: tuple[SignalReading, ...]
    defence: Defence
    pairs: tuple[PreferencePair, ...]
    labels: tuple[Label, ...]
    regards: tuple[ResponseScore, ...]
    conflicts: tuple[Conflict, ...]
    targets: dict[str, tuple[str, ...]]
    reasons: dict[str, str]


RATING_GAP = 0.25  # of the scale, between two answers to one prompt that make a pair

Ratings = dict[Completion, list[tuple[float, Signal]]]
"""The ratings of each answer, from -1 to 1, with their signals."""


def pair_ratings(ratings: Ratings) -> Iterator[tuple[Completion, Completion, float]]:
    """Pair the best rated answer to a prompt with the worst, the second with the last but one.

    Yields the better answer, the worse one, and the difference of their mean ratings as a share of
    the scale; a person who rated copies of an answer counts once, with their mean. Each answer is
    in at most one pair, so that a prompt with many answers doesn't outweigh the others.
    """
    by_prompt: dict[str, list[tuple[float, Completion]]] = defaultdict(list)
    for completion, answer_ratings in ratings.items():
        by_person: dict[Actor, list[float]] = defaultdict(list)
        for position, signal in answer_ratings:
            by_person[signal.person].append(position)
        means = sorted(_mean(sorted(positions)) for positions in by_person.values())
        by_prompt[completion[0]].append((_mean(means), completion))
    for _, ranked in sorted(by_prompt.items()):
        ranked.sort()
        for (low, worse), (high, better) in zip(ranked, reversed(ranked), strict=True):
            if (high - low) / 2 < RATING_GAP:
                break
            yield better, worse, (high - low) / 2


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


AnswerPair: TypeAlias = tuple[str, str, str]
"""Two answers to a prompt: example id and their keys, sorted; side 1 is for the first."""

SOURCES: tuple[Source, ...] = ("correction", "choice", "regenerate")
"""The order in which a pair's source is chosen from several."""


def comparison_votes(readings: Iterable[SignalReading]) -> tuple[list[Vote[AnswerPair]], set[str]]:
    """Return each person's newest vote on two answers, and the superseded feedback ids."""
    newest: dict[tuple[AnswerPair, tuple[str, str]], tuple[SignalReading, AnswerComparison]] = {}
    old: set[str] = set()
    for reading in sorted(readings, key=lambda r: (r.signal.age_key, r.signal.feedback_id)):
        for comparison in reading.comparisons:
            place = (answers_compared(comparison), reading.signal.person)
            if place in newest:
                old.add(newest[place][0].signal.feedback_id)
            newest[place] = (reading, comparison)
    votes: list[Vote[AnswerPair]] = []
    for (pair, _), (reading, comparison) in newest.items():
        side = 0 if comparison.is_tie else 1 if comparison.better[1] == pair[1] else -1
        signal = reading.signal
        votes.append(Vote(pair, signal.feedback_id, signal.actor, side, comparison.weight))
    return votes, old - {vote.feedback_id for vote in votes}


def answers_compared(comparison: AnswerComparison) -> AnswerPair:
    """Return the two compared answers, independent of which was better."""
    first, second = sorted([comparison.better[1], comparison.worse[1]])
    return (comparison.better[0], first, second)


def compared_pairs(
    settled: Sequence[Resolution[AnswerPair]], readings: Sequence[SignalReading], answers: Answers
) -> list[PreferencePair]:
    """Return a pair for each decided comparison."""
    by_id = {reading.signal.feedback_id: reading for reading in readings}
    return [_pair(resolution, by_id, answers) for resolution in settled if resolution.side]


def rated_pairs(
    readings: Sequence[SignalReading], compared: set[AnswerPair], answers: Answers
) -> list[PreferencePair]:
    """Return the pairs of ratings, except where somebody compared the two answers directly."""
    ratings: Ratings = defaultdict(list)
    for reading in readings:
        if reading.signal.kind == "rating":
            for opinion in reading.opinions:
                ratings[opinion.completion].append((opinion.position, reading.signal))
    return [
        PreferencePair(
            example_id=better[0],
            chosen=better[1],
            rejected=worse[1],
            weight=weight,
            source="rating",
            interaction_ids=tuple(answers.interactions[better]),
            feedback_ids=tuple(
                sorted({rated[1].feedback_id for rated in ratings[better] + ratings[worse]})
            ),
        )
        for better, worse, weight in pair_ratings(ratings)
        if (better[0], *sorted([better[1], worse[1]])) not in compared
    ]


def _pair(
    resolution: Resolution[AnswerPair], by_id: dict[str, SignalReading], answers: Answers
) -> PreferencePair:
    example, first, second = resolution.item
    chosen, rejected = (first, second) if resolution.side > 0 else (second, first)
    winners = resolution.ids(resolution.side)
    sources = [
        comparison.source
        for feedback_id in winners
        for comparison in by_id[feedback_id].comparisons
        if answers_compared(comparison) == resolution.item
    ]
    return PreferencePair(
        example_id=example,
        chosen=chosen,
        rejected=rejected,
        weight=resolution.weight,
        source=next(source for source in SOURCES if source in sources),
        interaction_ids=tuple(
            answers.interactions.get((example, chosen))
            or sorted(
                {
                    interaction_id
                    for feedback_id in winners
                    for interaction_id in by_id[feedback_id].signal.interaction_ids
                    if answers.prompts[interaction_id] == example
                }
            )
        ),
        feedback_ids=tuple(winners),
    )


LOW = -0.5  # a rating in the lowest quarter of its scale is a dislike


def opinion_votes(
    readings: Sequence[SignalReading], answers: Answers
) -> tuple[list[Vote[Completion]], list[Conflict]]:
    """Return a vote for every good or bad opinion, and a conflict for each overruled answer.

    A correction overrules praise of the corrected answer, and blame of the one that it gives. All
    votes of one actor on an answer have a weight of 1 at most.
    """
    corrected = {
        comparison.worse
        for reading in readings
        for comparison in reading.comparisons
        if comparison.source == "correction"
    }
    right = {
        (answers.prompts[interaction_id], reading.edited)
        for reading in readings
        for interaction_id in reading.replaces
    } - corrected
    votes: list[Vote[Completion]] = []
    overruled: dict[Completion, list[Vote[Completion]]] = defaultdict(list)
    for reading in readings:
        signal = reading.signal
        for opinion in reading.opinions:
            item, side = opinion.completion, 1 if opinion.position > 0 else -1
            if feedback_signals.is_opinionated(opinion.position):
                vote = Vote(item, signal.feedback_id, signal.actor, side, opinion.weight)
                is_overruled = item in (corrected if side > 0 else right)
                (overruled[item] if is_overruled else votes).append(vote)
    votes = _one_vote_each(votes)
    return votes, [_corrected(item, votes) for item, votes in sorted(overruled.items())]


def _corrected(item: Completion, votes: Sequence[Vote[Completion]]) -> Conflict:
    praise, blame = ([vote for vote in votes if vote.side == side] for side in (1, -1))
    return Conflict(
        kind="label",
        example_id=item[0],
        subject=item[1],
        weight_for=sum(vote.weight for vote in praise),
        weight_against=sum(vote.weight for vote in blame),
        method="correction",
        resolution="corrected",
        for_ids=tuple(sorted(vote.feedback_id for vote in praise)),
        against_ids=tuple(sorted(vote.feedback_id for vote in blame)),
    )


def _one_vote_each(votes: Sequence[Vote[Completion]]) -> list[Vote[Completion]]:
    # A person may judge copies of an answer, or one by several outcomes. All anonymous actors of a
    # client are one, and may be many people: only the cap applies to them.
    totals: dict[tuple[Completion, Actor], float] = defaultdict(float)
    for vote in votes:
        totals[vote.item, vote.actor] += vote.weight
    return [
        replace(vote, weight=vote.weight / total)
        if (total := totals[vote.item, vote.actor]) > 1 and vote.actor[1]
        else vote
        for vote in votes
    ]


def label_answers(
    settled: Iterable[Resolution[Completion]], paired: set[str], answers: Answers
) -> list[Label]:
    """Return a label for each decided answer; ratings already in a pair make no label."""
    labels: list[Label] = []
    for resolution in settled:
        winners = [
            vote
            for vote in resolution.votes
            if vote.side == resolution.side != 0 and vote.feedback_id not in paired
        ]
        if winners:
            share = sum(vote.weight for vote in winners) / resolution.weight_of(resolution.side)
            labels.append(
                Label(
                    example_id=resolution.item[0],
                    answer=resolution.item[1],
                    is_good=resolution.side > 0,
                    weight=resolution.weight * share,
                    interaction_ids=tuple(answers.interactions[resolution.item]),
                    feedback_ids=tuple(sorted({vote.feedback_id for vote in winners})),
                )
            )
    return labels


def response_scores(
    settled: Iterable[Resolution[Completion]], readings: Iterable[SignalReading], answers: Answers
) -> list[ResponseScore]:
    """Return each interaction's regard, and the dislike that leaves it out, sorted by id."""
    disliked = _dislikes(readings)
    scores: list[ResponseScore] = []
    for resolution in settled:
        reasons = {
            disliked.get((resolution.item, feedback_id)) for feedback_id in resolution.ids(-1)
        } - {None}
        dislike = max(filter(None, reasons), default=None) if resolution.side < 0 else None
        ids = tuple(resolution.ids(-1, 1))
        scores += [
            ResponseScore(interaction_id, resolution.side * resolution.weight, dislike, ids)
            for interaction_id in answers.interactions[resolution.item]
        ]
    return sorted(scores, key=lambda regard: regard.interaction_id)


def _dislikes(readings: Iterable[SignalReading]) -> dict[tuple[Completion, str], str]:
    """Return the opinions that are dislikes: a thumb down, a rating in the lowest quarter."""
    reasons: dict[tuple[Completion, str], str] = {}
    for reading in readings:
        for opinion in reading.opinions:
            place = (opinion.completion, reading.signal.feedback_id)
            if reading.signal.kind == "thumb" and opinion.position < 0:
                reasons[place] = "thumbs_down"
            elif reading.signal.kind == "rating" and opinion.position <= LOW:
                reasons[place] = "rated_low"
    return reasons
