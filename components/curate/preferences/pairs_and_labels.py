"""Turn resolved opinions into labels and response scores, comparisons and ratings into pairs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from components.curate.preferences import consensus, feedback_signals
from components.curate.preferences.caps import Defence
from components.curate.preferences.consensus import Resolution, Vote
from components.curate.preferences.feedback_signals import (
    AnswerComparison,
    Answers,
    Completion,
    SignalReading,
    Source,
)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One answer preferred to another; ``interaction_ids`` show that the prompt was asked."""

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
    """What people made of an interaction's answer, from -1 to 1; ``dislike`` leaves it out."""

    interaction_id: str
    regard: float
    dislike: str | None
    feedback_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """What people disagreed about, what they said in weight, and what became of it."""

    kind: str
    example_id: str
    subject: str
    weight_for: float
    weight_against: float
    weight_tied: float
    method: str
    confidence: float
    resolution: str
    for_ids: tuple[str, ...]
    against_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weighed:
    """What all signals of a workload come to.

    ``reasons`` says of each signal why it is not used, should it be in none of the others;
    ``targets`` gives the interactions that each correction replaces the answer of.
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


Ratings = dict[Completion, list[tuple[float, str]]]
"""The ratings of each answer, from -1 to 1, with the feedback that gave each."""


def collect_ratings(readings: Iterable[SignalReading]) -> Ratings:
    """Gather the ratings of each answer."""
    found: Ratings = defaultdict(list)
    for reading in readings:
        if reading.signal.kind == "rating":
            for one in reading.opinions:
                found[one.completion].append((one.position, reading.signal.feedback_id))
    return found


def pair_ratings(ratings: Ratings, gap: float) -> Iterator[tuple[Completion, Completion, float]]:
    """Pair the best rated answer to a prompt with the worst, the second with the last but one.

    Gives the better, the worse, and by what share of the scale their mean ratings differ. Each
    answer is in one pair at most, so that many answers to one prompt don't outweigh the others.
    """
    by_prompt: dict[str, list[tuple[float, Completion]]] = defaultdict(list)
    for completion, mean in mean_ratings(ratings).items():
        by_prompt[completion[0]].append((mean, completion))
    for _, ranked in sorted(by_prompt.items()):
        ranked.sort()
        for (low, worse), (high, better) in zip(ranked, reversed(ranked), strict=True):
            if (high - low) / 2 < gap:
                break
            yield better, worse, (high - low) / 2


def mean_ratings(ratings: Ratings) -> Mapping[Completion, float]:
    """Give each answer's mean rating."""
    return {
        completion: sum(sorted(position for position, _ in given)) / len(given)
        for completion, given in ratings.items()
    }


AnswerPair: TypeAlias = tuple[str, str, str]
"""Two answers to a prompt: example id and their keys, sorted; side 1 is for the first."""

SOURCES: tuple[Source, ...] = ("correction", "choice", "regenerate")
"""Which source a pair is named after, if there are several."""


def comparison_votes(readings: Iterable[SignalReading]) -> tuple[list[Vote[AnswerPair]], set[str]]:
    """Give each actor's newest word on two answers, and the feedback that is superseded by it."""
    newest: dict[tuple[AnswerPair, tuple[str, str]], tuple[SignalReading, AnswerComparison]] = {}
    old: set[str] = set()
    for reading in sorted(readings, key=_newest_last):
        for said in reading.comparisons:
            place = (answers_compared(said), reading.signal.actor)
            if place in newest:
                old.add(newest[place][0].signal.feedback_id)
            newest[place] = (reading, said)
    found = [_comparison_vote(place[0], reading, said) for place, (reading, said) in newest.items()]
    return found, old - {vote.feedback_id for vote in found}


def answers_compared(said: AnswerComparison) -> AnswerPair:
    """Name the two answers compared, whichever was better."""
    first, second = sorted([said.better[1], said.worse[1]])
    return (said.better[0], first, second)


def compared_pairs(
    settled: Sequence[Resolution[AnswerPair]], readings: Sequence[SignalReading], answers: Answers
) -> list[PreferencePair]:
    """Make a pair of each two answers that are decided."""
    by_id = {one.signal.feedback_id: one for one in readings}
    return [_pair(one, by_id, answers) for one in settled if one.side]


def rated_pairs(
    readings: Sequence[SignalReading], gap: float, compared: set[AnswerPair], answers: Answers
) -> list[PreferencePair]:
    """Make pairs of ratings, save where somebody compared the two answers themselves."""
    given = collect_ratings(readings)
    found: list[PreferencePair] = []
    for better, worse, weight in pair_ratings(given, gap):
        first, second = sorted([better[1], worse[1]])
        if (better[0], first, second) in compared:
            continue
        ids = sorted({feedback_id for one in (better, worse) for _, feedback_id in given[one]})
        named = answers.interactions[better]
        found.append(
            PreferencePair(
                better[0], better[1], worse[1], weight, "rating", tuple(named), tuple(ids)
            )
        )
    return found


def _newest_last(reading: SignalReading) -> tuple[object, str]:
    return reading.signal.given_at, reading.signal.feedback_id


def _comparison_vote(
    item: AnswerPair, reading: SignalReading, said: AnswerComparison
) -> Vote[AnswerPair]:
    side = 0 if said.is_tie else 1 if said.better[1] == item[1] else -1
    return Vote(item, reading.signal.feedback_id, reading.signal.actor, side, said.weight)


def _pair(
    one: Resolution[AnswerPair], by_id: dict[str, SignalReading], answers: Answers
) -> PreferencePair:
    example, first, second = one.item
    chosen, rejected = (first, second) if one.side > 0 else (second, first)
    winners = one.ids(one.side)
    said = [
        comparison.source
        for feedback_id in winners
        for comparison in by_id[feedback_id].comparisons
        if answers_compared(comparison) == one.item
    ]
    return PreferencePair(
        example_id=example,
        chosen=chosen,
        rejected=rejected,
        weight=one.weight,
        source=next(one for one in SOURCES if one in said),
        interaction_ids=tuple(_asking_interactions((example, chosen), winners, by_id, answers)),
        feedback_ids=tuple(winners),
    )


def _asking_interactions(
    chosen: tuple[str, str],
    winners: Sequence[str],
    by_id: dict[str, SignalReading],
    answers: Answers,
) -> list[str]:
    """Give the interactions with the chosen answer; of a message's, those that it was about."""
    return answers.interactions.get(chosen) or sorted(
        {
            interaction_id
            for feedback_id in winners
            for interaction_id in by_id[feedback_id].signal.interaction_ids
            if answers.prompt(interaction_id) == chosen[0]
        }
    )


LOW = -0.5
"""A rating in the lowest quarter of its scale is a dislike."""


def opinion_votes(readings: Iterable[SignalReading]) -> list[Vote[Completion]]:
    """Give every opinion that says good or bad."""
    return [
        Vote(
            one.completion,
            reading.signal.feedback_id,
            reading.signal.actor,
            1 if one.position > 0 else -1,
            one.weight,
        )
        for reading in readings
        for one in reading.opinions
        if feedback_signals.is_opinionated(one.position)
    ]


def corrected_answers(readings: Iterable[SignalReading]) -> set[Completion]:
    """Give the answers that somebody replaced by another: nobody's praise stands against that."""
    return {
        said.worse
        for reading in readings
        for said in reading.comparisons
        if said.source == "correction"
    }


def overruled(
    given: Sequence[Vote[Completion]], replaced: set[Completion]
) -> tuple[list[Vote[Completion]], list[Conflict]]:
    """Take the praise of corrected answers out of the votes, and record each such conflict."""
    stand: list[Vote[Completion]] = []
    praise: dict[Completion, list[Vote[Completion]]] = defaultdict(list)
    for vote in given:
        is_praise = vote.side > 0 and vote.item in replaced
        (praise[vote.item] if is_praise else stand).append(vote)
    return stand, [_praised_but_corrected(item, votes) for item, votes in sorted(praise.items())]


def resolve_opinions(given: Sequence[Vote[Completion]]) -> list[Resolution[Completion]]:
    """Settle each answer that people have an opinion of."""
    return consensus.resolve(given, symmetric=False)


def label_answers(
    settled: Iterable[Resolution[Completion]], paired: set[str], answers: Answers
) -> list[Label]:
    """Label each answer that is decided; ratings that are in a pair already give no label."""
    found: list[Label] = []
    for one in settled:
        winners = [
            vote
            for vote in one.votes
            if vote.side == one.side != 0 and vote.feedback_id not in paired
        ]
        if winners:
            share = sum(vote.weight for vote in winners) / one.weight_of(one.side)
            found.append(
                Label(
                    example_id=one.item[0],
                    answer=one.item[1],
                    is_good=one.side > 0,
                    weight=one.weight * share,
                    interaction_ids=tuple(answers.interactions[one.item]),
                    feedback_ids=tuple(sorted({vote.feedback_id for vote in winners})),
                )
            )
    return found


def response_scores(
    settled: Iterable[Resolution[Completion]], readings: Iterable[SignalReading], answers: Answers
) -> list[ResponseScore]:
    """Say what each interaction's answer is worth to people, and whether it is to be left out."""
    disliked = _dislikes(readings)
    found: list[ResponseScore] = []
    for one in settled:
        reasons = {disliked.get((one.item, feedback_id)) for feedback_id in one.ids(-1)} - {None}
        dislike = max(filter(None, reasons), default=None) if one.side < 0 else None
        ids = tuple(one.ids(-1, 1))
        found += [
            ResponseScore(interaction_id, one.side * one.weight, dislike, ids)
            for interaction_id in answers.interactions[one.item]
        ]
    return sorted(found, key=lambda regard: regard.interaction_id)


def _dislikes(readings: Iterable[SignalReading]) -> dict[tuple[Completion, str], str]:
    """Say which opinions are dislikes: a thumb down, a rating in the lowest quarter."""
    found: dict[tuple[Completion, str], str] = {}
    for reading in readings:
        for one in reading.opinions:
            place = (one.completion, reading.signal.feedback_id)
            if reading.signal.kind == "thumb" and one.position < 0:
                found[place] = "thumbs_down"
            elif reading.signal.kind == "rating" and one.position <= LOW:
                found[place] = "rated_low"
    return found


def _praised_but_corrected(item: Completion, praise: Sequence[Vote[Completion]]) -> Conflict:
    return Conflict(
        kind="label",
        example_id=item[0],
        subject=item[1],
        weight_for=sum(vote.weight for vote in praise),
        weight_against=0.0,
        weight_tied=0.0,
        method="correction",
        confidence=1.0,
        resolution="corrected",
        for_ids=tuple(sorted(vote.feedback_id for vote in praise)),
        against_ids=(),
    )
