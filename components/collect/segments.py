"""Load spool segments and OTLP requests; delete a segment once all its rows are committed."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

from components.collect import load_file
from components.collect.lines import Unreadable
from components.collect.load_file import Loaded
from components.collect.record_batches import RecordOrigin
from components.collect.source import (
    NO_DEFAULTS,
    Defaults,
    Kind,
    ParsedRecord,
    RejectedRecord,
    SourceRow,
)
from components.collect.sources import feedback, fivekey, otlp, otlp_encoding
from components.schema import Json
from components.store import manifest, spool
from components.store.spool import Damaged, Entry
from components.store.warehouse import Connection

KINDS: tuple[spool.Kind, ...] = ("traces", "logs")

GENAI = "gen_ai."  # every request with a part of a model call contains this text


def load_telemetry(
    con: Connection, segments: Sequence[Path], client_id: str, *, now: datetime
) -> Loaded:
    """Load a client's OTLP requests in one transaction; lines are numbered across the segments."""
    only = segments[0] if len(segments) == 1 else None
    origin = RecordOrigin(
        str(only or segments[0].parent),
        only.stem if only else manifest.digest([segment.stem for segment in segments]),
        otlp.NAME,
        Defaults(workload_id=client_id, client_id=client_id),
        now,
    )
    return load_file.load_records(con, origin, _telemetry_records(segments, origin.defaults))


def _unreadable_request(place: int, entry: Entry, error: Exception) -> Unreadable:
    """Return the line to quarantine for a body that no receiver can have accepted."""
    reason = f"the {entry.kind} body of {entry.client_id} can't be read any more: {error}"
    return Unreadable(place, entry.body.encode(), reason)


def _telemetry_records(
    segments: Sequence[Path], defaults: Defaults
) -> Iterator[ParsedRecord | RejectedRecord | Unreadable]:
    unreadable: list[Unreadable] = []
    for record in otlp.read(_requests(segments, defaults.client_id, unreadable), defaults):
        if isinstance(record, ParsedRecord):
            yield replace(record, record={**record.record, "client_id": defaults.client_id})
        else:
            yield record
    yield from unreadable


def _requests(
    segments: Sequence[Path], client_id: str, unreadable: list[Unreadable]
) -> Iterator[SourceRow]:
    """Yield one client's requests; append those that can't be read to ``unreadable``.

    Requests without a part of a model call are skipped: applications send all their spans.
    """
    entries = (entry for segment in segments for entry in spool.read(segment))
    for place, entry in enumerate(entries, start=1):
        if isinstance(entry, Damaged) or entry.client_id != client_id or entry.kind not in KINDS:
            continue
        try:
            row = _request(place, entry)
        except ValueError as error:
            unreadable.append(_unreadable_request(place, entry, error))
            continue
        if GENAI in row.text:
            yield row


def _request(place: int, entry: Entry) -> SourceRow:
    """Return a request in JSON form; protobuf is spooled as base64 in a JSON string."""
    value, text = json.loads(entry.body), entry.body
    if isinstance(value, str):
        value = otlp_encoding.decode_request(base64.b64decode(value))
        text = json.dumps(value, ensure_ascii=False)
    return SourceRow(place, text, value)


SpoolPiece: TypeAlias = Callable[[Connection], list[Loaded]]
"""Loads a part of the spool into the warehouse."""

CLAIMED = "claimed_client_id"
"""The field that preserves the record's own client_id when it differs from the token's owner."""

CANONICAL: tuple[tuple[Kind, str], ...] = (
    ("interactions", fivekey.NAME),
    ("feedback", feedback.NAME),
)
"""Kinds whose records are canonical, and their sources."""

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_SPELLED_OTHERWISE = re.compile(r"\\u00(?:5[fF]|6|7)")
"""An escaped ASCII letter, which can hide a key named ``client_id``."""


def load_spool(con: Connection, folder: Path, *, now: datetime) -> list[Loaded]:
    """Load every sealed segment of the spool, and those of killed receivers, then delete them.

    Idempotent: loading a segment again, after a kill before its deletion, changes nothing.
    """
    return [loaded for piece in plan_pieces(folder, now=now) for loaded in piece(con)]


def plan_pieces(folder: Path, *, now: datetime) -> Iterator[SpoolPiece]:
    """Yield functions that load the spool, segment by segment.

    The telemetry of all segments comes last, by client: a trace may be in several segments. A
    segment is deleted once it is loaded, while the warehouse is locked: another collect that runs
    between two pieces finds it whole or not at all.
    """
    spool.recover(folder)
    telemetry: list[Path] = []
    clients: set[str] = set()
    for segment in spool.sealed(folder):
        try:
            kinds, senders = _contents(segment)
        except FileNotFoundError:  # another collect has loaded it since it was listed
            continue
        yield partial(_load_segments, segment=segment, kinds=kinds, now=now, is_all=not senders)
        if senders:
            telemetry.append(segment)
            clients |= senders
    last = max(clients, default="")
    for client in sorted(clients):
        yield partial(_load_requests, telemetry, client=client, now=now, is_all=client == last)


def _load_segments(
    con: Connection, *, segment: Path, kinds: set[spool.Kind], now: datetime, is_all: bool
) -> list[Loaded]:
    """Load a segment's canonical records, kind by kind."""
    if not segment.exists():
        return []
    loaded = [
        load_file.load_records(
            con,
            RecordOrigin(str(segment), segment.stem, source, NO_DEFAULTS, now),
            _read_records(segment, kind),
        )
        for kind, source in CANONICAL
        if kind in kinds
    ]
    if is_all:
        spool.remove(segment)
    return loaded


def _load_requests(
    telemetry: list[Path], con: Connection, *, client: str, now: datetime, is_all: bool
) -> list[Loaded]:
    segments = [segment for segment in telemetry if segment.exists()]
    if not segments:
        return []
    loaded = load_telemetry(con, segments, client, now=now)
    if is_all:
        for segment in segments:
            spool.remove(segment)
    return [loaded]


def _contents(segment: Path) -> tuple[set[spool.Kind], set[str]]:
    """Return a segment's kinds and the clients of its telemetry; damage counts as interactions."""
    kinds: set[spool.Kind] = set()
    senders: set[str] = set()
    for entry in spool.read(segment):
        kinds.add(entry.kind if isinstance(entry, Entry) else "interactions")
        if isinstance(entry, Entry) and entry.kind in KINDS:
            senders.add(entry.client_id)
    return kinds, senders


def _read_records(segment: Path, kind: Kind) -> Iterator[ParsedRecord | Unreadable]:
    """Yield the records of a kind; damaged lines come with the interactions."""
    place = 0
    for entry in spool.read(segment):
        if isinstance(entry, Entry) and entry.kind == kind:
            for record in _entry_rows(entry, place):
                place += 1
                yield (
                    ParsedRecord(record, kind, record.value)
                    if isinstance(record, SourceRow)
                    else record
                )
        elif isinstance(entry, Damaged) and kind == "interactions":
            place += 1
            yield Unreadable(place, entry.content, entry.reason)


def _entry_rows(entry: Entry, before: int) -> Iterator[SourceRow | Unreadable]:
    """Yield a body's records, each with the token's owner as its client."""
    try:
        elements = list(_elements(entry.body))
    except (ValueError, IndexError) as error:
        yield _unreadable_request(before + 1, entry, error)
        return
    for place, (text, value) in enumerate(elements, start=before + 1):
        if isinstance(value, dict):
            yield _owned(SourceRow(place, text, value), entry.client_id)
        else:
            yield Unreadable(place, text.encode(), "the record is not a JSON object")


def _elements(body: str) -> Iterator[tuple[str, Json]]:
    """Yield the text and value of a body's one object, or of each element of its array."""
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
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _owned(row: SourceRow, owner: str) -> SourceRow:
    """Return the record with the token's owner as its client, and its own text if possible.

    JSON readers differ in which of two equal keys they take. So a record with a ``client_id`` keeps
    its text only if it has the key once and its value is the owner.
    """
    if "client_id" not in row.value:
        rest = row.text.lstrip().removeprefix("{").lstrip()
        comma = "" if rest.startswith("}") else ", "
        text = f'{{"client_id": {json.dumps(owner)}{comma}{rest}'
        return SourceRow(row.place, text, {"client_id": owner, **row.value})
    if _claims(row) == [owner]:
        return row
    value = {**row.value, "client_id": owner, CLAIMED: row.value["client_id"]}
    return SourceRow(row.place, json.dumps(value), value)


def _claims(row: SourceRow) -> list[Json]:
    """Return the values of all top-level ``client_id`` keys of a record."""
    if row.text.count('"client_id"') == 1 and not _SPELLED_OTHERWISE.search(row.text):
        return [row.value["client_id"]]
    pairs: list[tuple[str, Json]] = []

    def keep(members: list[tuple[str, Json]]) -> None:
        pairs[:] = members  # the outermost object is completed last

    json.loads(row.text, object_pairs_hook=keep)
    return [value for key, value in pairs if key == "client_id"]
