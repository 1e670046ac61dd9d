"""Visit and replace the texts of messages, tools and schemas, also in JSON within text."""

import json
import re
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from components.curate.redaction import contact, name_patterns, secret_values
from components.curate.redaction.name_patterns import PEOPLE
from components.curate.redaction.patterns import Kind, digits_of, word_list
from components.schema import Json, parse_json

PERSON = "personname"  # the field for a ``name`` in an object about a person

_KINDS = (Kind.NAME, Kind.PHONE, Kind.ADDRESS, Kind.SSN, Kind.CARD, Kind.NATIONAL_ID, Kind.PASSWORD)
FIELDS = {field: kind for kind in _KINDS for field in word_list(f"fields_{kind}")}

USERS = frozenset({"userid", "username", "user", "customerid"})
"""Fields of ids, which may contain a name."""

VALUE_FIELDS = PEOPLE | USERS | FIELDS.keys()
"""Fields whose value may be redacted because of the field's name."""

_CAPITALISED = r"[^\W\d_a-zß-öø-ÿ][\w'\u2019.-]*"
_PERSON = re.compile(
    rf"{_CAPITALISED}(?: (?:(?:{'|'.join(name_patterns.NOBILIARY)}) ){{0,2}}{_CAPITALISED}){{1,3}}"
)
_BEGIN_NAMES = {"april", "august", "june", "may"} | name_patterns.TITLE_WORDS
_NO_NAMES = name_patterns.NOT_NAMES - name_patterns.MAY_BE_WORDS - _BEGIN_NAMES


CACHED_KEYS = 8192  # fields' names of a workload, of which each conversation has the same


@lru_cache(maxsize=CACHED_KEYS)
def normal(field: str) -> str:
    """Normalise a field's name: ``first_name``, ``firstName`` and ``First Name`` are equal."""
    return re.sub(r"[^a-z0-9]", "", field.lower()) if not field.islower() or "_" in field else field


def kind_of(field: str, text: str) -> Kind | None:
    """Return the kind of a field's value; ``None`` if name or form don't match a kind."""
    if field in PEOPLE:
        return Kind.NAME if _PERSON.fullmatch(text) and not _is_prose(text) else None
    kind = FIELDS.get(field)
    return kind if kind is not None and is_plausible(kind, text) else None


def _is_prose(text: str) -> bool:
    """Return whether the text of a name's field is none: ``not provided``, ``Call us anytime``."""
    words = text.replace(".", "").split()
    return not _NO_NAMES.isdisjoint([*words, *(word.lower() for word in words[:1])])


def is_plausible(kind: Kind, text: str) -> bool:
    """Return whether a value has the form of its kind: fields also hold placeholders and words."""
    if not text.strip() or "<" in text or len(text) > 200:
        return False
    match kind:
        case Kind.NAME:
            has_digits = any(character.isdigit() for character in text)
            return len(text) < 60 and not has_digits and not _is_prose(text)
        case Kind.PHONE:
            return 7 <= len(digits_of(text)) <= 15 and not re.search(r"[a-zA-Z]{4}", text)
        case Kind.CARD:
            return 12 <= len(digits_of(text)) <= 19 and not re.search(r"[a-zA-Z]", text)
        case Kind.SSN:
            return len(digits_of(text)) == 9
        case Kind.ADDRESS:
            return any(character.isdigit() for character in text)
        case Kind.NATIONAL_ID:
            return len(text) >= 5 and any(character.isdigit() for character in text)
        case _:
            return secret_values.is_value(text)


def key(kind: Kind, text: str) -> str:
    """Return the canonical form of a field's value."""
    match kind:
        case Kind.PHONE:
            digits = digits_of(text)
            return digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
        case Kind.CARD | Kind.SSN:
            return digits_of(text)
        case Kind.PASSWORD:
            return text
        case Kind.ADDRESS:
            return contact.address_key(text)
        case Kind.NATIONAL_ID:
            return "".join(character for character in text if character.isalnum()).upper()
        case _:
            return " ".join(text.lower().split())


class Zone(Enum):
    """The place of a text in a conversation."""

    USER = "a user's message"
    OTHER = "any other message"
    DATA = "a value in arguments, results and references"
    NUMBER = "a number in arguments, results and references"
    TOOLS = "the description of a tool"


class Leaf(NamedTuple):
    """A text, and its field, normalised by ``normal``."""

    text: str
    field: str
    zone: Zone


Visit: TypeAlias = Callable[[Leaf], str]  # returns the replacement of a leaf's text

MESSAGE_STAYS = frozenset({"role", "id", "tool_call_id", "type"})
SCHEMA_STAYS = frozenset(
    {"name", "type", "format", "pattern", "required", "$ref", "$schema", "$id"}
)
VALUE_IN_A_KEY = re.compile(r"[@<]|[0-9](?:[^A-Za-z]?[0-9]){6}|[A-Za-z]_[0-9]{3,}$")

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
FIRST_COLON = re.compile(r'[\[{\s]*"(?:[^"\\]|\\.)*"\s*:(\s?)')
VALUES = frozenset({"enum", "default", "const", "example", "examples"})


def message(value: dict[str, Json], visit: Visit) -> dict[str, Json]:
    """Return a chat message with rewritten texts."""
    zone = Zone.USER if value.get("role") == "user" else Zone.OTHER
    return {key: _part_of_message(key, item, zone, visit) for key, item in value.items()}


def tool(value: dict[str, Json], visit: Visit) -> dict[str, Json]:
    """Return a tool's definition with rewritten texts."""
    return {
        key: item if key in SCHEMA_STAYS else schema(item, visit) for key, item in value.items()
    }


def schema(value: Json, visit: Visit) -> Json:
    """Return JSON Schema, or its surroundings, with rewritten descriptions and values."""
    match value:
        case str():
            return visit(Leaf(value, "", Zone.TOOLS))
        case list():
            return [schema(item, visit) for item in value]
        case dict():
            return {key: _part_of_schema(key, item, visit) for key, item in value.items()}
        case _:
            return value


def acceptable(value: Json, visit: Visit) -> Json:
    """Return references with rewritten values; function names stay."""
    if not isinstance(value, list):
        return value
    return [
        {key: item if key == "name" else data(item, visit, "") for key, item in call.items()}
        if isinstance(call, dict)
        else call
        for call in value
    ]


def data(value: Json, visit: Visit, field: str, zone: Zone = Zone.DATA) -> Json:
    """Return JSON with rewritten texts and numbers; a list's elements have the list's field."""
    match value:
        case str():
            return _text(value, visit, field, zone)
        case dict():
            return _object(value, visit, field)
        case list():
            return [data(item, visit, field) for item in value]
        case bool() | None:
            return value
        case _:
            written = str(value)
            visited = visit(Leaf(written, field, Zone.NUMBER))
            return value if visited == written else visited


def _part_of_message(key: str, value: Json, zone: Zone, visit: Visit) -> Json:
    match key, value:
        case "content", str():
            return _text(value, visit, "", zone)
        case "content", list():
            return [_part_of_content(part, zone, visit) for part in value]
        case "tool_calls", list():
            return [_call(call, visit) for call in value]
        case "function_call", dict():
            return _function(value, visit)
        case "name", str() if zone is Zone.OTHER:
            return value
        case _:
            return value if key in MESSAGE_STAYS else data(value, visit, normal(key))


def _part_of_content(part: Json, zone: Zone, visit: Visit) -> Json:
    if not isinstance(part, dict):
        return data(part, visit, "")
    return {
        key: item if key == "type" else data(item, visit, "", zone) for key, item in part.items()
    }


def _call(call: Json, visit: Visit) -> Json:
    if not isinstance(call, dict):
        return data(call, visit, "")
    return {
        key: _function(item, visit)
        if key == "function" and isinstance(item, dict)
        else item
        if key in MESSAGE_STAYS
        else data(item, visit, normal(key))
        for key, item in call.items()
    }


def _function(function: dict[str, Json], visit: Visit) -> dict[str, Json]:
    return {key: item if key == "name" else data(item, visit, "") for key, item in function.items()}


def _part_of_schema(key: str, value: Json, visit: Visit) -> Json:
    if key in VALUES:
        return data(value, visit, "", Zone.TOOLS)
    return value if key in SCHEMA_STAYS and not isinstance(value, dict) else schema(value, visit)


def _object(value: dict[str, Json], visit: Visit, parent: str) -> dict[str, Json]:
    names = {key: normal(key) for key in value}
    about_person = parent in name_patterns.PEOPLE or not name_patterns.ABOUT_A_PERSON.isdisjoint(
        names.values()
    )
    return {
        visit(Leaf(key, "", Zone.DATA)) if may_hold_a_value(key) else key: data(
            item, visit, PERSON if about_person and names[key] == "name" else names[key]
        )
        for key, item in value.items()
    }


@lru_cache(maxsize=CACHED_KEYS)
def may_hold_a_value(key: str) -> bool:
    """Return whether a key is no field's name: tools return maps by address, number or user id."""
    return VALUE_IN_A_KEY.search(key) is not None


def _text(text: str, visit: Visit, field: str, zone: Zone) -> str:
    """Return a rewritten text; JSON objects and lists within text are rewritten value by value."""
    if (value := read(text)) is None:
        return visit(Leaf(text, field, zone))
    rewritten = data(value, visit, field)
    return text if rewritten == value else write(rewritten, like=text)


def read(text: str) -> dict[str, Json] | list[Json] | None:
    """Return the JSON object or list that is the whole text; ``None`` for another text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return parse_json(text)
    except ValueError:
        return None


def write(value: Json, like: str) -> str:
    """Return JSON with the spacing and escaping of another text; ``ValueError`` for NaN."""
    body = like.strip()
    before, _, after = like.partition(body)
    spaced = FIRST_COLON.match(like)
    is_spaced = bool(spaced[1]) if spaced else ", " in like
    written = json.dumps(
        value,
        ensure_ascii="\\u" in like or bool(LONE_SURROGATE.search(like)),
        separators=(", ", ": ") if is_spaced else (",", ":"),
        allow_nan=False,
    )
    return before + written + after


def dumps(value: object) -> str:
    """Return JSON as the warehouse extracts it, lone surrogates escaped; ``ValueError`` for NaN."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text
