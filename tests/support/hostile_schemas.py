"""JSON Schemas that are made to be slow or large, by what is in them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Schema = dict[str, Any]

PATTERNS = [rf"(a|b)*a(a|b){{{n}}}" for n in range(3, 19)]
"""That all of them match one text takes llguidance 12 times as long for each two more."""


def tool(parameters: Schema) -> Schema:
    """Offer a function with these parameters."""
    return {"type": "function", "function": {"name": "x", "parameters": parameters}}


def of(value: Schema, **more: Any) -> Schema:
    """Require a value in an object."""
    return {"type": "object", "properties": {"a": value}, "required": ["a"], **more}


def _texts(**more: Any) -> list[Schema]:
    return [{"type": "string", "pattern": pattern, **more} for pattern in PATTERNS]


def _merged(wrap: Callable[[Schema], Schema]) -> Schema:
    """Demand the patterns of one part of a value, each in its own branch."""
    return {"allOf": [wrap(text) for text in _texts()]}


def _chained(texts: Sequence[Schema]) -> Schema:
    chained = texts[0]
    for text in texts[1:]:
        chained = {"allOf": [text, chained]}
    return chained


PATTERNS_OF_ONE_TEXT: Mapping[str, Schema] = {
    "allOf": of({"allOf": _texts()}),
    "allOf with a length": of({"allOf": _texts(minLength=50, maxLength=9_000)}),
    "allOf in allOf": of(_chained(_texts())),
    "allOf of anyOf": of({"allOf": [{"anyOf": [text, text]} for text in _texts()]}),
    "in items": of({"type": "array", "items": {"allOf": _texts()}}),
    "in prefixItems": of({"type": "array", "prefixItems": [{"allOf": _texts()}]}),
    "in anyOf": of({"anyOf": [{"type": "integer"}, {"allOf": _texts()}]}),
    "in a definition": of(
        {"allOf": [{"$ref": f"#/$defs/{n}"} for n in range(len(PATTERNS))]},
        **{"$defs": {str(n): text for n, text in enumerate(_texts())}},
    ),
    "in additionalProperties": {"type": "object", "additionalProperties": {"allOf": _texts()}},
}
"""These are counted."""

SLOW: Mapping[str, Schema] = {
    "of merged properties": of(_merged(of)),
    "of merged items": of(_merged(lambda text: {"type": "array", "items": text})),
    "of merged other properties": of(
        _merged(lambda text: {"type": "object", "additionalProperties": text})
    ),
    "one pattern": of({"type": "string", "pattern": " & ".join(PATTERNS)}),
    "dependentSchemas": of(
        {"type": "object", "dependentSchemas": {"b": _merged(of)}, "properties": {"b": _texts()[0]}}
    ),
    "if and then": of({"if": _merged(of), "then": _merged(of)}),
    "propertyNames": of({"type": "object", "propertyNames": {"allOf": _texts()}}),
    "patternProperties": of({"type": "object", "patternProperties": {p: {} for p in PATTERNS}}),
    "multipleOf": of(
        {"allOf": [{"type": "integer", "multipleOf": n} for n in (997, 991, 983, 977, 971)]}
    ),
    "multipleOf a fraction": of({"type": "number", "multipleOf": 1e-9, "maximum": 1e9}),
    "long pattern of choices": of({"type": "string", "pattern": "(a|b)*a(a|b){2000}"}),
    "nested repeats": of({"type": "string", "pattern": "^(((a{1,50}b?){1,50}c?){1,50}d?){1,50}$"}),
    "lengths": of({"allOf": [{"type": "string", "minLength": 9_000 + n} for n in range(50)]}),
}
"""What a deadline ends, if anything does."""


def spelled(tildes: int, values: int) -> Schema:
    """Refer to a definition in many spellings of its name."""
    name = "~" * tildes
    places = [
        "#/$defs/" + "".join("~0" if n >> bit & 1 else "~" for bit in range(tildes))
        for n in range(min(2**tildes, 20_000))
    ]
    return {
        "type": "object",
        "properties": {str(n): {"$ref": place} for n, place in enumerate(places)},
        "$defs": {name: {"enum": list(range(values))}},
    }


def referring_leaves(leaves: int, definition: int) -> Schema:
    """Refer to a long definition in leaves that have one keyword more."""
    refers = [{"$ref": "#/$defs/a", "minLength": n} for n in range(leaves)]
    groups = [refers[first : first + 50] for first in range(0, leaves, 50)]
    levels = [_object(group) for group in groups]
    return _object(levels) | {"$defs": {"a": {"enum": ["x" * definition]}}}


def _object(values: Sequence[Schema]) -> Schema:
    return {"type": "object", "properties": {str(n): value for n, value in enumerate(values)}}
