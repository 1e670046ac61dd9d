"""Rows that rules hold and rules that drop too many, for a person to review and release."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from components.curate.preferences import outcomes
from components.store import warehouse
from components.store.warehouse import Connection, Value


@dataclass(frozen=True, slots=True)
class HeldInteraction:
    """One held interaction; ``mark`` is the rule's finding, messages and answer are raw JSON."""

    interaction_id: str
    workload_id: str
    client_id: str
    logged_at: datetime
    rule: str
    mark: str
    messages: str
    answer: str | None


def waiting_rows(con: Connection, workload_id: str | None = None) -> list[HeldInteraction]:
    """List held, unreleased interactions, oldest first; of all workloads if ``None``."""
    values = {"workload_id": workload_id, "beginning": ""}
    return warehouse.records(con, "marts/held_back", HeldInteraction, **values)


def find_held(con: Connection, beginning: str) -> HeldInteraction:
    """Return the only held interaction whose id has this beginning; else raise ``LookupError``."""
    values = {"workload_id": None, "beginning": beginning}
    matches = warehouse.records(con, "marts/held_back", HeldInteraction, **values)
    if len(matches) != 1:
        raise LookupError(
            f"{len(matches)} held interactions have an id that begins with {beginning!r}; "
            "expected exactly one"
        )
    return matches[0]


def release_held(
    con: Connection, held: HeldInteraction, *, by: str, note: str, now: datetime
) -> None:
    """Release an interaction from the rule that holds it, from the next curation on.

    ``note`` is the reason why it is harmless.
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
"""Verdicts on tools that must stay unseen in training."""

CLIENTS = frozenset({"over_client_holdout", "over_client_train", "displaces_other_client"})
"""Verdicts on rows that crowd out other clients; asking about them would block all clients."""

UNLIMITED = (
    frozenset({"duplicate", "blamed", "over_cluster_cap"})
    | UNSEEN
    | CLIENTS
    | outcomes.DISLIKES
    | outcomes.BALANCE
)

MIN_LOSS = 10  # looking through fewer rows takes less time than a question about them
GROWTH = 0.1  # a released loss is asked about again when its share has grown by more than this
EXAMPLES_SHOWN = 3  # examples shown of a loss


@dataclass(frozen=True, slots=True)
class Loss:
    """What one rule left out: ``interactions``, one of each different request, of ``requests``."""

    workload_id: str
    rule: str
    interactions: int
    requests: int

    @property
    def share(self) -> float:
        """The share of the distinct requests."""
        return self.interactions / self.requests

    def __str__(self) -> str:
        left_out = f"{self.interactions:,} of {self.requests:,} different requests"
        return f"{self.rule} left out {left_out} ({self.share:.0%})"


@dataclass(frozen=True, slots=True)
class LostExample:
    """One request that a rule left out; ``asked`` is its last message's text."""

    interaction_id: str
    mark: str | None
    asked: str | None


def find_losses(losses: Iterable[Loss], most: float) -> list[Loss]:
    """Return those over the share ``most`` that need a person's answer, the largest first."""
    large = [
        loss
        for loss in losses
        if loss.rule not in UNLIMITED
        and loss.interactions >= MIN_LOSS
        and loss.interactions > most * loss.requests
    ]
    return sorted(large, key=lambda loss: (-loss.interactions, loss.rule))


def record_losses(con: Connection, workload_id: str, most: float) -> None:
    """Replace the recorded losses of a workload by those of its newest curation."""
    losses = find_losses(
        warehouse.records(con, "marts/lost_requests", Loss, workload_id=workload_id), most
    )
    records: list[Mapping[str, Value]] = [
        {"rule": loss.rule, "interactions": loss.interactions, "requests": loss.requests}
        for loss in losses
    ]
    warehouse.replace(con, "curated.losses", records, workload_id)


def open_losses(con: Connection, workload_id: str | None = None) -> list[Loss]:
    """List unreleased losses, largest first; of all workloads if ``None``."""
    values = {"workload_id": workload_id, "growth": GROWTH}
    return warehouse.records(con, "marts/losses", Loss, **values)


def lost_examples(con: Connection, loss: Loss) -> list[LostExample]:
    """Return a few requests that a rule left out: the smallest ids, an arbitrary sample."""
    values = {"workload_id": loss.workload_id, "rule": loss.rule, "shown": EXAMPLES_SHOWN}
    return warehouse.records(con, "marts/lost_examples", LostExample, **values)


def release_losses(
    con: Connection, losses: Iterable[Loss], *, by: str, note: str, now: datetime
) -> None:
    """Release losses, from the next curation on, until they grow by ``GROWTH``.

    ``note`` is the reason why they are right.
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
