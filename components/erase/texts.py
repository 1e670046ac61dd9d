"""Take what is stored apart into the texts that may be somebody's."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from components.schema import Json

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
class Text:
    """One text, and the key or column that it is the value of; ``None`` in lists and lines."""

    key: str | None
    value: str


def texts(key: str | None, value: object) -> Iterator[Text]:
    """Go through the texts of a value: of lists, of objects, and of JSON within a text."""
    match value:
        case str():
            yield from _of_text(key, value)
        case bytes():
            yield from _of_text(key, value.decode(errors="replace"))
        case dict():
            for name, one in value.items():
                yield Text(None, str(name))
                yield from texts(str(name), one)
        case list() | tuple():
            for one in value:
                yield from texts(key, one)
        case _:
            return


def normal(text: str) -> str:
    """Write a text with single spaces, as it may have been laid out anew."""
    return _SPACE.sub(" ", text).strip()


def contents(record: str) -> Iterator[str]:
    """Give the texts of a JSON record that are long enough to be known again, in normal form."""
    for text in _of_record(record):
        if len(one := normal(text.value)) >= SHORTEST:
            yield one


def _of_record(record: str) -> list[Text]:
    try:
        return list(texts(None, json.loads(record)))
    except RecursionError:  # nested too deeply to be read as what it is
        strings = [json.loads(string) for string in _STRING.findall(record)]
        return [text for string in strings for text in _of_text(None, string)]


def _of_text(key: str | None, text: str) -> Iterator[Text]:
    yield Text(key, text)
    if key == PACKED and _BASE64.fullmatch(text):
        yield Text(None, base64.b64decode(text).decode(errors="replace"))
    elif text.lstrip()[:1] in ("{", "[") and (nested := _json(text)) is not None:
        yield from texts(key, nested)
    elif "\n" in text.strip():
        for line in text.splitlines():
            yield from _of_text(None, line)


def _json(text: str) -> Json:
    try:
        found: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None
