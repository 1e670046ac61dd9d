"""Validate the arguments of a call against the JSON Schema of its tool's ``parameters``."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from jsonschema_rs import Draft202012Validator, Validator

from components.schema import Call, Json

TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
MAX_DEPTH = 40


def validators(tools: Iterable[Mapping[str, Json]]) -> dict[str, Validator]:
    """Compile the schemas of OpenAI tools by name, skipping those that don't compile."""
    return {name: validator for tool in tools for name, validator in _compile(tool)}


def problem(validator: Validator, arguments: dict[str, Json]) -> str | None:
    """Return the argument and the keyword that are violated; ``None`` for valid arguments."""
    try:
        error = next(validator.iter_errors(arguments), None)
    except ValueError:  # nested deeper than the library's limit
        return None
    if error is None:
        return None
    return f"{_place(error.schema_path)}: {error.kind.name}"


def is_offered(call: Call, tools: str) -> bool:
    """Return whether a call is of an offered tool, with arguments that its JSON Schema allows."""
    names, validators = _offered_tools(tools)
    if call.name not in names:
        return False
    validator = validators.get(call.name)
    return validator is None or problem(validator, call.arguments) is None


def reduce_schema(schema: Json, depth: int = 0) -> dict[str, Json]:
    """Reduce a schema to its checkable part, which is never stricter; empty allows anything."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH or "$ref" in schema:
        return {}
    reduced: dict[str, Json] = {}
    for keyword, value in schema.items():
        if keyword in _READERS and (checkable := _READERS[keyword](value, depth + 1)) is not None:
            # Reduced alternatives may overlap, so "exactly one" can't be checked.
            reduced["anyOf" if keyword == "oneOf" else keyword] = checkable
    if "patternProperties" in schema or "unevaluatedProperties" in schema:
        reduced.pop("additionalProperties", None)
    nullable = reduced and schema.get("nullable") is True
    return {"anyOf": [{"type": "null"}, reduced]} if nullable else reduced


@lru_cache(maxsize=512)
def _offered_tools(tools: str) -> tuple[frozenset[str], Mapping[str, Validator]]:
    offered = [tool["function"] for tool in json.loads(tools)]
    names = frozenset(function["name"] for function in offered)
    return names, validators({"function": function} for function in offered)


def _compile(tool: Mapping[str, Json]) -> Iterator[tuple[str, Validator]]:
    match tool:
        case {"function": {"name": str(name), "parameters": dict(parameters)}}:
            compiled = validator(parameters)
        case _:
            return
    if compiled is not None:
        yield name, compiled


def validator(schema: Json) -> Validator | None:
    """Compile the checkable part of a JSON Schema; ``None`` if it does not compile."""
    try:
        return Draft202012Validator(reduce_schema(schema), offline=True)
    except ValueError:  # a lone surrogate, or nested deeper than the library's limit
        return None


def _place(path: Sequence[str | int]) -> str:
    # Named by the schema's path: the call's own keys and values may hold personal data.
    names = (
        f".{part}" if parent == "properties" else "[]" if part == "items" else ""
        for parent, part in pairwise(("", *path))
    )
    return "".join(names)


def _type(value: Json, depth: int) -> Json:
    names = value if isinstance(value, list) else [value]
    texts = dict.fromkeys(name for name in names if isinstance(name, str))
    return list(texts) if texts and len(texts) == len(names) and texts.keys() <= TYPES else None


def _names(value: Json, depth: int) -> Json:
    if not isinstance(value, list):
        return None
    return list(dict.fromkeys(name for name in value if isinstance(name, str)))


def _choices(value: Json, depth: int) -> Json:
    return value if isinstance(value, list) and value else None


def _properties(value: Json, depth: int) -> Json:
    if not isinstance(value, dict):
        return None
    return {name: reduce_schema(schema, depth) for name, schema in value.items()}


def _subschema(value: Json, depth: int) -> Json:
    return value if isinstance(value, bool) else reduce_schema(value, depth) or None


def _subschemas(value: Json, depth: int) -> Json:
    if not isinstance(value, list) or not value:
        return None
    return [reduce_schema(schema, depth) for schema in value]


def _bound(value: Json, depth: int) -> Json:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(value: Json, depth: int) -> Json:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


_READERS: dict[str, Callable[[Json, int], Json]] = {
    "type": _type,
    "enum": _choices,
    "properties": _properties,
    "required": _names,
    "additionalProperties": _subschema,
    "items": _subschema,
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _subschemas),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _bound),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _size),
}
"""Reduce a keyword's value; return ``None`` where it is malformed."""
