"""Turn comparisons and ratings into pairs."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from components.curate.preferences import ratings
from components.curate.preferences.reading import Comparison, Reading, Source
from components.curate.preferences.records import Pair
from components.curate.preferences.resolve import Settled, Vote
from components.curate.preferences.signal import Answers

Two: TypeAlias = tuple[str, str, str]
"""Two answers to a prompt: example id and their keys, sorted; side 1 is for the first."""

SOURCES: tuple[Source, ...] = ("correction", "choice", "regenerate")
"""Which source a pair is named after, if there are several."""


def votes(readings: Iterable[Reading]) -> tuple[list[Vote[Two]], set[str]]:
    """Give each actor's newest word on two answers, and the feedback that is superseded by it."""
    newest: dict[tuple[Two, tuple[str, str]], tuple[Reading, Comparison]] = {}
    old: set[str] = set()
    for reading in sorted(readings, key=_newest_last):
        for said in reading.comparisons:
            place = (two(said), reading.signal.actor)
            if place in newest:
                old.add(newest[place][0].signal.feedback_id)
            newest[place] = (reading, said)
    found = [_vote(place[0], reading, said) for place, (reading, said) in newest.items()]
    return found, old - {vote.feedback_id for vote in found}


def two(said: Comparison) -> Two:
    """Name the two answers compared, whichever was better."""
    first, second = sorted([said.better[1], said.worse[1]])
    return (said.better[0], first, second)


def pairs(
    settled: Sequence[Settled[Two]], readings: Sequence[Reading], answers: Answers
) -> list[Pair]:
    """Make a pair of each two answers that are decided."""
    by_id = {one.signal.feedback_id: one for one in readings}
    return [_pair(one, by_id, answers) for one in settled if one.side]


def rated(
    readings: Sequence[Reading], gap: float, compared: set[Two], answers: Answers
) -> list[Pair]:
    """Make pairs of ratings, save where somebody compared the two answers themselves."""
    given = ratings.collect(readings)
    found: list[Pair] = []
    for better, worse, weight in ratings.pairs(given, gap):
        first, second = sorted([better[1], worse[1]])
        if (better[0], first, second) in compared:
            continue
        ids = sorted({feedback_id for one in (better, worse) for _, feedback_id in given[one]})
        named = answers.interactions[better]
        found.append(
            Pair(better[0], better[1], worse[1], weight, "rating", tuple(named), tuple(ids))
        )
    return found


def _newest_last(reading: Reading) -> tuple[object, str]:
    return reading.signal.given_at, reading.signal.feedback_id


def _vote(item: Two, reading: Reading, said: Comparison) -> Vote[Two]:
    side = 0 if said.is_tie else 1 if said.better[1] == item[1] else -1
    return Vote(item, reading.signal.feedback_id, reading.signal.actor, side, said.weight)


def _pair(one: Settled[Two], by_id: dict[str, Reading], answers: Answers) -> Pair:
    example, first, second = one.item
    chosen, rejected = (first, second) if one.side > 0 else (second, first)
    winners = one.ids(one.side)
    said = [
        comparison.source
        for feedback_id in winners
        for comparison in by_id[feedback_id].comparisons
        if two(comparison) == one.item
    ]
    return Pair(
        example_id=example,
        chosen=chosen,
        rejected=rejected,
        weight=one.weight,
        source=next(one for one in SOURCES if one in said),
        interaction_ids=tuple(_asked((example, chosen), winners, by_id, answers)),
        feedback_ids=tuple(winners),
    )


def _asked(
    chosen: tuple[str, str], winners: Sequence[str], by_id: dict[str, Reading], answers: Answers
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
