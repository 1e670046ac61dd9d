"""Rules of llguidance's Lark for JSON values of a schema, with properties in any order.

llguidance's own ``%json`` has an object's properties in the order of its schema: a model that
learned another one could not write its arguments, or lost those that it had passed over.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from components.chat import tool_schema
from components.schema import Json

MAX_COUNT = 10_000
"""Schemas may not require more items, characters or properties than this; a higher maximum is as
good as none, and llguidance 1.7 (vLLM's) does not return from one of 1e9 items."""

MAX_PROPERTIES = 60
"""The most properties of an object in any order, one of 64 bits each; more are in the schema's."""

MAX_CHARACTERS = 128 * 1024
"""The most characters of a grammar. The time to compile one grows with the square of an object's
properties: at this size it is below a second."""

MAX_PATTERNS = 4
"""The most patterns that ``allOf`` demands of one text: llguidance intersects them, in 12 times the
time for each two more."""

MAX_REFERRED_LEVELS = 600
"""The most levels of what a schema refers to, added up. llguidance follows references on its stack:
with 8 MiB, somewhere from 1,800 to 3,600 levels of lists overflow it, which ends the process."""

FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
)
"""The formats that llguidance enforces. JSON Schema has others ignored."""

_NARROWING = (
    frozenset({"not", "if", "then", "else", "contains", "minContains", "maxContains"})
    | {"uniqueItems", "propertyNames", "unevaluatedProperties", "unevaluatedItems"}
    | {"dependentRequired", "dependentSchemas", "dependencies"}
)
"""Keywords that only narrow a schema, and that llguidance does not have."""

_LOOKS_AROUND = re.compile(r"\(\?<?[=!]|\\[1-9]|\\k<")
"""What patterns have that no finite automaton does, such as those of Pydantic's decimals."""

BLANK = r"[ \t\n\r]"
BLANKS = BLANK + "{0,20}"  # more of them in a call would be a model that got stuck

MARKS = [
    f"COMMA: /{BLANKS},{BLANKS}/",
    f"COLON: /{BLANKS}:{BLANKS}/",
    f"BLANKS: /{BLANK}{{1,20}}/",
    # Each name has one spelling here, so none can be a known one's other spelling.
    r'NAME: /"([^"\\\x00-\x1f\x7f]|\\["\\bfnrt])*"/',
]
"""The terminals of ``ValueRules``."""

_OPTIONS: dict[str, Json] = {"x-guidance": {"whitespace_pattern": BLANK + "{1,20}"}}
_DEFINITIONS = ("$defs", "definitions")


class UnsupportedSchemaError(ValueError):
    """Raised when a schema is invalid, impossible, too large, or not expressible as a grammar."""


def literal(text: str) -> str:
    """Return the terminal of a text."""
    return json.dumps(text, ensure_ascii=False)


def json_literal(value: Json) -> str:
    """Return the terminal of a JSON value as ``json.dumps`` writes it."""
    return literal(json.dumps(value, ensure_ascii=False))


def in_order(schema: Json) -> str:
    """Return what matches values of a schema, with properties in the schema's order."""
    return f"%json {json.dumps({**schema, **_OPTIONS} if isinstance(schema, dict) else schema)}"


class ValueRules:
    """Rules for values of schemas; ``rules`` has those of all that were added.

    Objects whose schema has only properties, and arrays of them, have properties in any order.
    All else is ``%json``: other keywords beside properties, what refers to itself, and a choice
    between such objects and values that begin in several ways.
    """

    def __init__(self) -> None:
        self.rules: list[str] = []
        self._names: dict[str, str] = {}
        self._characters = 0
        self._root: dict[str, Json] = {}
        self._leaves: dict[str, str] = {}
        self._places: dict[str, str | None] = {}

    def add(self, schema: dict[str, Json]) -> str:
        """Add a schema that is ``expressible``; return the name of its rule."""
        if re.search(r'"\$ref": "#(?!/(\$defs|definitions)/)', json.dumps(schema)):
            return self._rule(in_order(schema))
        self._root = {key: schema[key] for key in _DEFINITIONS if key in schema}
        self._places, self._leaves = {}, {}
        return self._value({key: part for key, part in schema.items() if key not in self._root})

    def _rule(self, body: str) -> str:
        if body not in self._names:
            self._names[body] = f"v{len(self._names)}"
            self._append(f"{self._names[body]}: {body}")
        return self._names[body]

    def _append(self, rule: str) -> None:
        self._characters += len(rule)
        if self._characters > MAX_CHARACTERS:
            raise UnsupportedSchemaError(
                f"constraining an answer: its grammar has more than {MAX_CHARACTERS:,} characters"
            )
        self.rules.append(rule)

    def _value(self, schema: Json) -> str:
        return self._structure(schema) or self._leaf(schema)

    def _leaf(self, schema: Json) -> str:
        text = json.dumps(schema)
        if text not in self._leaves:  # each of them may repeat all definitions
            if isinstance(schema, dict) and '"$ref": ' in text:
                schema = {**schema, **self._root}
            self._leaves[text] = self._rule(in_order(schema))
        return self._leaves[text]

    def _structure(self, schema: Json) -> str | None:
        """Return the rule of a schema whose properties may come in any order; else ``None``."""
        match schema:
            case {"$ref": str(place), **rest} if not rest:
                if place not in self._places:
                    self._places[place] = None  # what refers to itself is a leaf
                    self._places[place] = self._structure(_definition(place, self._root))
                return self._places[place]
            case {"type": "object", "properties": {**properties}} if properties:
                return self._object(schema, properties)
            case {"type": list(kinds), **rest} if "object" in kinds:
                options = [{"type": kind} for kind in kinds if kind != "object"]
                return self._structure({"anyOf": [*options, {**rest, "type": "object"}]})
            case {"type": "array", "items": items, **rest} if rest.keys() <= {
                "minItems",
                "maxItems",
            }:
                return self._array(items, rest)
            case {"anyOf": list(options), **rest} if not rest:
                choices = [_word(option) or self._structure(option) for option in options]
                named = [choice for choice in choices if choice is not None]
                return self._rule(" | ".join(named)) if len(named) == len(options) else None
            case _:
                return None

    def _array(self, items: Json, bounds: Mapping[str, Json]) -> str | None:
        item, least, most = (
            self._structure(items),
            bounds.get("minItems", 0),
            bounds.get("maxItems"),
        )
        if item is None or not isinstance(least, int) or not isinstance(most, int | None):
            return None
        if most is not None and most < max(least, 1):
            return None
        more = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        listed = f"{item} (COMMA {item}){more} BLANKS?"
        return self._rule(f'"[" BLANKS? {listed if least else f"({listed})?"} "]"')

    def _object(self, schema: dict[str, Json], properties: Mapping[str, Json]) -> str | None:
        required, more = schema.get("required", []), schema.get("additionalProperties", True)
        if not schema.keys() <= {"type", "properties", "required", "additionalProperties"}:
            return None
        if not isinstance(required, list) or not properties.keys() >= {*map(str, required)}:
            return None
        needed = [name for name in properties if name in required]
        names = [*needed, *(name for name in properties if name not in needed)]
        if len(names) > MAX_PROPERTIES or False in properties.values():
            return None
        begins = [
            f"{json_literal(name)} COLON {self._value(properties[name])} @::set_bit({bit}) "
            f"%if bit_clear({bit})"
            for bit, name in enumerate(names)
        ]
        if more is not False:
            known = " | ".join(map(json_literal, names))
            other = self._terminal(f"NAME & ~({known})")
            begins.append(f"{other} COLON {self._value(more)} @::_")
        return self._members(begins, f" %if is_ones([0:{len(needed)}])" if needed else "")

    def _members(self, begins: Sequence[str], done: str) -> str:
        # The parameter has a bit for each property that was written; the required ones are first.
        key = "\n".join([done, *begins])
        if key not in self._names:
            name = self._names[key] = f"v{len(self._names)}"
            later = f"m{name}"
            first_ones = [f'"}}"{done}', *begins]
            later_ones = [f'BLANKS? "}}"{done}', *(f"COMMA {each}" for each in begins)]
            self._append(f'{name}: "{{" BLANKS? f{later}::0x0')
            for rule in (f"f{later}::_ : ", first_ones), (f"{later}::_ : ", later_ones):
                self._append(f"{rule[0]}{' | '.join(rule[1])}".replace("@::", f"{later}::"))
        return self._names[key]

    def _terminal(self, body: str) -> str:
        if body not in self._names:
            self._names[body] = f"NAME_{len(self._names)}"
            self._append(f"{self._names[body]}: {body}")
        return self._names[body]


def _word(schema: Json) -> str | None:
    """Return a value that has no structure and few spellings, such as ``null``."""
    match schema:
        case {"type": "null", **rest} if not rest:
            return json_literal(None)
        case {"type": "boolean", **rest} if not rest:
            return f"{json_literal(True)} | {json_literal(False)}"
        case {"const": str() | None | bool() as constant, **rest} if not rest:
            return json_literal(constant)
        case _:
            return None


def _definition(place: str, root: Mapping[str, Json]) -> Json:
    schema: Json = cast("dict[str, Json]", root)
    for part in place.removeprefix("#/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        schema = schema.get(name) if isinstance(schema, dict) else None
    return schema


def expressible(schema: dict[str, Json], *, loosely: bool = False) -> dict[str, Json]:
    """Rewrite what llguidance does not take though JSON Schema does; its meaning stays.

    ``loosely``: leave out what only narrows it and is no grammar, so that more values match; of
    ``oneOf``, as of a union that a property tells apart, several may.

    Raises:
        UnsupportedSchemaError: The schema is too deep, or requires too much.
    """
    rewritten = cast("dict[str, Json]", _rewritten(schema, 0, loosely=loosely))
    levels, of_parts = 0, dict[int, int]()
    for place in set(_places(rewritten)):
        part = _definition(place, rewritten)
        # What is not found here may be found by llguidance, in another spelling of its place.
        levels += tool_schema.MAX_DEPTH if part is None else _levels(part, of_parts)
        if levels > MAX_REFERRED_LEVELS:
            raise UnsupportedSchemaError(
                "constraining an answer: what its schema refers to has too many levels "
                f"altogether; at most {MAX_REFERRED_LEVELS} are supported"
            )
    _Patterns(rewritten).require_few(rewritten)
    return rewritten


class _Patterns:
    """Counts the patterns that one text has to match."""

    def __init__(self, root: Mapping[str, Json]) -> None:
        self._root = root
        self._counts: dict[int, int] = {}

    def require_few(self, schema: Json) -> None:
        """Raise ``UnsupportedSchemaError`` if there are too many somewhere in a schema."""
        if isinstance(schema, dict) and "allOf" in schema and self._count(schema) > MAX_PATTERNS:
            raise UnsupportedSchemaError(
                f"constraining an answer: an `allOf` of its schema has more than {MAX_PATTERNS} "
                "`pattern`s for one text; write them as one, or leave some out"
            )
        for part in _parts(schema):
            self.require_few(part)

    def _count(self, schema: Json) -> int:
        if not isinstance(schema, dict):
            return 0
        if id(schema) not in self._counts:
            self._counts[id(schema)] = 0  # what refers to itself is counted once
            match schema.get("$ref"):
                case str(place):
                    count = self._count(_definition(place, self._root))
                case _:
                    count = 0
            for keyword, combined in (("allOf", sum), ("anyOf", max), ("oneOf", max)):
                match schema.get(keyword):
                    case [_, *_] as options:
                        count += combined(map(self._count, options))
                    case _:
                        pass
            self._counts[id(schema)] = count + ("pattern" in schema)
        return self._counts[id(schema)]


def _places(schema: Json) -> Iterator[str]:
    """Yield what a schema refers to."""
    if isinstance(schema, dict) and isinstance(place := schema.get("$ref"), str):
        yield place
    for part in _parts(schema):
        yield from _places(part)


def _levels(schema: Json, known: dict[int, int]) -> int:
    """Return the levels of a schema; ``known`` has those of its parts by their identity."""
    if not isinstance(schema, dict | list):
        return 1
    if id(schema) not in known:
        known[id(schema)] = 1 + max((_levels(part, known) for part in _parts(schema)), default=0)
    return known[id(schema)]


def _parts(schema: Json) -> Iterable[Json]:
    if isinstance(schema, dict):
        return schema.values()
    return schema if isinstance(schema, list) else ()


_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_LEAVES = (
    *("type", "enum", "const", "$ref", "$anchor", "required", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("uniqueItems", "dependentRequired", "dependencies", "propertyNames", "minContains"),
    *("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
)


def _rewritten(schema: Json, depth: int, *, loosely: bool) -> Json:
    if depth > tool_schema.MAX_DEPTH:
        raise UnsupportedSchemaError(
            f"constraining an answer: its schema has more than {tool_schema.MAX_DEPTH} levels"
        )
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Json] = {}

    def inner(part: Json) -> Json:
        return _rewritten(part, depth + 1, loosely=loosely)

    for keyword, value in (_loosened(schema) if loosely else schema).items():
        if keyword in _SCHEMAS_BY_NAME and isinstance(value, dict):
            result[keyword] = {name: inner(part) for name, part in value.items()}
        elif keyword in _SCHEMA_LISTS and isinstance(value, list):
            result[keyword] = [inner(part) for part in value]
        elif keyword in _SCHEMAS and not isinstance(value, list):
            result[keyword] = inner(value)
        elif keyword in _LEAVES:
            result[keyword] = value
    if isinstance(items := schema.get("items"), list):  # until draft 2019-09
        result["prefixItems"] = [inner(part) for part in items]
        if "additionalItems" in schema:
            result["items"] = inner(schema["additionalItems"])
    _rewrite_leaves(result)
    return {"anyOf": [{"type": "null"}, result]} if schema.get("nullable") is True else result


def _loosened(schema: dict[str, Json]) -> dict[str, Json]:
    kept = {key: part for key, part in schema.items() if key not in _NARROWING}
    match kept.get("pattern"):
        case str(pattern) if _LOOKS_AROUND.search(pattern):
            del kept["pattern"]
        case _:
            pass
    if (options := kept.pop("oneOf", None)) is not None:
        kept.setdefault("anyOf", options)
    return kept


def _rewrite_leaves(schema: dict[str, Json]) -> None:
    kinds = schema.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    if not all(isinstance(kind, str) and kind in tool_schema.TYPES for kind in listed):
        schema.pop("type", None)  # as in ``tool_schema``: it says nothing that could be checked
    if schema.get("format") not in FORMATS:
        schema.pop("format", None)
    if schema.get("uniqueItems") is False:
        del schema["uniqueItems"]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool):  # draft 4
            strict = schema.pop(exclusive)
            if strict and bound in schema:
                schema[exclusive] = schema.pop(bound)
    for counted in ("Length", "Items", "Properties"):
        least, most = schema.get(f"min{counted}"), schema.get(f"max{counted}")
        if isinstance(most, int | float) and most > MAX_COUNT:
            del schema[f"max{counted}"]
        if isinstance(least, int | float) and least > MAX_COUNT:
            raise UnsupportedSchemaError(
                f"constraining an answer: its schema has min{counted} {least}; at most {MAX_COUNT} "
                "are supported"
            )
