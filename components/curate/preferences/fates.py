"""Say what became of every signal: what it is used for, or the one reason why it is not."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from components.curate.preferences.records import Weighed
from components.curate.split import Side

DUPLICATES = frozenset({"duplicate", "near_duplicate", "conflicting_answer"})
DISLIKES = frozenset({"thumbs_down", "rated_low"})
BALANCE = frozenset({"over_label_cap", "over_client_cap", "over_budget"})
HARMLESS = frozenset({None}) | DUPLICATES | DISLIKES | BALANCE
"""Verdicts that say nothing against the request, so that answers to it may be compared."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One row of ``staging.placements``."""

    interaction_id: str
    side: str | None
    group_id: str | None
    cluster_id: str | None
    objection: str | None


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one signal; ``detail`` says more, such as the verdict on its interaction."""

    feedback_id: str
    fate: str
    detail: str | None = None


def usable(
    interaction_ids: Iterable[str], placements: Mapping[str, Placement], side: Side = "train"
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


def all_of(
    weighed: Weighed,
    pairs: Collection[str],
    labels: Collection[str],
    in_examples: Collection[str],
    held_out: Collection[str],
    refused: Mapping[str, tuple[str, str | None]],
) -> list[Fate]:
    """Give each signal that was read its one fate, the strongest use first.

    Args:
        weighed: What the algebra made of the signals.
        pairs: Feedback that a pair rests on.
        labels: Feedback that a label rests on.
        in_examples: Feedback that an example names.
        held_out: Feedback that a pair of the holdout rests on.
        refused: Feedback whose pairs and labels could not be used, with the reason.
    """
    found: list[Fate] = []
    for reading in weighed.readings:
        one = reading.signal.feedback_id
        if one in weighed.targets and one in in_examples:
            found.append(Fate(one, "used_as_target"))
        elif one in pairs:
            found.append(Fate(one, "used_as_pair"))
        elif one in labels:
            found.append(Fate(one, "used_as_label"))
        elif one in held_out:
            found.append(Fate(one, "used_to_measure"))
        elif one in refused:
            found.append(Fate(one, *refused[one]))
        elif one in weighed.targets:
            found.append(Fate(one, "interaction_dropped"))
        else:
            found.append(Fate(one, weighed.reasons[one]))
    return found
