"""Load what the receiver took: segment by segment, each deleted once its rows are committed.

The owner of a request's token is the client of all that it brought, whatever the records say.
"""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from components import spool
from components.collect import loading
from components.collect.judging import Origin
from components.collect.lines import Unreadable
from components.collect.loaded import Loaded
from components.collect.record import Defaults, Found, Kind, Refused, Row
from components.collect.sources import feedback, fivekey, otlp, otlp_protobuf
from components.schema import Json
from components.spool import Damaged, Entry
from components.warehouse import Connection

GENAI = "gen_ai."
"""What a request of spans holds somewhere if any of them is of a model's call."""

CLAIMED = "claimed_client_id"
"""Keeps what a record said where the token's owner is another."""

CANONICAL: tuple[tuple[Kind, str], ...] = (
    ("interactions", fivekey.NAME),
    ("feedback", feedback.NAME),
)
"""Kinds whose records are canonical, and what they are the source of."""

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_SPELLED_OTHERWISE = re.compile(r"\\u00(?:5[fF]|6|7)")
"""An escaped ASCII letter: with it a key may be called ``client_id`` and not look like it."""


def load(con: Connection, folder: Path, *, now: datetime) -> list[Loaded]:
    """Load every sealed segment of the spool, and what killed receivers left; delete the loaded.

    A segment that is found again, because a load was killed before it deleted it, changes nothing.
    """
    spool.recover(folder)
    loaded: list[Loaded] = []
    for segment in spool.sealed(folder):
        loaded += _load(con, segment, now)
        spool.remove(segment)
    return loaded


def _load(con: Connection, segment: Path, now: datetime) -> Iterator[Loaded]:
    """Load the kinds that a segment holds, one after another; spans apart for each client."""

    def origin(source: str, defaults: Defaults) -> Origin:
        return Origin(str(segment), segment.stem, source, defaults, now)

    kinds, tracing = _contents(segment)
    for kind, source in CANONICAL:
        if kind in kinds:
            nobody = Defaults("", "")  # the records say all
            yield loading.load_records(con, origin(source, nobody), _found(segment, kind))
    for client_id in tracing:
        # A reader for each client: one's log records must not be joined with another's spans.
        defaults = Defaults(workload_id=client_id, client_id=client_id)
        spans = _spans(segment, defaults)
        yield loading.load_records(con, origin(otlp.NAME, defaults), spans)


def _contents(segment: Path) -> tuple[set[spool.Kind], list[str]]:
    """Tell which kinds a segment holds, and who sent spans; damage counts as interactions."""
    kinds: set[spool.Kind] = set()
    tracing: set[str] = set()
    for entry in spool.read(segment):
        if isinstance(entry, Damaged):
            kinds.add("interactions")
        else:
            kinds.add(entry.kind)
        if isinstance(entry, Entry) and entry.kind == "traces":
            tracing.add(entry.client_id)
    return kinds, sorted(tracing)


def _found(segment: Path, kind: Kind) -> Iterator[Found | Unreadable]:
    """Go through the records of a kind; damaged lines come with the interactions."""
    place = 0
    for entry in spool.read(segment):
        if isinstance(entry, Entry) and entry.kind == kind:
            for record in _records(entry, place):
                place += 1
                yield Found(record, kind, record.value) if isinstance(record, Row) else record
        elif isinstance(entry, Damaged) and kind == "interactions":
            place += 1
            yield Unreadable(place, entry.content, entry.reason)


def _records(entry: Entry, before: int) -> Iterator[Row | Unreadable]:
    """Cut a body into its records, with the token's owner as the client of each."""
    try:
        elements = list(_elements(entry.body))
    except (ValueError, IndexError) as error:
        yield _broken(before + 1, entry, error)
        return
    for place, (text, value) in enumerate(elements, start=before + 1):
        if isinstance(value, dict):
            yield _owned(Row(place, text, value), entry.client_id)
        else:
            yield Unreadable(place, text.encode(), "the record is no JSON object")


def _elements(body: str) -> Iterator[tuple[str, Json]]:
    """Cut a body into its texts: the one object that it is, or those of its array."""
    if not body.lstrip().startswith("["):
        yield body, json.loads(body)
        return
    at = _after_space(body, body.index("[") + 1)
    while body[at] != "]":
        value, end = _DECODER.raw_decode(body, at)
        yield body[at:end], value
        at = _after_space(body, end)
        if body[at] == ",":
            at = _after_space(body, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _owned(row: Row, owner: str) -> Row:
    """Give the record with the token's owner as its client; its text stays, if it may.

    With two keys of one name, one reader takes the first and another the last. So a record that
    says who its client is keeps its text only if it says so once, and truly.
    """
    if "client_id" not in row.value:
        rest = row.text.lstrip().removeprefix("{").lstrip()
        comma = "" if rest.startswith("}") else ", "
        text = f'{{"client_id": {json.dumps(owner)}{comma}{rest}'
        return Row(row.place, text, {"client_id": owner, **row.value})
    if _claims(row) == [owner]:
        return row
    value = {**row.value, "client_id": owner, CLAIMED: row.value["client_id"]}
    return Row(row.place, json.dumps(value), value)


def _claims(row: Row) -> list[Json]:
    """Give the values of every top-level key of a record that is called ``client_id``."""
    if row.text.count('"client_id"') == 1 and not _SPELLED_OTHERWISE.search(row.text):
        return [row.value["client_id"]]
    pairs: list[tuple[str, Json]] = []

    def keep(found: list[tuple[str, Json]]) -> None:
        pairs[:] = found  # the outermost object is the last to be complete

    json.loads(row.text, object_pairs_hook=keep)
    return [value for key, value in pairs if key == "client_id"]


def _spans(segment: Path, defaults: Defaults) -> Iterator[Found | Refused | Unreadable]:
    broken: list[Unreadable] = []
    for found in otlp.read(_requests(segment, defaults.client_id, broken), defaults):
        if isinstance(found, Found):
            yield replace(found, record={**found.record, "client_id": defaults.client_id})
        else:
            yield found
    yield from broken


def _requests(segment: Path, client_id: str, broken: list[Unreadable]) -> Iterator[Row]:
    """Go through one client's requests of spans; those that can't be read are put in ``broken``.

    Requests without any span of a model's call are passed over: applications send all they do.
    """
    for entry in spool.read(segment):
        if isinstance(entry, Damaged) or (entry.kind, entry.client_id) != ("traces", client_id):
            continue
        try:
            row = _request(entry)
        except ValueError as error:
            broken.append(_broken(entry.number, entry, error))
            continue
        if GENAI in row.text:
            yield row


def _request(entry: Entry) -> Row:
    """Read the JSON form of a request; a protobuf one is the base64 text in a JSON string."""
    value, text = json.loads(entry.body), entry.body
    if isinstance(value, str):
        value = otlp_protobuf.request(base64.b64decode(value))
        text = json.dumps(value, ensure_ascii=False)
    return Row(entry.number, text, value)


def _broken(place: int, entry: Entry, error: Exception) -> Unreadable:
    """Word what can't have passed a receiver."""
    reason = f"what {entry.client_id} sent as {entry.kind} can't be read any more: {error}"
    return Unreadable(place, entry.body.encode(), reason)
