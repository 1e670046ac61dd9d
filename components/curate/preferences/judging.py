"""Turn opinions into labels and regards."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from components.curate.preferences import meaning, resolve
from components.curate.preferences.reading import Reading
from components.curate.preferences.records import Conflict, Label, Regard
from components.curate.preferences.resolve import Settled, Vote
from components.curate.preferences.signal import Answers, Completion

LOW = -0.5
"""A rating in the lowest quarter of its scale is a dislike."""


def votes(readings: Iterable[Reading]) -> list[Vote[Completion]]:
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
        if meaning.is_said(one.position)
    ]


def corrected(readings: Iterable[Reading]) -> set[Completion]:
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


def settle(given: Sequence[Vote[Completion]]) -> list[Settled[Completion]]:
    """Settle each answer that people have an opinion of."""
    return resolve.settle(given, symmetric=False)


def labels(
    settled: Iterable[Settled[Completion]], paired: set[str], answers: Answers
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


def regards(
    settled: Iterable[Settled[Completion]], readings: Iterable[Reading], answers: Answers
) -> list[Regard]:
    """Say what each interaction's answer is worth to people, and whether it is to be left out."""
    disliked = _dislikes(readings)
    found: list[Regard] = []
    for one in settled:
        reasons = {disliked.get((one.item, feedback_id)) for feedback_id in one.ids(-1)} - {None}
        dislike = max(filter(None, reasons), default=None) if one.side < 0 else None
        ids = tuple(one.ids(-1, 1))
        found += [
            Regard(interaction_id, one.side * one.weight, dislike, ids)
            for interaction_id in answers.interactions[one.item]
        ]
    return sorted(found, key=lambda regard: regard.interaction_id)


def _dislikes(readings: Iterable[Reading]) -> dict[tuple[Completion, str], str]:
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
