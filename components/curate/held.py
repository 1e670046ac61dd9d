"""Let a person see what rules hold back, and let in what is harmless."""

from dataclasses import dataclass
from datetime import datetime

from components import warehouse
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Held:
    """One interaction that a rule holds; ``mark`` is what it found, the rest JSON as logged."""

    interaction_id: str
    workload_id: str
    client_id: str
    logged_at: datetime
    rule: str
    mark: str
    messages: str
    answer: str | None


def waiting(con: Connection, workload_id: str | None = None) -> list[Held]:
    """List what is held and not released yet, the oldest first; of all workloads if ``None``."""
    values = {"workload_id": workload_id, "beginning": ""}
    return list(warehouse.read(con, "marts/held_back", Held, **values))


def find(con: Connection, beginning: str) -> Held:
    """Find what is held by the first characters of its id.

    Raises:
        LookupError: None has such an id, or several have.
    """
    values = {"workload_id": None, "beginning": beginning}
    found = list(warehouse.read(con, "marts/held_back", Held, **values))
    if len(found) != 1:
        raise LookupError(
            f"{len(found)} held interactions have an id that begins with {beginning!r}, wants one"
        )
    return found[0]


def release(con: Connection, held: Held, *, by: str, note: str, now: datetime) -> None:
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
