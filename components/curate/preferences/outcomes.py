"""What became of every signal, and the evidence behind it for ``flywheel feedback``."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from components.curate.preferences.pairs_and_labels import Weighed
from components.curate.split import Side
from components.store import warehouse
from components.store.warehouse import Connection

DUPLICATES = frozenset({"duplicate", "near_duplicate", "conflicting_answer"})
DISLIKES = frozenset({"thumbs_down", "rated_low"})
BALANCE = frozenset({"over_label_cap", "over_client_cap", "over_budget"})
HARMLESS = frozenset({None}) | DUPLICATES | DISLIKES | BALANCE
"""Verdicts that say nothing against the request, so that answers to it may be compared."""


@dataclass(frozen=True, slots=True)
class PlacedInteraction:
    """One row of ``staging.placements``."""

    interaction_id: str
    side: str | None
    group_id: str | None
    cluster_id: str | None
    objection: str | None


@dataclass(frozen=True, slots=True)
class SignalOutcome:
    """What became of one signal; ``detail`` says more, such as the verdict on its interaction."""

    feedback_id: str
    fate: str
    detail: str | None = None


def usable_interaction(
    interaction_ids: Iterable[str],
    placements: Mapping[str, PlacedInteraction],
    side: Side = "train",
) -> tuple[str | None, tuple[str, str | None]]:
    """Find the first interaction whose request may be used on a side, else say why none may."""
    refusal: tuple[str, str | None] = ("interaction_dropped", None)
    for interaction_id in sorted(interaction_ids):
        placed = placements[interaction_id]
        if placed.objection not in HARMLESS:
            refusal = ("interaction_dropped", placed.objection)
        elif placed.side != side:
            refusal = ("not_on_train_side", placed.side)
        else:
            return interaction_id, refusal
    return None, refusal


def signal_outcomes(
    weighed: Weighed,
    pairs: Collection[str],
    labels: Collection[str],
    in_examples: Collection[str],
    held_out: Collection[str],
    refused: Mapping[str, tuple[str, str | None]],
) -> list[SignalOutcome]:
    """Give each signal that was read its one fate, the strongest use first.

    Args:
        weighed: What the algebra made of the signals.
        pairs: Feedback that a pair rests on.
        labels: Feedback that a label rests on.
        in_examples: Feedback that an example names.
        held_out: Feedback that a pair of the holdout rests on.
        refused: Feedback whose pairs and labels could not be used, with the reason.
    """
    found: list[SignalOutcome] = []
    for reading in weighed.readings:
        one = reading.signal.feedback_id
        if one in weighed.targets and one in in_examples:
            found.append(SignalOutcome(one, "used_as_target"))
        elif one in pairs:
            found.append(SignalOutcome(one, "used_as_pair"))
        elif one in labels:
            found.append(SignalOutcome(one, "used_as_label"))
        elif one in held_out:
            found.append(SignalOutcome(one, "used_to_measure"))
        elif one in refused:
            found.append(SignalOutcome(one, *refused[one]))
        elif one in weighed.targets:
            found.append(SignalOutcome(one, "interaction_dropped"))
        else:
            found.append(SignalOutcome(one, weighed.reasons[one]))
    return found


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many signals have one fate."""

    fate: str
    signals: int


@dataclass(frozen=True, slots=True)
class BurstEvidence:
    """One burst: who, when, how many against how many expected, and how many are held back."""

    kind: str
    actors: list[str]
    first_at: datetime
    last_at: datetime
    found: int
    expected: float
    chance: float
    aim: str
    held_back: int


@dataclass(frozen=True, slots=True)
class Capped:
    """One actor of whom something is held back; shares are of all signals' weight."""

    client_id: str
    actor_id: str
    signals: int
    kept: int
    share_before: float
    share_after: float
    cap: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How many times people disagreed in one way, and what came of it."""

    kind: str
    method: str
    outcome: str
    found: int


@dataclass(frozen=True, slots=True)
class FeedbackEvidence:
    """All there is to say about a workload's feedback, as of its last curation."""

    fates: list[OutcomeCount]
    bursts: list[BurstEvidence]
    capped: list[Capped]
    disagreements: list[Disagreement]


def read_evidence(con: Connection, workload_id: str) -> FeedbackEvidence:
    """Read the evidence of a curated workload; empty where nobody said anything."""
    fates = con.execute(
        "select fate, signals from marts.fates where workload_id = $workload_id"
        " order by is_used desc, signals desc, fate asc",
        {"workload_id": workload_id},
    ).fetchall()
    named = {"workload_id": workload_id}
    return FeedbackEvidence(
        [OutcomeCount(*row) for row in fates],
        list(warehouse.read(con, "marts/bursts", BurstEvidence, **named)),
        list(warehouse.read(con, "marts/capped_actors", Capped, **named)),
        list(warehouse.read(con, "marts/disagreements", Disagreement, **named)),
    )
