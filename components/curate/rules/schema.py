"""Find calls whose arguments break the JSON Schema that their own tool states.

Logs hold schemas of every kind, and whoever sent them is not trusted: what is no keyword of a
closed list, or not of its form, is left unchecked. So is a type that JSON Schema doesn't have
(``dict``, ``float``, ``any``), and a ``pattern``: nothing that was logged is compiled into a
program or looked up elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from jsonschema_rs import Draft202012Validator, Validator

from components.curate import candidate as candidates
from components.curate.candidate import Candidate
from components.schema import Json

TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
DEEPEST = 40


def breaks_schema(candidate: Candidate) -> str | None:
    """Find the first argument that its tool's ``parameters`` forbid; give its place and why."""
    if not candidate.answer.calls or not candidate.tools:
        return None
    validators = _validators(candidate.tools_text)
    for call in candidate.answer.calls:
        validator = validators.get(call.name)
        if validator is not None and (problem := _problem(validator, call.arguments)) is not None:
            return f"{call.name}{problem}"
    return None


def checkable(schema: Json, depth: int = 0) -> dict[str, Json]:
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


@lru_cache(maxsize=512)
def _validators(tools_text: str) -> Mapping[str, Validator]:
    """Compile the schemas of the tools that are offered together; the same come over and over."""
    tools, _ = candidates.read_tools(tools_text)
    return {name: made for tool in tools for name, made in _compiled(tool)}


def _compiled(tool: Mapping[str, Json]) -> Iterator[tuple[str, Validator]]:
    match tool:
        case {"function": {"name": str(name), "parameters": dict(parameters)}}:
            schema = checkable(parameters)
        case _:
            return
    try:
        validator = Draft202012Validator(schema, offline=True)
    except ValueError:  # half a character, or nested deeper than the library goes
        return
    yield name, validator


def _problem(validator: Validator, arguments: dict[str, Json]) -> str | None:
    try:
        error = next(validator.iter_errors(arguments), None)
    except ValueError:  # nested deeper than the library goes
        return None
    if error is None:
        return None
    return f"{_place(error.schema_path)}: {error.kind.name}"


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
    return {name: checkable(schema, depth) for name, schema in value.items()}


def _below(value: Json, depth: int) -> Json:
    return value if isinstance(value, bool) else checkable(value, depth) or None


def _several(value: Json, depth: int) -> Json:
    return [checkable(one, depth) for one in value] if isinstance(value, list) and value else None


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
