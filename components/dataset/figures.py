"""Read what a snapshot's card says: how its examples are spread, and what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass

from components import warehouse
from components.dataset.preferences import Digests
from components.dataset.rows import Lengths
from components.warehouse import Connection

SIDES = ("train", "validation", "holdout")

MOST_DAYS = 60
"""Longer ranges are shown by month."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many examples of each side something is true of."""

    name: str
    train: int
    validation: int
    holdout: int

    @property
    def all(self) -> int:
        """On whichever side."""
        return self.train + self.validation + self.holdout


@dataclass(frozen=True, slots=True)
class Clusters:
    """The near-duplicates among the requests: in how many clusters, and the largest's size."""

    clusters: int
    requests: int
    largest: int


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was replaced of one kind: in how many interactions, how many values, how often."""

    kind: str
    interactions: int
    distinct_values: int
    replacements: int


@dataclass(frozen=True, slots=True)
class Found:
    """In how many interactions a rule found something, and what was done about it."""

    rule: str
    disposition: str
    interactions: int


@dataclass(frozen=True, slots=True)
class Fate:
    """How many feedback signals came to what."""

    fate: str
    signals: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What the card shows.

    ``verdicts`` counts the workload's interactions; the others count examples, the most frequent
    first, ``times`` by day or month in order. ``lengths`` is by side, as
    is ``dependent``, the number of clusters of rows that are not independent of each other.
    """

    sides: Mapping[str, int]
    dependent: Mapping[str, int]
    largest_cluster: int
    verdicts: Mapping[str, int]
    clients: list[Count]
    sources: list[Count]
    labels: list[Count]
    feedback: list[Count]
    times: list[Count]
    days: tuple[str, str]
    found: list[Found]
    redactions: list[Redaction]
    fates: list[Fate]
    preferences: Digests
    clusters: Clusters
    lengths: Mapping[str, Lengths]


@dataclass(frozen=True, slots=True)
class _Fact:
    section: str
    fact: str
    train: int
    validation: int
    holdout: int


def read(
    con: Connection,
    workload_id: str,
    *,
    verdicts: Mapping[str, int],
    sides: Mapping[str, int],
    dependent: Mapping[str, int],
    largest_cluster: int,
    preferences: Digests,
    lengths: Mapping[str, Lengths],
) -> Figures:
    """Read the figures of a workload that was curated and has examples."""
    found: dict[str, list[Count]] = {}
    for fact in warehouse.read(con, "marts/card", _Fact, workload_id=workload_id):
        count = Count(fact.fact, fact.train, fact.validation, fact.holdout)
        found.setdefault(fact.section, []).append(count)
    (clusters,) = warehouse.read(con, "marts/card_clusters", Clusters, workload_id=workload_id)
    days = sorted(found["day"], key=lambda count: count.name)
    return Figures(
        sides=sides,
        dependent=dependent,
        largest_cluster=largest_cluster,
        verdicts=verdicts,
        clients=found["client"],
        sources=found.get("source", []),
        labels=found["label"],
        feedback=found.get("feedback", []),
        times=_by_month(days) if len(days) > MOST_DAYS else days,
        days=(days[0].name, days[-1].name),
        found=list(warehouse.read(con, "marts/card_rules", Found, workload_id=workload_id)),
        redactions=list(
            warehouse.read(con, "marts/card_redactions", Redaction, workload_id=workload_id)
        ),
        fates=list(warehouse.read(con, "marts/card_fates", Fate, workload_id=workload_id)),
        preferences=preferences,
        clusters=clusters,
        lengths=lengths,
    )


def _by_month(days: list[Count]) -> list[Count]:
    months: dict[str, Count] = {}
    for day in days:
        name = day.name[:7]
        known = months.get(name, Count(name, 0, 0, 0))
        months[name] = Count(
            name,
            known.train + day.train,
            known.validation + day.validation,
            known.holdout + day.holdout,
        )
    return list(months.values())
