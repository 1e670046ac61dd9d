"""Weigh a workload's signals into pairs, labels, scores, conflicts; read and write the tables."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from components.curate.preferences import (
    caps,
    consensus,
    feedback_signals,
    outcomes,
    pairs_and_labels,
    preference_rows,
)
from components.curate.preferences.consensus import Item, Resolution, Vote
from components.curate.preferences.feedback_signals import (
    Answers,
    JudgedInteraction,
    Signal,
    SignalReading,
)
from components.curate.preferences.outcomes import PlacedInteraction
from components.curate.preferences.pairs_and_labels import Conflict, PreferencePair, Weighed
from components.curate.preferences.preference_rows import LoggedRequest, Redact
from components.curate.settings import Preferences
from components.store import warehouse
from components.store.warehouse import Connection, Value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def weigh_signals(
    signals: Iterable[Signal], judged: Iterable[JudgedInteraction], config: Preferences
) -> Weighed:
    """Weigh every signal: defend, settle, and give what follows; the order makes no difference.

    Args:
        signals: Of one workload, one for each actor, target and kind.
        judged: The interactions that they name.
        config: How far feedback moves anything.
    """
    answers = Answers(list(judged))
    ordered = sorted(signals, key=lambda signal: signal.feedback_id)
    readings = [feedback_signals.read_signal(signal, answers, config) for signal in ordered]
    telling = [one for one in readings if one.fate is None]
    defended = caps.defend(telling, config)
    kept = [one for one in telling if one.signal.feedback_id not in defended.held_back]

    compared, superseded = pairs_and_labels.comparison_votes(kept)
    two = consensus.resolve(compared, symmetric=True)
    pairs = pairs_and_labels.compared_pairs(two, kept, answers)
    pairs += pairs_and_labels.rated_pairs(
        kept, config.rating_gap, {one.item for one in two}, answers
    )

    opinions, praised = pairs_and_labels.overruled(
        pairs_and_labels.opinion_votes(kept), pairs_and_labels.corrected_answers(kept)
    )
    settled = pairs_and_labels.resolve_opinions(opinions)
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
        labels=tuple(pairs_and_labels.label_answers(settled, _rated(pairs), answers)),
        regards=tuple(pairs_and_labels.response_scores(settled, kept, answers)),
        conflicts=(*_conflicts("pair", two), *_conflicts("label", settled), *praised, *differing),
        targets=targets,
        reasons=reasons,
    )


def _rated(pairs: Iterable[PreferencePair]) -> set[str]:
    return {one for pair in pairs if pair.source == "rating" for one in pair.feedback_ids}


def _losers(settled: Iterable[Resolution[Item]]) -> dict[str, str]:
    """Say of the votes that did not win why: ties, undecided items, and those of the other side."""
    found: dict[str, str] = {}
    for one in settled:
        if one.side == 0:
            found |= dict.fromkeys(one.ids(-1, 1), "undecided")
        else:
            found |= dict.fromkeys(one.ids(-one.side), "overruled")
        found |= dict.fromkeys(one.ids(0), "tie")
    return found


def _conflicts(kind: str, settled: Iterable[Resolution[Item]]) -> list[Conflict]:
    return [_conflict(kind, one) for one in settled if one.was_contested]


def _conflict(kind: str, one: Resolution[Item]) -> Conflict:
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
    kept: Iterable[SignalReading], answers: Answers
) -> tuple[dict[str, tuple[str, ...]], list[Conflict]]:
    """Find the newest correction of each interaction, and record where others said otherwise."""
    given: dict[str, list[SignalReading]] = defaultdict(list)
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


def _corrections(
    example_id: str, newest: SignalReading, others: Sequence[SignalReading]
) -> Conflict:
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


Records = Sequence[Mapping[str, Value]]


def weigh_workload(con: Connection, workload_id: str, config: Preferences) -> Weighed:
    """Weigh the staged feedback of a workload, and say what it makes of each logged answer.

    Rebuilds ``staging.regards`` and ``staging.unused``, which ``staging.answers`` reads, and the
    workload's evidence: ``curated.conflicts``, ``curated.shares``, ``curated.bursts``.
    """
    for model in ("staging/signals", "staging/judged"):
        warehouse.build(con, model)
    signals = list(warehouse.read(con, "staging/signals", Signal))
    weighed = weigh_signals(
        signals, warehouse.read(con, "staging/judged", JudgedInteraction), config
    )
    silent = {one.signal.feedback_id for one in weighed.readings if one.fate}
    unused = sorted(silent | weighed.defence.held_back.keys())
    warehouse.replace(con, "staging.regards", [_record(one) for one in weighed.regards], None)
    warehouse.replace(con, "staging.unused", [{"feedback_id": one} for one in unused], None)
    warehouse.replace(
        con, "curated.conflicts", [_record(one) for one in weighed.conflicts], workload_id
    )
    warehouse.replace(con, "curated.shares", _shares(weighed), workload_id)
    warehouse.replace(con, "curated.bursts", _bursts(weighed), workload_id)
    return weighed


def write_results(
    con: Connection, workload_id: str, weighed: Weighed, config: Preferences, redact: Redact
) -> None:
    """Write the pairs, labels and fates of a workload whose verdicts and examples are settled."""
    placements = _placements(con, workload_id)
    written = preference_rows.write_rows(
        weighed, placements, _requests(con, placements), config, redact
    )
    warehouse.replace(
        con, "curated.preferences", [_record(one) for one in written.pairs], workload_id
    )
    warehouse.replace(con, "curated.labels", [_record(one) for one in written.labels], workload_id)
    by_side: dict[str, set[str]] = {"train": set(), "holdout": set()}
    for one in written.pairs:
        by_side[one.side].update(one.feedback_ids)
    ends = outcomes.signal_outcomes(
        weighed,
        by_side["train"],
        {feedback_id for one in written.labels for feedback_id in one.feedback_ids},
        _in_examples(con, workload_id),
        by_side["holdout"],
        written.refused,
    )
    records = [_record(one) for one in ends]
    records += [{"feedback_id": one, "fate": "superseded", "detail": None} for one in _old(con)]
    warehouse.replace(con, "curated.fates", records, workload_id)


def _placements(con: Connection, workload_id: str) -> dict[str, PlacedInteraction]:
    found = warehouse.read(con, "staging/placements", PlacedInteraction, workload_id=workload_id)
    return {one.interaction_id: one for one in found}


def _requests(
    con: Connection, placements: Mapping[str, PlacedInteraction]
) -> dict[str, LoggedRequest]:
    """Give what the interactions asked that may be learned from or measured on."""
    named = [
        one
        for one in placements
        if outcomes.usable_interaction([one], placements)[0]
        or outcomes.usable_interaction([one], placements, "holdout")[0]
    ]
    with warehouse.present(con, "named", {"interaction_id": named or [""]}):
        rows = warehouse.rows(
            con,
            "select interaction_id, messages, tools, client_id from staging.interactions"
            " semi join named using (interaction_id)",
        )
    return {
        str(row["interaction_id"]): LoggedRequest(
            str(row["messages"]), str(row["tools"]), str(row["client_id"])
        )
        for row in rows
    }


def _in_examples(con: Connection, workload_id: str) -> set[str]:
    found = con.execute(
        "select distinct unnest(feedback_ids) from curated.examples"
        " where workload_id = $workload_id",
        {"workload_id": workload_id},
    ).fetchall()
    return {feedback_id for (feedback_id,) in found}


def _old(con: Connection) -> list[str]:
    """Give the feedback of which its actor has said something newer."""
    found = con.execute(
        "select feedback_id from staging.given anti join staging.feedback using (feedback_id)"
        " order by feedback_id"
    ).fetchall()
    return [feedback_id for (feedback_id,) in found]


def _shares(weighed: Weighed) -> Records:
    return [
        {
            "client_id": one.actor[0],
            "actor_id": one.actor[1],
            "signals": one.signals,
            "kept": one.kept,
            "weight_before": one.weight_before,
            "weight_after": one.weight_after,
            "share_before": one.share_before,
            "share_after": one.share_after,
            "cap": one.cap,
        }
        for one in weighed.defence.shares
    ]


def _bursts(weighed: Weighed) -> Records:
    return [
        {**_record(one), "actors": [actor_id for _, actor_id in one.actors]}
        for one in weighed.defence.bursts
    ]


def _record(one: "DataclassInstance") -> dict[str, Value]:
    return cast("dict[str, Value]", asdict(one))
