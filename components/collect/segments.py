"""Load spool segments and OTLP requests; delete a segment once all its rows are committed."""

import base64
import hashlib
import json
import re
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeAlias

from components.collect import files, importers, load_file, small_files
from components.collect.lines import Unreadable
from components.collect.load_file import Loaded
from components.collect.record_batches import RecordOrigin
from components.collect.small_files import FilePart
from components.collect.source import (
    NO_DEFAULTS,
    CallKey,
    Defaults,
    HeldBack,
    Kind,
    LoadedCalls,
    ParsedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import fields, openai_api, openai_logs, otlp_encoding
from components.schema import Json
from components.store import manifest, spool, warehouse
from components.store.spool import Damaged, Entry
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment with its bytes, its kinds, and the clients of its telemetry."""

    path: Path
    size: int
    sealed_at_ns: int
    kinds: frozenset[spool.Kind]
    senders: frozenset[str]

    def is_recent(self, now: datetime) -> bool:
        return now.timestamp() - self.sealed_at_ns / 1e9 < HOLD_BACK_SECONDS


SpoolPiece: TypeAlias = Callable[[Connection], list[Loaded]]
"""Loads a part of the spool into the warehouse."""

TOGETHER_BYTES = 4 * 2**20
"""Of segments that are loaded in one transaction: live traffic seals a small one every 5 s."""

HOLD_BACK_SECONDS = 60.0
"""For how long a model call waits for its span or its log records: exporters send them apart, and
another receiver may have taken them."""

REMEMBERED = timedelta(days=7)
"""How long after its load a call's parts are known: longer than exporters try again."""

TELEMETRY: tuple[spool.Kind, ...] = ("traces", "logs")
CALLS = "gen_ai.", "openinference.span.kind", "langfuse.observation.type", "mlflow.spanType"
"""Every request with a part of a model call contains one of these texts."""

CLAIMED = "claimed_client_id"
"""The field that preserves the record's own client_id when it differs from the token's owner."""

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_SPELLED_OTHERWISE = re.compile(r"\\u00(?:5[fF]|6|7)")
"""An escaped ASCII letter, which can hide a key named ``client_id``."""


def plan_pieces(folder: Path, *, now: datetime, hold_back: bool = True) -> Iterator[SpoolPiece]:
    """Yield functions that load the sealed segments of the spool and those of killed receivers.

    The telemetry of all segments comes last, by client: a trace may be in several segments. If
    ``hold_back``, the parts of calls that lack one, and that came in the last
    ``HOLD_BACK_SECONDS``, stay in the spool as segments of their own. A segment is deleted once it
    is loaded, while the warehouse is locked: another collect that runs between two pieces finds it
    whole or not at all. Idempotent: loading a segment again, after a kill before its deletion,
    changes no row.
    """
    spool.recover(folder)
    telemetry: list[_Segment] = []
    clients: set[str] = set()
    kept: set[Path] = set()
    group, size = list[_Segment](), 0
    for path in spool.sealed(folder):
        try:
            status = path.stat()
            segment = _Segment(path, status.st_size, status.st_mtime_ns, *_contents(path))
        except FileNotFoundError:  # another collect has loaded it since it was listed
            continue
        if group and size + segment.size > TOGETHER_BYTES:
            yield partial(_load_segments, segments=group, now=now)
            group, size = [], 0
        group.append(segment)
        size += segment.size
        if segment.senders:
            telemetry.append(segment)
            clients |= segment.senders
    if group:
        yield partial(_load_segments, segments=group, now=now)
    last = max(clients, default="")
    for client in sorted(clients):
        load = partial(_load_requests, telemetry, client=client, now=now, hold_back=hold_back)
        yield partial(load, kept=kept, is_all=client == last)


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
    paths = [segment.path for segment in segments if kind in segment.kinds]
    origins = [RecordOrigin(str(path), path.stem, source, NO_DEFAULTS, now) for path in paths]
    named = [*zip(origins, paths, strict=True)]
    if len(named) > 1:
        parts = [FilePart(origin, _read_records(path, kind)) for origin, path in named]
        together = small_files.load_together(con, parts)
        if together is not None:
            return together
    return [
        load_file.load_records(con, origin, _read_records(path, kind)) for origin, path in named
    ]


def _load_requests(
    telemetry: list[_Segment],
    con: Connection,
    *,
    client: str,
    now: datetime,
    hold_back: bool,
    kept: set[Path],
    is_all: bool,
) -> list[Loaded]:
    """Load a client's requests in one transaction; lines are numbered across the segments.

    ``kept`` gets the segments of those that wait; with ``is_all`` the other ones are deleted.
    """
    segments = [segment for segment in telemetry if segment.path.exists()]
    if not segments:
        return []
    paths = [segment.path for segment in segments]
    recent = next((n for n, s in enumerate(segments) if hold_back and s.is_recent(now)), None)
    place = paths[0] if len(paths) == 1 else paths[0].parent
    # What waits now is loaded from the same segments later. And loading a digest again replaces
    # its lines in quarantine, so no other client may have it.
    time = [] if recent is None else [now.isoformat()]
    digest = manifest.digest([client, *(path.stem for path in paths), *time])
    defaults = Defaults(workload_id=client, client_id=client)
    origin = RecordOrigin(str(place), digest, importers.telemetry().NAME, defaults, now)
    requests = _ClientRequests(segments, recent, defaults)
    calls = _loaded_before(con, client, requests.call_keys())
    records = requests.records(kept, calls)
    remember = partial(_remember, client=client, calls=calls, now=now)
    loaded = load_file.load_records(con, origin, records, finish=remember)
    if is_all:
        for path in {*paths} - kept:
            spool.remove(path)
    return [replace(loaded, waiting=requests.held.calls)]


class _ClientRequests:
    """One client's requests in telemetry segments, the oldest first; each request is a row."""

    def __init__(
        self, segments: list[_Segment], first_recent: int | None, defaults: Defaults
    ) -> None:
        self.segments, self.first_recent, self.defaults = segments, first_recent, defaults
        self.held = HeldBack(since=sys.maxsize)
        self._last: list[int] = []  # place in each segment that was read
        self._unreadable: list[Unreadable] = []

    def call_keys(self) -> set[CallKey]:
        """Return trace and span of all parts of calls, whether they can be read or not."""
        keys = {key for row in self._rows() for key in importers.telemetry().call_keys(row.value)}
        self.held.since = sys.maxsize
        self._last.clear()
        self._unreadable.clear()
        return keys

    def records(self, kept: set[Path], calls: LoadedCalls) -> Iterator[SourceRecord | Unreadable]:
        """Yield the client's records; ``kept`` gets segments of the calls that wait."""
        client_id = self.defaults.client_id
        for record in importers.telemetry().read(self._rows(), self.defaults, self.held, calls):
            if isinstance(record, ParsedRecord):
                yield replace(record, record={**record.record, "client_id": client_id})
            else:
                yield record
        yield from self._unreadable
        # Before the commit: after a kill between the two, a part is there twice and read once.
        kept |= self._keep()

    def _keep(self) -> set[Path]:
        """Write the parts that wait into segments as old as those that they came in."""
        lines: dict[int, list[bytes]] = {}
        for row in self.held.rows:
            # A lone surrogate can't be encoded, but escaped.
            body = row.text.encode(errors="backslashreplace")
            line = spool.line(_signal(row), self.defaults.client_id, body)
            lines.setdefault(bisect_left(self._last, row.place), []).append(line)
        origins = {self.segments[number]: part for number, part in lines.items()}
        return {
            spool.add_segment(origin.path.parent, part, origin.sealed_at_ns)
            for origin, part in origins.items()
        }

    def _rows(self) -> Iterator[SourceRow]:
        place = 0
        for number, segment in enumerate(self.segments):
            if number == self.first_recent:
                self.held.since = place + 1
            for entry in spool.read(segment.path):
                place += 1
                row = self._row(place, entry)
                if row is not None:
                    yield row
            self._last.append(place)

    def _row(self, place: int, entry: Entry | Damaged) -> SourceRow | None:
        if isinstance(entry, Damaged) or entry.client_id != self.defaults.client_id:
            return None
        if entry.kind not in TELEMETRY:
            return None
        try:
            row = _request(place, entry)
        except (ValueError, RecursionError) as error:
            self._unreadable.append(_unreadable_request(place, entry, error))
            return None
        is_of_calls = any(text in row.text for text in CALLS)
        return row if is_of_calls else None  # applications send all their spans


def _loaded_before(con: Connection, client: str, keys: Iterable[CallKey]) -> LoadedCalls:
    digests = {_call_digest(key): key for key in keys}
    parts = defaultdict[CallKey, set[bytes]](set)
    if digests:
        with warehouse.present(con, "arrived", {"call_digest": [*digests]}):
            for row in warehouse.select(con, "temp/loaded_parts", client_id=client):
                parts[digests[str(row["call_digest"])]].add(bytes.fromhex(str(row["part_digest"])))
    return LoadedCalls({key: frozenset(known) for key, known in parts.items()})


def _remember(con: Connection, *, client: str, calls: LoadedCalls, now: datetime) -> None:
    # So that a part sent again is not another call.
    con.execute(
        "delete from raw.loaded_parts where loaded_at < $before", {"before": now - REMEMBERED}
    )
    rows: list[warehouse.Row] = [
        {
            "client_id": client,
            "call_digest": _call_digest(key),
            "part_digest": part.hex(),
            "loaded_at": now,
        }
        for key, parts in calls.now.items()
        if key not in calls.earlier
        for part in sorted(parts)
    ]
    warehouse.insert(con, "raw.loaded_parts", rows)


def _call_digest(key: CallKey) -> str:
    return hashlib.md5(json.dumps(key).encode(), usedforsecurity=False).hexdigest()


def _signal(row: SourceRow) -> spool.Kind:
    return "traces" if "resourceSpans" in row.value else "logs"


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


def _contents(segment: Path) -> tuple[frozenset[spool.Kind], frozenset[str]]:
    """Return a segment's kinds and the clients of its telemetry; damage counts as interactions."""
    kinds: set[spool.Kind] = set()
    senders: set[str] = set()
    for entry in spool.read(segment):
        kinds.add(entry.kind if isinstance(entry, Entry) else "interactions")
        if isinstance(entry, Entry) and entry.kind in TELEMETRY:
            senders.add(entry.client_id)
    return frozenset(kinds), frozenset(senders)


def _read_records(segment: Path, kind: Kind) -> Iterator[ParsedRecord | Unreadable]:
    place = 0
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
    except (ValueError, IndexError, RecursionError) as error:  # as of 1,500 levels
        yield _unreadable_request(before + 1, entry, error)
        return
    for place, (text, value) in enumerate(elements, start=before + 1):
        if isinstance(value, dict):
            row = _owned(SourceRow(place, text, value), entry.client_id)
            try:
                yield ParsedRecord(row, kind, _in_chat_form(row.value))
            except fields.WrongShapeError as error:
                yield Unreadable(place, row.text.encode(errors="backslashreplace"), str(error))
        else:
            yield Unreadable(place, text.encode(), "the record is not a JSON object")


def _in_chat_form(record: dict[str, Json]) -> dict[str, Json]:
    """Return a record; one of the gateway's in the form of the Responses API as a chat.

    So another server answered it, which got the request as it was sent.
    """
    match record:
        case {"served": _, "request": {**request}, "response": response} if openai_api.is_request(
            request
        ):
            asked, answered, beside = openai_logs.exchange(request, "request.", response)
        case _:
            return record
    finish, choices = record.get("finish"), answered.get("choices")
    if finish in ("client_gone", "upstream_cut") and isinstance(choices, list):
        ended: list[Json] = [
            {**choice, "finish_reason": finish} for choice in choices if isinstance(choice, dict)
        ]
        answered["choices"] = ended
    chat = fields.without_nulls(beside) | record
    chat["request"], chat["response"] = asked, answered
    return chat


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
    if row.text.count('"client_id"') == 1 and not _SPELLED_OTHERWISE.search(row.text):
        return [row.value["client_id"]]
    pairs: list[tuple[str, Json]] = []

    def keep(members: list[tuple[str, Json]]) -> None:
        pairs[:] = members  # the outermost object is completed last

    json.loads(row.text, object_pairs_hook=keep)
    return [value for key, value in pairs if key == "client_id"]
