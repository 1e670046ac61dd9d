"""Whom to erase: the id, the texts and the search terms that belong to it."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from components.schema import Json


@dataclass(frozen=True, slots=True)
class Subject:
    """The id of a user or a conversation.

    ``workload_id`` and ``client_id`` narrow it; ``mentions`` also takes the rows of others whose
    text holds the id.
    """

    id: str
    workload_id: str | None = None
    client_id: str | None = None
    mentions: bool = False

    @property
    def is_narrowed(self) -> bool:
        """Whether the same id may lawfully stand elsewhere."""
        return bool(self.within)

    @property
    def within(self) -> dict[str, str]:
        """The values that columns of its rows have."""
        narrowed = {"workload_id": self.workload_id, "client_id": self.client_id}
        return {name: value for name, value in narrowed.items() if value is not None}

    @property
    def scope(self) -> str:
        """What it is narrowed to, as JSON text that names nobody."""
        return json.dumps(
            {
                "workload_id": self.workload_id,
                "client_id": self.client_id,
                "mentions": self.mentions,
            }
        )

    @property
    def spellings(self) -> tuple[str, ...]:
        """The id, also as JSON may escape it."""
        escaped = (json.dumps(self.id, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
        return tuple(sorted({self.id, *escaped}))

    @property
    def pattern(self) -> str:
        """The id as a word of its own, as RE2 and Python read it."""
        spellings = "|".join(re.escape(one) for one in self.spellings)
        return rf"(?:^|[^\w-])(?:{spellings})(?:$|[^\w-])"


def keyed_digest(key: str, value: str | bytes) -> str:
    """Hash a value under the warehouse's key (SHA-256 of both, hexadecimal, as DuckDB does it)."""
    content = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(key.encode() + content).hexdigest()


SHORTEST = 24
"""Characters of the shortest text that is told from others by its digest; all say "Thanks!"."""

IDENTITIES = frozenset(
    {
        "user",
        "user_id",
        "userId",
        "actor_id",
        "actors",
        "safety_identifier",
        "conversation_id",
        "session_id",
        "sessionId",
        "trace_id",
        "traceId",
        "target_id",
        "response_id",
        "subject",
    }
)
"""Keys and columns whose value says whose a record is."""

PACKED = "body"
"""The key under which a receiver keeps a binary request, as base64."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SPACE = re.compile(r"\s+")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@dataclass(frozen=True, slots=True)
class StoredText:
    """One text, and the key or column that it is the value of; ``None`` in lists and lines."""

    key: str | None
    value: str


def split_texts(key: str | None, value: object) -> Iterator[StoredText]:
    """Go through the texts of a value: of lists, of objects, and of JSON within a text."""
    match value:
        case str():
            yield from _of_text(key, value)
        case bytes():
            yield from _of_text(key, value.decode(errors="replace"))
        case dict():
            for name, one in value.items():
                yield StoredText(None, str(name))
                yield from split_texts(str(name), one)
        case list() | tuple():
            for one in value:
                yield from split_texts(key, one)
        case _:
            return


def normalize(text: str) -> str:
    """Write a text with single spaces, as it may have been laid out anew."""
    return _SPACE.sub(" ", text).strip()


def content_texts(record: str) -> Iterator[str]:
    """Give the texts of a JSON record that are long enough to be known again, in normal form."""
    for text in _of_record(record):
        if len(one := normalize(text.value)) >= SHORTEST:
            yield one


def _of_record(record: str) -> list[StoredText]:
    try:
        return list(split_texts(None, json.loads(record)))
    except RecursionError:  # nested too deeply to be read as what it is
        strings = [json.loads(string) for string in _STRING.findall(record)]
        return [text for string in strings for text in _of_text(None, string)]


def _of_text(key: str | None, text: str) -> Iterator[StoredText]:
    yield StoredText(key, text)
    if key == PACKED and _BASE64.fullmatch(text):
        yield StoredText(None, base64.b64decode(text).decode(errors="replace"))
    elif text.lstrip()[:1] in ("{", "[") and (nested := _json(text)) is not None:
        yield from split_texts(key, nested)
    elif "\n" in text.strip():
        for line in text.splitlines():
            yield from _of_text(None, line)


def _json(text: str) -> Json:
    try:
        found: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


Kind: TypeAlias = Literal[
    "id", "mention", "erased row", "erased line", "erased text", "freed bytes"
]
"""``id``: a record says that it is the subject's. ``mention``: the id stands within something else.
``erased row``: the id of a row that was erased. ``erased line`` and ``erased text``: its words.
``freed bytes``: any of it, in a block of the warehouse that is in no row."""

LONGEST_ID = 512
"""Characters of the longest value that may be the subject's id."""

ROW_ID = 32
"""Hexadecimal digits of a row's id."""

_HEXADECIMAL = bytes(one if one in b"0123456789abcdef" else ord(" ") for one in range(256))
"""Turns all but hexadecimal digits into blanks."""

_ROW_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class SearchTerms:
    """What is searched for: digests under ``key``, and the id itself where it is known.

    Without ``subject`` only values that are the id as a whole can be found, by ``subject_digest``.
    """

    key: str
    subject_digest: str
    subject: Subject | None = None
    rows: AbstractSet[str] = field(default_factory=frozenset[str])
    lines: AbstractSet[str] = field(default_factory=frozenset[str])
    texts: AbstractSet[str] = field(default_factory=frozenset[str])

    def without_texts(self, held: AbstractSet[str]) -> "SearchTerms":
        """Leave out the texts that other people's rows hold, too."""
        return replace(self, texts=frozenset(self.texts) - held)


def find_terms(needles: SearchTerms, name: str | None, value: object) -> Iterator[Kind]:
    """Say what of the subject stands in the value of the column or key ``name``."""
    if needles.lines and isinstance(value, str | bytes) and _is_line(needles, value):
        yield "erased line"
    for text in split_texts(name, value):
        yield from _in_text(needles, text)


def find_in_bytes(content: bytes, needles: SearchTerms, *, with_id: bool) -> bool:
    """Tell whether bytes, of whatever form, hold the id or that of an erased row."""
    subject = needles.subject if with_id else None
    if subject and any(one.encode() in content for one in subject.spellings):
        return re.search(subject.pattern.encode(), content, re.ASCII) is not None
    if not needles.rows:
        return False
    words = {word for word in content.translate(_HEXADECIMAL).split() if len(word) == ROW_ID}
    return any(keyed_digest(needles.key, word) in needles.rows for word in words)


def held_ids(needles: SearchTerms, value: object) -> set[str]:
    """Give the digests of the erased texts that stand in a value."""
    return {
        found
        for text in split_texts(None, value)
        if (found := _text_digest(needles, text.value)) is not None
    }


def _in_text(needles: SearchTerms, text: StoredText) -> Iterator[Kind]:
    value = text.value
    if len(value) <= LONGEST_ID and keyed_digest(needles.key, value) == needles.subject_digest:
        yield "id" if text.key in IDENTITIES else "mention"
    elif needles.subject is not None and _is_mentioned(needles.subject, value):
        yield "mention"
    if any(
        keyed_digest(needles.key, one) in needles.rows for one in _mentioned_ids(needles, value)
    ):
        yield "erased row"
    if _text_digest(needles, value) is not None:
        yield "erased text"


def _is_line(needles: SearchTerms, value: str | bytes) -> bool:
    return keyed_digest(needles.key, value) in needles.lines


def _mentioned_ids(needles: SearchTerms, value: str) -> Iterable[str]:
    return set(_ROW_ID.findall(value)) if needles.rows else ()


def _text_digest(needles: SearchTerms, value: str) -> str | None:
    if not needles.texts or len(value) < SHORTEST:
        return None
    if len(one := normalize(value)) < SHORTEST:
        return None
    found = keyed_digest(needles.key, one)
    return found if found in needles.texts else None


def _is_mentioned(subject: Subject, value: str) -> bool:
    """Look for the id first: that is many times faster than for the pattern."""
    near = any(one in value for one in subject.spellings)
    return near and re.search(subject.pattern, value, re.ASCII) is not None
