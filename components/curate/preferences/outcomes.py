"""The fate of every signal, and the evidence behind it for ``flywheel feedback``."""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
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
"""Verdicts that don't object to the request itself, so that answers to it may be compared."""


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
    """The fate of one signal; ``detail`` is e.g. the verdict on its interaction."""

    feedback_id: str
    fate: str
    detail: str | None = None


def usable_interaction(
    interaction_ids: Iterable[str],
    placements: Mapping[str, PlacedInteraction],
    side: Side = "train",
) -> tuple[str | None, tuple[str, str | None]]:
    """Return the first interaction whose request may be used on a side, and the last refusal."""
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
    in_examples: AbstractSet[str],
    held_out: Collection[str],
    refused: Mapping[str, tuple[str, str | None]],
) -> list[SignalOutcome]:
    """Return each signal's fate, the strongest use of several.

    The arguments are feedback ids: behind training ``pairs``, behind ``labels``, named by examples,
    behind ``held_out`` pairs, and ``refused`` with the reason.
    """
    fates: dict[str, tuple[str, str | None]] = {
        feedback_id: (reason, None) for feedback_id, reason in weighed.reasons.items()
    }
    fates |= dict.fromkeys(weighed.targets, ("interaction_dropped", None))
    fates.update(refused)
    fates |= dict.fromkeys(held_out, ("used_to_measure", None))
    fates |= dict.fromkeys(labels, ("used_as_label", None))
    fates |= dict.fromkeys(pairs, ("used_as_pair", None))
    fates |= dict.fromkeys(weighed.targets.keys() & in_examples, ("used_as_target", None))
    ids = (reading.signal.feedback_id for reading in weighed.readings)
    return [SignalOutcome(feedback_id, *fates[feedback_id]) for feedback_id in ids]


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """Number of signals with one fate."""

    fate: str
    signals: int


@dataclass(frozen=True, slots=True)
class BurstEvidence:
    """One burst: actors, time, found and expected count, and number of signals held back."""

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
    """One actor with signals held back; shares are of all signals' weight."""

    client_id: str
    actor_id: str
    signals: int
    kept: int
    share_before: float
    share_after: float
    cap: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Number of disagreements of one kind, method and outcome."""

    kind: str
    method: str
    outcome: str
    found: int


@dataclass(frozen=True, slots=True)
class FeedbackEvidence:
    """The evidence about a workload's feedback, as of its last curation."""

    fates: list[OutcomeCount]
    bursts: list[BurstEvidence]
    capped: list[Capped]
    disagreements: list[Disagreement]


def read_evidence(con: Connection, workload_id: str) -> FeedbackEvidence:
    """Read the evidence of a curated workload; empty without feedback."""
    named = {"workload_id": workload_id}
    fates = con.execute(
        "select fate, signals from marts.fates where workload_id = $workload_id"
        " order by is_used desc, signals desc, fate asc",
        named,
    ).fetchall()
    return FeedbackEvidence(
        [OutcomeCount(*row) for row in fates],
        warehouse.records(con, "marts/bursts", BurstEvidence, **named),
        warehouse.records(con, "marts/capped_actors", Capped, **named),
        warehouse.records(con, "marts/disagreements", Disagreement, **named),
    )
