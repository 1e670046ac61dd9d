"""Weigh a workload's signals into pairs, labels, scores, conflicts; read and write the tables."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from components.curate.preferences import (
    caps,
    consensus,
    feedback_signals,
    outcomes,
    pairs_and_labels,
    preference_rows,
)
from components.curate.preferences.consensus import Item, Resolution
from components.curate.preferences.feedback_signals import (
    Answers,
    JudgedInteraction,
    Signal,
    SignalReading,
)
from components.curate.preferences.outcomes import PlacedInteraction, SignalOutcome
from components.curate.preferences.pairs_and_labels import Conflict, Weighed
from components.curate.preferences.preference_rows import FindObjection, LoggedRequest, Redact
from components.curate.settings import Preferences
from components.store import warehouse
from components.store.warehouse import Connection, Value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def weigh_signals(
    signals: Iterable[Signal], judged: Iterable[JudgedInteraction], config: Preferences
) -> Weighed:
    """Return the weighed signals: held back, resolved, and turned into results.

    ``signals`` are in any order, one per actor, target and kind; ``judged`` are the interactions
    that they name.
    """
    answers = Answers(list(judged))
    ordered = sorted(signals, key=lambda signal: signal.feedback_id)
    unscaled = feedback_signals.unscaled_outcomes(ordered)
    readings = [feedback_signals.read_signal(signal, answers, unscaled) for signal in ordered]
    meaningful = [reading for reading in readings if reading.fate is None]
    defended = caps.defend(meaningful, config)
    kept = [
        reading for reading in meaningful if reading.signal.feedback_id not in defended.held_back
    ]

    compared, superseded = pairs_and_labels.comparison_votes(kept)
    comparisons = consensus.resolve(compared, symmetric=True)
    pairs = pairs_and_labels.compared_pairs(comparisons, kept, answers)
    pairs += pairs_and_labels.rated_pairs(
        kept, {comparison.item for comparison in comparisons}, answers
    )

    opinions, corrected = pairs_and_labels.opinion_votes(kept, answers)
    settled = consensus.resolve(opinions, symmetric=False)
    reasons = {
        **{reading.signal.feedback_id: "says_nothing" for reading in kept},
        **{reading.signal.feedback_id: reading.fate for reading in readings if reading.fate},
        **_losers(comparisons),
        **_losers(settled),
        **{
            feedback_id: "overruled"
            for conflict in corrected
            for feedback_id in conflict.for_ids + conflict.against_ids
        },
        **dict.fromkeys(superseded, "superseded"),
        **defended.held_back,
    }
    targets, differing = _targets(kept, answers)
    rated = {
        feedback_id
        for pair in pairs
        if pair.source == "rating"
        for feedback_id in pair.feedback_ids
    }
    return Weighed(
        answers=answers,
        readings=tuple(readings),
        defence=defended,
        pairs=tuple(pairs),
        labels=tuple(pairs_and_labels.label_answers(settled, rated, answers)),
        regards=tuple(pairs_and_labels.response_scores(settled, kept, answers)),
        conflicts=(
            *(_conflict("pair", pair) for pair in comparisons if pair.was_contested),
            *(_conflict("label", answer) for answer in settled if answer.was_contested),
            *corrected,
            *differing,
        ),
        targets=targets,
        reasons=reasons,
    )


def _losers(settled: Iterable[Resolution[Item]]) -> dict[str, str]:
    """Return why votes did not win: tie, undecided item, or overruled."""
    reasons: dict[str, str] = {}
    for resolution in settled:
        if resolution.side == 0:
            reasons |= dict.fromkeys(resolution.ids(-1, 1), "undecided")
        else:
            reasons |= dict.fromkeys(resolution.ids(-resolution.side), "overruled")
        reasons |= dict.fromkeys(resolution.ids(0), "tie")
    return reasons


def _conflict(kind: str, resolution: Resolution[tuple[str, ...]]) -> Conflict:
    example, *subject = resolution.item
    words = {"pair": ("first", "undecided", "second"), "label": ("good", "undecided", "bad")}
    return Conflict(
        kind=kind,
        example_id=example,
        subject=" ".join(subject),
        weight_for=resolution.weight_of(1),
        weight_against=resolution.weight_of(-1),
        weight_tied=resolution.weight_of(0),
        method=resolution.method,
        confidence=resolution.confidence,
        resolution=words[kind][1 - resolution.side],
        for_ids=tuple(resolution.ids(1)),
        against_ids=tuple(resolution.ids(-1)),
    )


def _targets(
    kept: Iterable[SignalReading], answers: Answers
) -> tuple[dict[str, tuple[str, ...]], list[Conflict]]:
    """Return the interactions of each newest correction, and the conflicts with other ones."""
    by_interaction: dict[str, list[SignalReading]] = defaultdict(list)
    for reading in kept:  # by id: of corrections of one time the first is learned
        for interaction_id in reading.replaces:
            by_interaction[interaction_id].append(reading)
    targets: dict[str, list[str]] = defaultdict(list)
    conflicts: list[Conflict] = []
    for interaction_id, corrections in sorted(by_interaction.items()):
        newest = max(corrections, key=lambda correction: correction.signal.age_key)
        targets[newest.signal.feedback_id].append(interaction_id)
        others = [correction for correction in corrections if correction.edited != newest.edited]
        if others:
            conflicts.append(
                Conflict(
                    kind="correction",
                    example_id=answers.prompts[interaction_id],
                    subject=newest.edited or "",
                    weight_for=newest.weight,
                    weight_against=sum(other.weight for other in others),
                    method="newest",
                    resolution="newest",
                    for_ids=(newest.signal.feedback_id,),
                    against_ids=tuple(sorted(other.signal.feedback_id for other in others)),
                )
            )
    return {feedback_id: tuple(ids) for feedback_id, ids in targets.items()}, conflicts


Records = Sequence[Mapping[str, Value]]


def weigh_workload(con: Connection, workload_id: str, config: Preferences) -> Weighed:
    """Weigh the staged feedback of a workload and store the results that curation reads.

    Rebuilds ``staging.regards`` and ``staging.unused``, the inputs of ``staging.answers``, and the
    workload's evidence: ``curated.conflicts``, ``curated.shares``, ``curated.bursts``.
    """
    for model in ("staging/signals", "staging/judged"):
        warehouse.build(con, model)
    signals = list(warehouse.read_built(con, "staging/signals", Signal))
    weighed = weigh_signals(
        signals, warehouse.read_built(con, "staging/judged", JudgedInteraction), config
    )
    unused = {reading.signal.feedback_id for reading in weighed.readings if reading.fate}
    unused |= weighed.defence.held_back.keys()
    bursts: Records = [
        {**_record(burst), "actors": [actor_id for _, actor_id in burst.actors]}
        for burst in weighed.defence.bursts
    ]
    warehouse.replace(con, "staging.regards", _records(weighed.regards), None)
    warehouse.replace(
        con, "staging.unused", [{"feedback_id": name} for name in sorted(unused)], None
    )
    warehouse.replace(con, "curated.conflicts", _records(weighed.conflicts), workload_id)
    warehouse.replace(con, "curated.shares", _records(weighed.defence.shares), workload_id)
    warehouse.replace(con, "curated.bursts", bursts, workload_id)
    return weighed


def write_results(
    con: Connection,
    workload_id: str,
    weighed: Weighed,
    redact: Redact,
    find_objection: FindObjection,
) -> None:
    """Write a workload's pairs, labels and fates, after its verdicts and examples."""
    rows = warehouse.read(con, "staging/placements", PlacedInteraction, workload_id=workload_id)
    placements = {row.interaction_id: row for row in rows}
    written = preference_rows.write_rows(
        weighed, placements, _requests(con, placements), redact, find_objection
    )
    warehouse.replace(con, "curated.preferences", _records(written.pairs), workload_id)
    warehouse.replace(con, "curated.labels", _records(written.labels), workload_id)
    by_side: dict[str, set[str]] = {"train": set(), "holdout": set()}
    for pair in written.pairs:
        by_side[pair.side].update(pair.feedback_ids)
    in_examples = warehouse.texts(
        con,
        "select distinct unnest(feedback_ids) from curated.examples"
        " where workload_id = $workload_id",
        workload_id=workload_id,
    )
    fates = outcomes.signal_outcomes(
        weighed,
        by_side["train"],
        {feedback_id for label in written.labels for feedback_id in label.feedback_ids},
        set(in_examples),
        by_side["holdout"],
        written.refused,
    )
    fates += [SignalOutcome(*row) for row in con.execute(_SUPERSEDED).fetchall()]
    warehouse.replace(con, "curated.fates", _records(fates), workload_id)


_SUPERSEDED = """
    select
        feedback_id,
        if(json_type(value) = 'NULL', 'withdrawn', 'superseded') as fate
    from staging.given
    anti join staging.feedback using (feedback_id)
    order by feedback_id
"""


def _requests(
    con: Connection, placements: Mapping[str, PlacedInteraction]
) -> dict[str, LoggedRequest]:
    """Return the requests of the interactions usable for training or measuring."""
    named = [
        interaction_id
        for interaction_id in placements
        if outcomes.usable_interaction([interaction_id], placements)[0]
        or outcomes.usable_interaction([interaction_id], placements, "holdout")[0]
    ]
    if not named:
        return {}
    with warehouse.present(con, "named", {"interaction_id": named}):
        rows = list(warehouse.read(con, "marts/named_requests", LoggedRequest))
    return {row.interaction_id: row for row in rows}


def _records(rows: Iterable["DataclassInstance"]) -> list[dict[str, Value]]:
    return [_record(row) for row in rows]


def _record(row: "DataclassInstance") -> dict[str, Value]:
    # Not `asdict`, which copies every value.
    return {field.name: getattr(row, field.name) for field in fields(row)}
