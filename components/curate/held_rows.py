"""Rows that rules hold back, and rules that drop too many: a person looks and may release them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from components.curate.preferences import outcomes
from components.store import warehouse
from components.store.warehouse import Connection, Value


@dataclass(frozen=True, slots=True)
class HeldInteraction:
    """One interaction that a rule holds; ``mark`` is what it found, the rest JSON as logged."""

    interaction_id: str
    workload_id: str
    client_id: str
    logged_at: datetime
    rule: str
    mark: str
    messages: str
    answer: str | None


def waiting_rows(con: Connection, workload_id: str | None = None) -> list[HeldInteraction]:
    """List what is held and not released yet, the oldest first; of all workloads if ``None``."""
    values = {"workload_id": workload_id, "beginning": ""}
    return list(warehouse.read(con, "marts/held_back", HeldInteraction, **values))


def find_held(con: Connection, beginning: str) -> HeldInteraction:
    """Find what is held by the first characters of its id.

    Raises:
        LookupError: None has such an id, or several have.
    """
    values = {"workload_id": None, "beginning": beginning}
    found = list(warehouse.read(con, "marts/held_back", HeldInteraction, **values))
    if len(found) != 1:
        raise LookupError(
            f"{len(found)} held interactions have an id that begins with {beginning!r}, wants one"
        )
    return found[0]


def release_held(
    con: Connection, held: HeldInteraction, *, by: str, note: str, now: datetime
) -> None:
    """Let an interaction in, as far as the rule that holds it is concerned, at the next curation.

    Args:
        con: The warehouse.
        held: What ``find`` or ``waiting`` gave.
        by: Whose word it is.
        note: Why it is harmless.
        now: When it was said (UTC).
    """
    row: dict[str, warehouse.Value] = {
        "interaction_id": held.interaction_id,
        "workload_id": held.workload_id,
        "rule": held.rule,
        "released_by": by,
        "note": note,
        "released_at": now,
    }
    warehouse.insert(con, "curated.releases", [row])


UNSEEN = frozenset({"offers_holdout_tool", "offers_validation_tool"})
"""Verdicts on functions that are to be unseen in training."""

CLIENTS = frozenset({"over_client_holdout", "over_client_train", "displaces_other_client"})
"""Verdicts on what crowds out other clients, which would hold all of them up if it were asked."""

UNLIMITED = (
    frozenset({"duplicate", "blamed", "over_cluster_cap"})
    | UNSEEN
    | CLIENTS
    | outcomes.DISLIKES
    | outcomes.BALANCE
)

FEWEST = 10
"""A person has looked through fewer rows sooner than through a question about them."""

GROWTH = 0.1
"""A person who let a loss pass is asked again when it has grown by more than this share."""

SHOWN = 3
"""Examples of what a rule left out."""


@dataclass(frozen=True, slots=True)
class Loss:
    """How many of a workload's different requests a rule left out: more than may pass unasked."""

    workload_id: str
    rule: str
    interactions: int
    requests: int

    @property
    def share(self) -> float:
        """Of the different requests."""
        return self.interactions / self.requests

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.rule} left out {self.interactions:,} of {self.requests:,} different requests "
            f"({self.share:.0%})"
        )


@dataclass(frozen=True, slots=True)
class LostExample:
    """One request that a rule left out; ``asked`` is its last message."""

    interaction_id: str
    mark: str | None
    asked: str | None


def find_losses(workload_id: str, counts: Mapping[str, int], most: float) -> list[Loss]:
    """Find the rules that left out more than may pass unasked, the largest loss first.

    Args:
        workload_id: The workload.
        counts: Its interactions by verdict.
        most: The largest share that may pass.
    """
    requests = sum(counts.values()) - counts.get("duplicate", 0)
    found = [
        Loss(workload_id, rule, count, requests)
        for rule, count in counts.items()
        if rule not in UNLIMITED | {"kept"} and count >= FEWEST and count > most * requests
    ]
    return sorted(found, key=lambda loss: (-loss.interactions, loss.rule))


def record_losses(con: Connection, workload_id: str, losses: Sequence[Loss]) -> None:
    """Keep what was found at a curation, in the place of what was found before."""
    records: list[Mapping[str, Value]] = [
        {"rule": one.rule, "interactions": one.interactions, "requests": one.requests}
        for one in losses
    ]
    warehouse.replace(con, "curated.losses", records, workload_id)


def open_losses(con: Connection, workload_id: str | None = None) -> list[Loss]:
    """List the losses that nobody has let pass, the largest first; of all workloads if ``None``."""
    values = {"workload_id": workload_id, "growth": GROWTH}
    return list(warehouse.read(con, "marts/losses", Loss, **values))


def lost_examples(con: Connection, loss: Loss) -> list[LostExample]:
    """Show some of what a rule left out: those of the smallest ids, which are as good as drawn."""
    values = {"workload_id": loss.workload_id, "rule": loss.rule, "shown": SHOWN}
    return list(warehouse.read(con, "marts/lost_examples", LostExample, **values))


def release_losses(
    con: Connection, losses: Iterable[Loss], *, by: str, note: str, now: datetime
) -> None:
    """Let losses pass, from the next curation on, until they have grown.

    Args:
        con: The warehouse.
        losses: What ``waiting`` gave.
        by: Whose word it is.
        note: Why they are right.
        now: When it was said (UTC).
    """
    rows: list[Mapping[str, Value]] = [
        {
            "workload_id": loss.workload_id,
            "rule": loss.rule,
            "share": loss.share,
            "released_by": by,
            "note": note,
            "released_at": now,
        }
        for loss in losses
    ]
    warehouse.insert(con, "curated.released_losses", rows)
