"""Load spool segments and OTLP requests; delete a segment once all its rows are committed."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

from components.collect import files, load_file
from components.collect.lines import Unreadable
from components.collect.load_file import Loaded
from components.collect.record_batches import RecordOrigin
from components.collect.source import (
    NO_DEFAULTS,
    Defaults,
    Kind,
    ParsedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import otlp, otlp_encoding
from components.schema import Json
from components.store import manifest, spool
from components.store.spool import Damaged, Entry
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment with its bytes, its kinds, and the clients of its telemetry."""

    path: Path
    size: int
    kinds: set[spool.Kind]
    senders: set[str]


SpoolPiece: TypeAlias = Callable[[Connection], list[Loaded]]
"""Loads a part of the spool into the warehouse."""

TOGETHER_BYTES = 4 * 2**20
"""Of segments that are loaded in one transaction: live traffic seals a small one every 5 s."""

TELEMETRY: tuple[spool.Kind, ...] = ("traces", "logs")
GENAI = "gen_ai."  # every request with a part of a model call contains this text

CLAIMED = "claimed_client_id"
"""The field that preserves the record's own client_id when it differs from the token's owner."""

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_SPELLED_OTHERWISE = re.compile(r"\\u00(?:5[fF]|6|7)")
"""An escaped ASCII letter, which can hide a key named ``client_id``."""


def plan_pieces(folder: Path, *, now: datetime) -> Iterator[SpoolPiece]:
    """Yield functions that load the sealed segments of the spool and those of killed receivers.

    The telemetry of all segments comes last, by client: a trace may be in several segments. A
    segment is deleted once it is loaded, while the warehouse is locked: another collect that runs
    between two pieces finds it whole or not at all. Idempotent: loading a segment again, after a
    kill before its deletion, changes nothing.
    """
    spool.recover(folder)
    telemetry: list[Path] = []
    clients: set[str] = set()
    group, size = list[_Segment](), 0
    for path in spool.sealed(folder):
        try:
            segment = _Segment(path, path.stat().st_size, *_contents(path))
        except FileNotFoundError:  # another collect has loaded it since it was listed
            continue
        if group and size + segment.size > TOGETHER_BYTES:
            yield partial(_load_segments, segments=group, now=now)
            group, size = [], 0
        group.append(segment)
        size += segment.size
        if segment.senders:
            telemetry.append(path)
            clients |= segment.senders
    if group:
        yield partial(_load_segments, segments=group, now=now)
    last = max(clients, default="")
    for client in sorted(clients):
        yield partial(_load_requests, telemetry, client=client, now=now, is_all=client == last)


def _load_segments(con: Connection, *, segments: list[_Segment], now: datetime) -> list[Loaded]:
    present = [segment for segment in segments if segment.path.exists()]
    loaded = [
        each
        for source, kind in files.CANONICAL.items()
        for each in _load_kind(con, source, kind, present, now)
    ]
    for segment in present:
        if not segment.senders:
            spool.remove(segment.path)
    return loaded


def _load_kind(
    con: Connection, source: str, kind: Kind, segments: list[_Segment], now: datetime
) -> list[Loaded]:
    """Load a kind's records of segments together, else one by one."""
    paths = [segment.path for segment in segments if kind in segment.kinds]
    origins = [RecordOrigin(str(path), path.stem, source, NO_DEFAULTS, now) for path in paths]
    if len(origins) > 1:
        together = load_file.load_together(con, origins, _read_all(paths, kind))
        if together is not None:
            return together
    return [
        load_file.load_records(con, origin, _read_records(path, kind))
        for origin, path in zip(origins, paths, strict=True)
    ]


def _load_requests(
    telemetry: list[Path], con: Connection, *, client: str, now: datetime, is_all: bool
) -> list[Loaded]:
    """Load a client's requests in one transaction; lines are numbered across the segments."""
    segments = [segment for segment in telemetry if segment.exists()]
    if not segments:
        return []
    place, digest = segments[0].parent, manifest.digest([segment.stem for segment in segments])
    if len(segments) == 1:
        place, digest = segments[0], segments[0].stem
    defaults = Defaults(workload_id=client, client_id=client)
    origin = RecordOrigin(str(place), digest, otlp.NAME, defaults, now)
    loaded = load_file.load_records(con, origin, _telemetry_records(segments, defaults))
    if is_all:
        for segment in segments:
            spool.remove(segment)
    return [loaded]


def _telemetry_records(
    segments: list[Path], defaults: Defaults
) -> Iterator[SourceRecord | Unreadable]:
    unreadable: list[Unreadable] = []
    for record in otlp.read(_requests(segments, defaults.client_id, unreadable), defaults):
        if isinstance(record, ParsedRecord):
            yield replace(record, record={**record.record, "client_id": defaults.client_id})
        else:
            yield record
    yield from unreadable


def _requests(
    segments: list[Path], client_id: str, unreadable: list[Unreadable]
) -> Iterator[SourceRow]:
    """Yield one client's requests; append those that can't be read to ``unreadable``."""
    entries = (entry for segment in segments for entry in spool.read(segment))
    for place, entry in enumerate(entries, start=1):
        if isinstance(entry, Damaged) or entry.client_id != client_id:
            continue
        if entry.kind not in TELEMETRY:
            continue
        try:
            row = _request(place, entry)
        except ValueError as error:
            unreadable.append(_unreadable_request(place, entry, error))
            continue
        if GENAI in row.text:  # applications send all their spans
            yield row


def _request(place: int, entry: Entry) -> SourceRow:
    value, text = json.loads(entry.body), entry.body
    if isinstance(value, str):  # protobuf is spooled as base64
        value = otlp_encoding.decode_request(base64.b64decode(value))
        text = json.dumps(value, ensure_ascii=False)
    return SourceRow(place, text, value)


def _unreadable_request(place: int, entry: Entry, error: Exception) -> Unreadable:
    """Return the line to quarantine for a body that no receiver can have accepted."""
    reason = f"the {entry.kind} body of {entry.client_id} can't be read any more: {error}"
    return Unreadable(place, entry.body.encode(), reason)


def _contents(segment: Path) -> tuple[set[spool.Kind], set[str]]:
    """Return a segment's kinds and the clients of its telemetry; damage counts as interactions."""
    kinds: set[spool.Kind] = set()
    senders: set[str] = set()
    for entry in spool.read(segment):
        kinds.add(entry.kind if isinstance(entry, Entry) else "interactions")
        if isinstance(entry, Entry) and entry.kind in TELEMETRY:
            senders.add(entry.client_id)
    return kinds, senders


def _read_all(segments: list[Path], kind: Kind) -> Iterator[ParsedRecord | Unreadable]:
    """Yield the records of a kind of all segments, numbered across them."""
    place = 0
    for segment in segments:
        for record in _read_records(segment, kind, place):
            place += 1
            yield record


def _read_records(segment: Path, kind: Kind, place: int = 0) -> Iterator[ParsedRecord | Unreadable]:
    """Yield the records of a kind after that place; damaged lines come with the interactions."""
    for entry in spool.read(segment):
        if isinstance(entry, Entry) and entry.kind == kind:
            for record in _entry_records(entry, kind, place):
                place += 1
                yield record
        elif isinstance(entry, Damaged) and kind == "interactions":
            place += 1
            yield Unreadable(place, entry.content, entry.reason)


def _entry_records(entry: Entry, kind: Kind, before: int) -> Iterator[ParsedRecord | Unreadable]:
    """Yield a body's records, each with the token's owner as its client."""
    try:
        elements = list(_elements(entry.body))
    except (ValueError, IndexError) as error:
        yield _unreadable_request(before + 1, entry, error)
        return
    for place, (text, value) in enumerate(elements, start=before + 1):
        if isinstance(value, dict):
            row = _owned(SourceRow(place, text, value), entry.client_id)
            yield ParsedRecord(row, kind, row.value)
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
    """Return the record with the token's owner as its client, and its own text if possible."""
    if "client_id" not in row.value:
        rest = row.text.lstrip().removeprefix("{").lstrip()
        comma = "" if rest.startswith("}") else ", "
        text = f'{{"client_id": {json.dumps(owner)}{comma}{rest}'
        return SourceRow(row.place, text, {"client_id": owner, **row.value})
    # JSON readers differ in which of two equal keys they take, so the text stays only with one.
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
