"""The subject of an erasure: its id, its texts and the search terms for them."""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypeAlias

from components.schema import ANONYMOUS, Json

NOBODY = (*sorted(ANONYMOUS), "0" * 32)
"""Ids that name nobody; the last is OpenTelemetry's trace where none was begun."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The id of a user or a conversation, which a workload and a client may narrow."""

    id: str
    workload_id: str | None = None
    client_id: str | None = None
    mentions: bool = False  # includes other people's rows whose text holds the id

    def __post_init__(self) -> None:
        """Refuse a blank id, such as of an unset variable of a shell, and others of many people."""
        if not self.id.strip():
            raise ValueError("erasing: the id is blank; expected the id of a user or conversation")
        if self.id.strip().lower() in NOBODY:
            raise ValueError(
                f"erasing: {self.id} is what clients write where they know no id, so rows and "
                "texts of many people have it; expected the id of a user, or of each conversation "
                "of the person in turn"
            )

    @property
    def is_narrowed(self) -> bool:
        """Whether the same id may remain elsewhere."""
        return bool(self.within)

    @property
    def within(self) -> dict[str, str]:
        """The required column values of its rows."""
        narrowed = {"workload_id": self.workload_id, "client_id": self.client_id}
        return {name: value for name, value in narrowed.items() if value is not None}

    @property
    def scope(self) -> str:
        """The narrowing as JSON text, without the id."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "id"})

    @property
    def spellings(self) -> tuple[str, ...]:
        """The id, and its forms as escaped in JSON."""
        return _spellings(self.id)

    @property
    def pattern(self) -> str:
        """A pattern for the id as a separate word, valid in RE2 and Python."""
        spellings = "|".join(re.escape(spelling) for spelling in self.spellings)
        return rf"(?:^|[^\w-])(?:{spellings})(?:$|[^\w-])"


@functools.cache  # a search takes them for each text of the home
def _spellings(subject_id: str) -> tuple[str, ...]:
    escaped = (json.dumps(subject_id, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    return tuple(sorted({subject_id, *escaped}))


def keyed_digest(key: str, value: str | bytes) -> str:
    """Return SHA-256 of the warehouse's key and a value, as hexadecimal; equal to DuckDB's."""
    content = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(key.encode() + content).hexdigest()


Kind: TypeAlias = Literal[
    "id", "mention", "erased row", "erased line", "erased text", "freed bytes"
]
"""``id``: a record names the subject as its own. ``mention``: the id is part of another text.
``erased row``: the id of an erased row. ``erased line`` and ``erased text``: its contents.
``freed bytes``: any of these in a block of the warehouse that belongs to no row, or perhaps in old
versions of pruned outputs, which a bucket keeps."""

SHORTEST = 24  # characters of the shortest text that its digest identifies; shorter are common
LONGEST_ID = 512  # characters of the longest value that may be the subject's id
ROW_ID = 32  # hexadecimal digits of a row's id

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
"""Keys and columns whose value identifies a record's user or conversation."""

PACKED = "body"  # the key under which a receiver keeps a binary request, as base64

_WORD = re.compile(rb"[\w-]", re.ASCII)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SPACE = re.compile(r"\s+")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_ROW_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_HEXADECIMAL = bytes(byte if byte in b"0123456789abcdef" else ord(" ") for byte in range(256))
"""Maps all bytes but hexadecimal digits to blanks."""


@dataclass(frozen=True, slots=True)
class StoredText:
    """A text with its key or column; ``None`` in lists and lines."""

    key: str | None
    value: str


def split_texts(key: str | None, value: object) -> Iterator[StoredText]:
    """Yield the texts of a value, including those in lists, objects and JSON within a text."""
    match value:
        case str():
            yield from _of_text(key, value)
        case bytes():
            yield from _of_text(key, value.decode(errors="replace"))
        case dict():
            for name, item in value.items():
                yield StoredText(None, str(name))
                yield from split_texts(str(name), item)
        case list() | tuple():
            for item in value:
                yield from split_texts(key, item)
        case _:
            return


def normalize(text: str) -> str:
    """Collapse white space, which may differ between copies of a text."""
    return _SPACE.sub(" ", text).strip()


def content_texts(record: str) -> Iterator[str]:
    """Yield the normalized texts of a JSON record that are long enough to be recognised."""
    for text in _of_record(record):
        if len(normalized := normalize(text.value)) >= SHORTEST:
            yield normalized


def _of_record(record: str) -> list[StoredText]:
    try:
        return list(split_texts(None, json.loads(record)))
    except (ValueError, RecursionError):  # nested too deeply to be parsed, or has too many digits
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
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


@dataclass(frozen=True, slots=True)
class SearchTerms:
    """Digests under ``key`` to search for, and the id itself where it is known.

    Without ``subject`` only values equal to the id can be found, by ``subject_digest``.
    """

    key: str
    subject_digest: str
    subject: Subject | None = None
    rows: AbstractSet[str] = field(default_factory=frozenset[str])
    lines: AbstractSet[str] = field(default_factory=frozenset[str])
    texts: AbstractSet[str] = field(default_factory=frozenset[str])

    def without_texts(self, held: AbstractSet[str]) -> "SearchTerms":
        """Return the terms without texts that are also in other people's rows."""
        return replace(self, texts=frozenset(self.texts) - held)


def find_terms(terms: SearchTerms, name: str | None, value: object) -> Iterator[Kind]:
    """Yield the kinds of terms in the value of the column or key ``name``."""
    is_text = isinstance(value, str | bytes)
    if terms.lines and is_text and keyed_digest(terms.key, value) in terms.lines:
        yield "erased line"
    for text in split_texts(name, value):
        yield from _in_text(terms, text)


def find_in_bytes(content: bytes, terms: SearchTerms, *, with_id: bool) -> bool:
    """Return whether bytes of any format hold the subject's id or an erased row's."""
    subject = terms.subject if with_id else None
    if subject and any(_has_word(content, word.encode()) for word in subject.spellings):
        return True
    if not terms.rows:
        return False
    words = {word for word in content.translate(_HEXADECIMAL).split() if len(word) == ROW_ID}
    return any(keyed_digest(terms.key, word) in terms.rows for word in words)


def _has_word(content: bytes, word: bytes) -> bool:
    """Return whether a word stands in bytes, with nothing of a longer one beside it."""
    at = content.find(word)
    while at >= 0:
        end = at + len(word)
        if not _WORD.search(content[max(at - 1, 0) : at] + b" " + content[end : end + 1]):
            return True
        at = content.find(word, at + 1)
    return False


def held_ids(terms: SearchTerms, value: object) -> set[str]:
    """Return the digests of the erased texts in a value."""
    digests = {_text_digest(terms, text.value) for text in split_texts(None, value)}
    return {digest for digest in digests if digest is not None}


def _in_text(terms: SearchTerms, text: StoredText) -> Iterator[Kind]:
    value = text.value
    if len(value) <= LONGEST_ID and _is_subject(terms, value):
        yield "id" if text.key in IDENTITIES else "mention"
    elif terms.subject is not None and _is_mentioned(terms.subject, value):
        yield "mention"
    ids = set(_ROW_ID.findall(value)) if terms.rows else ()
    if any(keyed_digest(terms.key, row_id) in terms.rows for row_id in ids):
        yield "erased row"
    if _text_digest(terms, value) is not None:
        yield "erased text"


def _is_subject(terms: SearchTerms, value: str) -> bool:
    if terms.subject is not None:  # its digest takes as long as the rest of the search
        return value == terms.subject.id
    return keyed_digest(terms.key, value) == terms.subject_digest


def _text_digest(terms: SearchTerms, value: str) -> str | None:
    if not terms.texts or len(value) < SHORTEST:
        return None
    if len(text := normalize(value)) < SHORTEST:
        return None
    digest = keyed_digest(terms.key, text)
    return digest if digest in terms.texts else None


def _is_mentioned(subject: Subject, value: str) -> bool:
    # Searching for the plain id first is many times faster than the pattern.
    is_near = any(spelling in value for spelling in subject.spellings)
    return is_near and re.search(subject.pattern, value, re.ASCII) is not None
