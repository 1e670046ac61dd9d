"""Turn the signals of a workload into pairs, labels and regards; no database here.

What each kind of feedback says is in ``meaning`` and ``reading``; here it is put together.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from components.curate.preferences import comparing, defence, judging, reading, resolve
from components.curate.preferences.reading import Reading
from components.curate.preferences.records import Conflict, Pair, Weighed
from components.curate.preferences.resolve import Item, Settled, Vote
from components.curate.preferences.settings import Preferences
from components.curate.preferences.signal import Answers, Judged, Signal


def weigh(signals: Iterable[Signal], judged: Iterable[Judged], config: Preferences) -> Weighed:
    """Weigh every signal: defend, settle, and give what follows; the order makes no difference.

    Args:
        signals: Of one workload, one for each actor, target and kind.
        judged: The interactions that they name.
        config: How far feedback moves anything.
    """
    answers = Answers(list(judged))
    ordered = sorted(signals, key=lambda signal: signal.feedback_id)
    readings = [reading.read(signal, answers, config) for signal in ordered]
    telling = [one for one in readings if one.fate is None]
    defended = defence.defend(telling, config)
    kept = [one for one in telling if one.signal.feedback_id not in defended.held_back]

    compared, superseded = comparing.votes(kept)
    two = resolve.settle(compared, symmetric=True)
    pairs = comparing.pairs(two, kept, answers)
    pairs += comparing.rated(kept, config.rating_gap, {one.item for one in two}, answers)

    opinions, praised = judging.overruled(judging.votes(kept), judging.corrected(kept))
    settled = judging.settle(opinions)
    reasons = {
        **{one.signal.feedback_id: "says_nothing" for one in kept},
        **{one.signal.feedback_id: one.fate for one in readings if one.fate},
        **_losers(two),
        **_losers(settled),
        **{feedback_id: "overruled" for one in praised for feedback_id in one.for_ids},
        **dict.fromkeys(superseded, "superseded"),
        **defended.held_back,
    }
    targets, differing = _targets(kept, answers)
    return Weighed(
        answers=answers,
        readings=tuple(readings),
        defence=defended,
        pairs=tuple(pairs),
        labels=tuple(judging.labels(settled, _rated(pairs), answers)),
        regards=tuple(judging.regards(settled, kept, answers)),
        conflicts=(*_conflicts("pair", two), *_conflicts("label", settled), *praised, *differing),
        targets=targets,
        reasons=reasons,
    )


def _rated(pairs: Iterable[Pair]) -> set[str]:
    return {one for pair in pairs if pair.source == "rating" for one in pair.feedback_ids}


def _losers(settled: Iterable[Settled[Item]]) -> dict[str, str]:
    """Say of the votes that did not win why: ties, undecided items, and those of the other side."""
    found: dict[str, str] = {}
    for one in settled:
        if one.side == 0:
            found |= dict.fromkeys(one.ids(-1, 1), "undecided")
        else:
            found |= dict.fromkeys(one.ids(-one.side), "overruled")
        found |= dict.fromkeys(one.ids(0), "tie")
    return found


def _conflicts(kind: str, settled: Iterable[Settled[Item]]) -> list[Conflict]:
    return [_conflict(kind, one) for one in settled if one.was_contested]


def _conflict(kind: str, one: Settled[Item]) -> Conflict:
    example, *subject = _words(one.votes)
    words = {"pair": ("first", "undecided", "second"), "label": ("good", "undecided", "bad")}
    return Conflict(
        kind=kind,
        example_id=example,
        subject=" ".join(subject),
        weight_for=one.weight_of(1),
        weight_against=one.weight_of(-1),
        weight_tied=one.weight_of(0),
        method=one.method,
        confidence=one.confidence,
        resolution=words[kind][1 - one.side],
        for_ids=tuple(one.ids(1)),
        against_ids=tuple(one.ids(-1)),
    )


def _words(votes: Sequence[Vote[Item]]) -> tuple[str, ...]:
    item = votes[0].item
    assert isinstance(item, tuple)
    return tuple(str(part) for part in item)


def _targets(
    kept: Iterable[Reading], answers: Answers
) -> tuple[dict[str, tuple[str, ...]], list[Conflict]]:
    """Find the newest correction of each interaction, and record where others said otherwise."""
    given: dict[str, list[Reading]] = defaultdict(list)
    for one in kept:
        for interaction_id in one.replaces:
            given[interaction_id].append(one)
    targets: dict[str, list[str]] = defaultdict(list)
    conflicts: list[Conflict] = []
    for interaction_id, corrections in sorted(given.items()):
        newest = min(
            corrections, key=lambda one: (-one.signal.given_at.timestamp(), one.signal.feedback_id)
        )
        targets[newest.signal.feedback_id].append(interaction_id)
        others = [one for one in corrections if one.edited != newest.edited]
        if others:
            conflicts.append(_corrections(answers.prompt(interaction_id), newest, others))
    return {one: tuple(ids) for one, ids in targets.items()}, conflicts


def _corrections(example_id: str, newest: Reading, others: Sequence[Reading]) -> Conflict:
    return Conflict(
        kind="correction",
        example_id=example_id,
        subject=newest.edited or "",
        weight_for=newest.weight,
        weight_against=sum(one.weight for one in others),
        weight_tied=0.0,
        method="newest",
        confidence=1.0,
        resolution="newest",
        for_ids=(newest.signal.feedback_id,),
        against_ids=tuple(sorted(one.signal.feedback_id for one in others)),
    )
