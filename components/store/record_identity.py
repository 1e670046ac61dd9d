"""Decide whether two log records are the same interaction."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from components.schema import Json
from components.store import manifest

Record: TypeAlias = Mapping[str, Json]

Names: TypeAlias = tuple[Json, ...]
"""A record's user, conversation and trace; ``None`` where missing."""

FIVE_KEYS = ("timestamp", "workload_id", "client_id", "request", "response")

USER = (("user_id",), ("user",), ("metadata", "user_id"))
CONVERSATION = (("conversation_id",), ("session_id",), ("metadata", "conversation_id"))
TRACE = (("trace_id",),)
"""Paths at which a record names its user, conversation and trace; the first present one counts."""

_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null')
"""Matches the keys and plain values of a JSON text."""

MAX_DIGITS = 4300
"""Python's default limit for the conversion of text to a whole number."""

EARLIER = "earlier"  # the key under which a record keeps values that a later record has replaced


def canonical(value: Json) -> Json:
    """Return a value whose JSON text is equal for equal values.

    Keys are sorted, and a float without a fraction becomes an integer.
    """
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def content_digest(record: Record) -> str:
    """Digest the values of the five keys, without the time.

    The time may be a number or a text; the warehouse compares times itself.
    """
    return manifest.digest([canonical(record.get(key)) for key in FIVE_KEYS[1:]])


def feedback_digest(text: str) -> str:
    """Digest a feedback's value, scale and comment."""
    record = read(text)
    return manifest.digest([canonical(record.get(key)) for key in ("value", "scale", "comment")])


def record_names(record: Record) -> Names:
    """Return the user, the conversation and the trace that a record names.

    Where the response has an id, the trace is left out: several traces may hold one response.
    """
    response = record.get("response")
    has_id = isinstance(response, dict) and response.get("id") is not None
    trace = None if has_id else _first(record, TRACE)
    named = (_first(record, USER), _first(record, CONVERSATION), trace)
    return tuple(None if name is None else json.dumps(canonical(name)) for name in named)


def names_agree(left: Names, right: Names) -> bool:
    """Return whether two records may be of the same person, conversation and trace."""
    return all(a is None or b is None or a == b for a, b in zip(left, right, strict=True))


def reductions(names: Names) -> Iterator[Names]:
    """Yield the names with every subset of them left out; all of them first."""
    for kept in product((True, False), repeat=len(names)):
        yield tuple(name if is_kept else None for name, is_kept in zip(names, kept, strict=True))


def duplicate_group_id(interaction_id: str, names: Names) -> str:
    """Return the id of an interaction that shares its five keys with others, but not its names."""
    return manifest.digest([interaction_id, *names])[:32]


class MergedRecord:
    """A stored record to which later ones of the same interaction add their metadata.

    The later value counts, the replaced one is kept under ``EARLIER``. A value that the record had
    before adds nothing. Each value is compared once, however many came before: a client may send
    one interaction with ever other metadata.
    """

    def __init__(self, stored: Record) -> None:
        self.record: dict[str, Any] = dict(stored)
        self._earlier = [each for each in _list(stored.get(EARLIER)) if isinstance(each, dict)]
        self.has_news = False  # whether a later record had any
        self._own: set[str] = set()  # keys of dictionaries that no other record shares
        self._known: set[tuple[str, ...]] = set()  # values as JSON, by key, or by key and name
        for key, value in _metadata(self.record):
            self._learn(key, value)
        for version in self._earlier:
            for key, value in version.items():
                self._learn(key, value)
                self._known.add((key, _text(value)))

    def add(self, later: Record) -> bool:
        """Add a later record's metadata; return whether it had any news."""
        replaced: dict[str, Any] = {}
        is_new = False
        for key, value in _metadata(later):
            before = self.record.get(key)
            if isinstance(value, dict) and isinstance(before, dict):
                news: dict[str, Json] = {
                    name: each
                    for name, each in value.items()
                    if each is not None and (key, name, _text(each)) not in self._known
                }
                gone = {name: before[name] for name in news if name in before}
                if news:
                    self.record[key] = before if key in self._own else dict(before)
                    self.record[key].update(news)
                    self._own.add(key)
                    self._learn(key, news)
                replaced |= {key: gone} if gone else {}
            elif value is not None and (key, _text(value)) not in self._known:
                news = {key: value}
                self.record |= news
                self._own.discard(key)
                self._learn(key, value)
                replaced |= {key: before} if before is not None else {}
            else:
                continue
            is_new = is_new or bool(news)
        for key, value in replaced.items():
            self._known.add((key, _text(value)))
        if is_new:
            self.has_news = True
            self._earlier += [replaced] if replaced else []
            self.record.pop(EARLIER, None)
            self.record |= {EARLIER: self._earlier} if self._earlier else {}
        return is_new

    def _learn(self, key: str, value: Json) -> None:
        if isinstance(value, dict):  # as a whole once it is replaced
            self._known.update((key, name, _text(each)) for name, each in value.items())
        else:
            self._known.add((key, _text(value)))


def _metadata(record: Record) -> list[tuple[str, Json]]:
    return [(key, value) for key, value in record.items() if key not in (*FIVE_KEYS, EARLIER)]


def _text(value: Json) -> str:
    return json.dumps(canonical(value))


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _first(record: Record, paths: Sequence[Sequence[str]]) -> Json:
    for path in paths:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def erased_digest(key: str, record: Record) -> str:
    """Digest the values of the five keys under the key of a warehouse's erasures."""
    return hashlib.sha256((key + content_digest(record)).encode()).hexdigest()


def erased_deep_digest(key: str, text: str) -> str:
    """Digest a record that is nested too deeply to be compared; independent of key order.

    Unlike ``erased_digest``, it includes the metadata.
    """
    values = [
        json.dumps(canonical(json.loads(value, parse_int=_whole_number)))
        for value in _VALUE.findall(text)
    ]
    return hashlib.sha256((key + manifest.digest(["deep", *sorted(values)])).encode()).hexdigest()


def canonical_text(text: str | bytes) -> str | None:
    """Return JSON text that is equal for equal values; ``None`` of what is not JSON, or deep."""
    try:
        return json.dumps(canonical(json.loads(text, parse_int=_whole_number)))
    except (ValueError, RecursionError):
        return None


def read(text: str) -> Record:
    """Parse a stored record."""
    return json.loads(text, parse_int=_whole_number)


def _whole_number(digits: str) -> Json:
    """Return a whole number, or its digits if they are more than Python converts."""
    return int(digits) if len(digits) <= MAX_DIGITS else digits
