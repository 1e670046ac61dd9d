"""What the algebra gives: pairs, labels, regards, conflicts."""

from dataclasses import dataclass

from components.curate.preferences.defence import Defence
from components.curate.preferences.reading import Reading, Source
from components.curate.preferences.signal import Answers


@dataclass(frozen=True, slots=True)
class Pair:
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
class Regard:
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
    readings: tuple[Reading, ...]
    defence: Defence
    pairs: tuple[Pair, ...]
    labels: tuple[Label, ...]
    regards: tuple[Regard, ...]
    conflicts: tuple[Conflict, ...]
    targets: dict[str, tuple[str, ...]]
    reasons: dict[str, str]
