"""Go through the texts of a conversation, also inside JSON that is text, and put others there.

Names of roles, functions and fields, ids and the words of JSON Schema are no texts: they stay.
"""

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeAlias

from components.curate.redaction import fields, words
from components.schema import Json


class Zone(Enum):
    """Where a text stands."""

    USER = "what a user wrote"
    SAID = "what anybody else wrote"
    DATA = "a value in arguments, results and references"
    NUMBER = "a number there"
    TOOLS = "the description of a tool"


class Leaf(NamedTuple):
    """A text, and the field that holds it, written as ``fields.normal`` writes it."""

    text: str
    field: str
    zone: Zone


Visit: TypeAlias = Callable[[Leaf], str]
"""Gives the text to stand in a leaf's place."""

MESSAGE_STAYS = frozenset({"role", "id", "tool_call_id", "type"})
SCHEMA_STAYS = frozenset(
    {"name", "type", "format", "pattern", "required", "$ref", "$schema", "$id"}
)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
FIRST_COLON = re.compile(r'[\[{\s]*"(?:[^"\\]|\\.)*"\s*:(\s?)')
VALUES = frozenset({"enum", "default", "const", "example", "examples"})


def message(value: dict[str, Json], visit: Visit) -> dict[str, Json]:
    """Rewrite a chat message."""
    zone = Zone.USER if value.get("role") == "user" else Zone.SAID
    return {key: _part_of_message(key, one, zone, visit) for key, one in value.items()}


def tool(value: dict[str, Json], visit: Visit) -> dict[str, Json]:
    """Rewrite a tool's definition."""
    return {key: one if key in SCHEMA_STAYS else schema(one, visit) for key, one in value.items()}


def schema(value: Json, visit: Visit) -> Json:
    """Rewrite the descriptions and the values in JSON Schema and what is around it."""
    match value:
        case str():
            return visit(Leaf(value, "", Zone.TOOLS))
        case list():
            return [schema(one, visit) for one in value]
        case dict():
            return {key: _part_of_schema(key, one, visit) for key, one in value.items()}
        case _:
            return value


def acceptable(value: Json, visit: Visit) -> Json:
    """Rewrite the values in references; the functions' names stay."""
    if not isinstance(value, list):
        return value
    return [
        {key: one if key == "name" else data(one, visit, "") for key, one in call.items()}
        if isinstance(call, dict)
        else call
        for call in value
    ]


def data(value: Json, visit: Visit, field: str, zone: Zone = Zone.DATA) -> Json:
    """Rewrite any JSON; a list's elements are in the list's field."""
    match value:
        case str():
            return _text(value, visit, field, zone)
        case dict():
            return _object(value, visit, field)
        case list():
            return [data(one, visit, field) for one in value]
        case bool() | None:
            return value
        case _:
            written = str(value)
            given = visit(Leaf(written, field, Zone.NUMBER))
            return value if given == written else given


def _part_of_message(key: str, value: Json, zone: Zone, visit: Visit) -> Json:
    match key, value:
        case "content", str():
            return _text(value, visit, "", zone)
        case "content", list():
            return [_part_of_content(part, zone, visit) for part in value]
        case "tool_calls", list():
            return [_call(one, visit) for one in value]
        case "function_call", dict():
            return _function(value, visit)
        case "name", str() if zone is Zone.SAID:
            return value
        case _:
            return value if key in MESSAGE_STAYS else data(value, visit, fields.normal(key))


def _part_of_content(part: Json, zone: Zone, visit: Visit) -> Json:
    if not isinstance(part, dict):
        return data(part, visit, "")
    return {key: one if key == "type" else data(one, visit, "", zone) for key, one in part.items()}


def _call(call: Json, visit: Visit) -> Json:
    if not isinstance(call, dict):
        return data(call, visit, "")
    return {
        key: _function(one, visit)
        if key == "function" and isinstance(one, dict)
        else one
        if key in MESSAGE_STAYS
        else data(one, visit, fields.normal(key))
        for key, one in call.items()
    }


def _function(function: dict[str, Json], visit: Visit) -> dict[str, Json]:
    return {key: one if key == "name" else data(one, visit, "") for key, one in function.items()}


def _part_of_schema(key: str, value: Json, visit: Visit) -> Json:
    if key in VALUES:
        return data(value, visit, "", Zone.TOOLS)
    return value if key in SCHEMA_STAYS and not isinstance(value, dict) else schema(value, visit)


def _object(value: dict[str, Json], visit: Visit, parent: str) -> dict[str, Json]:
    names = {key: fields.normal(key) for key in value}
    about_person = parent in words.PEOPLE or not words.ABOUT_A_PERSON.isdisjoint(names.values())
    return {
        key: data(
            one, visit, fields.PERSON if about_person and names[key] == "name" else names[key]
        )
        for key, one in value.items()
    }


def _text(text: str, visit: Visit, field: str, zone: Zone) -> str:
    """Rewrite a text; one that is a JSON object or list in itself, value by value."""
    if text[:1] not in ("{", "["):
        return visit(Leaf(text, field, zone))
    try:
        read: Json = json.loads(text)
    except ValueError:
        return visit(Leaf(text, field, zone))
    rewritten = data(read, visit, field)
    return text if rewritten == read else write(rewritten, like=text)


def write(value: Json, like: str) -> str:
    """Write JSON as another text was written: its spaces, and whether it escapes.

    Raises:
        ValueError: It holds a number that JSON can't.
    """
    spaced = FIRST_COLON.match(like)
    is_spaced = bool(spaced[1]) if spaced else ", " in like
    return json.dumps(
        value,
        ensure_ascii="\\u" in like or bool(LONE_SURROGATE.search(like)),
        separators=(", ", ": ") if is_spaced else (",", ":"),
        allow_nan=False,
    )


def dumps(value: object) -> str:
    """Write JSON as the warehouse extracts it; half a character is escaped, as only that can be.

    Raises:
        ValueError: It holds a number that JSON can't.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text
