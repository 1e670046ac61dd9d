"""Look into quarantine, and read again what lies there; report which fields are new."""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from components import warehouse
from components.collect import batch, containers, detect, judging, lines, storing
from components.collect.judging import Judge, Origin
from components.collect.lines import Line, Unreadable
from components.collect.record import Defaults
from components.collect.storing import Stored
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Group:
    """Lines in quarantine with one reason, from one file: ``found`` of them."""

    found: int
    source: str
    reason: str
    path: str
    first_id: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One line in quarantine, with what it was read with."""

    quarantine_id: str
    path: str
    file_digest: str
    line: int
    reason: str
    content: bytes
    source: str
    workload_id: str
    client_id: str


@dataclass(frozen=True, slots=True)
class NewField:
    """A field that a source showed after its first file, and where it did so first."""

    source: str
    field: str
    first_path: str
    first_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Retried:
    """How many lines were tried again, and what came of them."""

    lines: int
    new: int
    known: int
    quarantined: int


def groups(con: Connection) -> list[Group]:
    """Count what is in quarantine."""
    return list(warehouse.read(con, "marts/quarantined", Group))


def find(con: Connection, beginning: str) -> Quarantined:
    """Find a line in quarantine by the first characters of its id.

    Raises:
        LookupError: None has such an id, or several have.
    """
    found = list(
        warehouse.read(con, "marts/quarantine", Quarantined, beginning=beginning, source_name=None)
    )
    if len(found) != 1:
        raise LookupError(
            f"{len(found)} lines in quarantine have an id that begins with {beginning!r}, wants one"
        )
    return found[0]


def retry(con: Connection, *, source: str | None, now: datetime) -> Retried:
    """Read every line in quarantine again, in one transaction; what is still refused stays."""
    values = {"beginning": "", "source_name": source}
    waiting = list(warehouse.read(con, "marts/quarantine", Quarantined, **values))
    stored = Stored(0, 0, 0)
    with warehouse.transaction(con), judging.judging(con) as judge:
        con.execute(
            "delete from raw.quarantine where $source is null or source = $source",
            {"source": source},
        )
        for origin, members in groupby(waiting, key=lambda one: _origin(one, now)):
            stored += _retry(con, judge, origin, list(members))
    return Retried(len(waiting), stored.new, stored.known, stored.quarantined)


def new_fields(con: Connection) -> list[NewField]:
    """List the fields that were not in the first file of their source, the newest first."""
    return list(warehouse.read(con, "marts/new_fields", NewField))


def _origin(one: Quarantined, now: datetime) -> Origin:
    defaults = Defaults(one.workload_id, one.client_id)
    return Origin(one.path, one.file_digest, one.source, defaults, now)


def _retry(con: Connection, judge: Judge, origin: Origin, members: list[Quarantined]) -> Stored:
    source = detect.named(origin.source)
    unreadable: list[Unreadable] = []
    pieces = (_piece(one) for one in members)
    records = list(source.read(containers.rows(pieces, unreadable), origin.defaults))
    batches = batch.of_found([*records, *unreadable])
    with storing.judged(judge, origin.now, batches) as judged:
        return storing.store(con, origin, judged)


def _piece(one: Quarantined) -> Line | Unreadable:
    """Read the bytes as the line that they should have been; its place is kept."""
    block = lines.block(one.line, one.content)
    found = list(lines.split(block))
    if len(found) == 1 and isinstance(found[0], Line):
        return found[0]
    return Unreadable(one.line, one.content, one.reason)
