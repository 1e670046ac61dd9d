"""Validate the arguments of a call against the JSON Schema of its tool's ``parameters``."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from jsonschema_rs import Draft202012Validator, Validator

from components.schema import Json

TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
DEEPEST = 40


def validators(tools: Iterable[Mapping[str, Json]]) -> dict[str, Validator]:
    """Compile the schemas of OpenAI tools by name; one that can't be is left out."""
    return {name: made for tool in tools for name, made in _compiled(tool)}


def problem(validator: Validator, arguments: dict[str, Json]) -> str | None:
    """Say which argument breaks the schema, and which keyword of it; ``None`` if none does."""
    try:
        error = next(validator.iter_errors(arguments), None)
    except ValueError:  # nested deeper than the library goes
        return None
    if error is None:
        return None
    return f"{_place(error.schema_path)}: {error.kind.name}"


def is_checkable(schema: Json, depth: int = 0) -> dict[str, Json]:
    """Reduce a schema to what can be checked, never stricter than it; the empty one allows all."""
    if not isinstance(schema, dict) or depth > DEEPEST or "$ref" in schema:
        return {}
    kept: dict[str, Json] = {}
    for keyword, value in schema.items():
        if keyword in _READERS and (read := _READERS[keyword](value, depth + 1)) is not None:
            # Alternatives of which some are unchecked can't be told to be exactly one.
            kept["anyOf" if keyword == "oneOf" else keyword] = read
    if "patternProperties" in schema or "unevaluatedProperties" in schema:
        kept.pop("additionalProperties", None)
    nullable = kept and schema.get("nullable") is True
    return {"anyOf": [{"type": "null"}, kept]} if nullable else kept


def _compiled(tool: Mapping[str, Json]) -> Iterator[tuple[str, Validator]]:
    match tool:
        case {"function": {"name": str(name), "parameters": dict(parameters)}}:
            schema = is_checkable(parameters)
        case _:
            return
    try:
        validator = Draft202012Validator(schema, offline=True)
    except ValueError:  # half a character, or nested deeper than the library goes
        return
    yield name, validator


def _place(path: Sequence[str | int]) -> str:
    """Name an argument by its schema: in the call there may be personal data."""
    names = (
        f".{part}" if before == "properties" else "[]" if part == "items" else ""
        for before, part in pairwise(("", *path))
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
    return {name: is_checkable(schema, depth) for name, schema in value.items()}


def _below(value: Json, depth: int) -> Json:
    return value if isinstance(value, bool) else is_checkable(value, depth) or None


def _several(value: Json, depth: int) -> Json:
    return (
        [is_checkable(one, depth) for one in value] if isinstance(value, list) and value else None
    )


def _bound(value: Json, depth: int) -> Json:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(value: Json, depth: int) -> Json:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


_READERS: dict[str, Callable[[Json, int], Json]] = {
    "type": _type,
    "enum": _choices,
    "properties": _properties,
    "required": _names,
    "additionalProperties": _below,
    "items": _below,
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _several),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _bound),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _size),
}
"""What is kept of a keyword's value; ``None`` where it has not the form that it should have."""
