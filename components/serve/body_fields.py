"""Read the fields of a request's body; errors are OpenAI's, and name the field."""

from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

import orjson

from components.schema import Json, kind_of
from components.serve.openai_error import OpenAiError, invalid, shown

Obj: TypeAlias = dict[str, Json]

MOST_PARTS = 50_000  # objects and arrays of a body: reading them delays all others
DEEPEST = 200  # levels of a body; Python's recursion ends at 1,000, and templates recurse, too


def read_object(content: bytes) -> Obj:
    """Parse a body; raise ``OpenAiError`` (400) if it is not a JSON object."""
    try:
        body = cast("Json", orjson.loads(content))
    except orjson.JSONDecodeError as error:
        raise OpenAiError(
            400, f"the body is not JSON: {error}; expected a JSON object in UTF-8"
        ) from error
    if not isinstance(body, dict):
        raise OpenAiError(400, f"the body is {kind_of(body)}, expected a JSON object")
    require_flat(body)
    return body


def require_flat(body: Json) -> None:
    """Refuse a body of more parts or levels than templates and schemas can be read in time."""
    level, parts, layer = 0, 0, [body]
    while layer:
        level += 1
        parts += len(layer)
        if parts > MOST_PARTS:
            raise OpenAiError(
                400, f"the body has more than {MOST_PARTS} objects and arrays; send fewer"
            )
        if level > DEEPEST:
            raise OpenAiError(
                400, f"the body is nested more than {DEEPEST} levels deep; send a flatter one"
            )
        deeper: list[Json] = []
        for value in layer:
            if isinstance(value, dict):
                deeper.extend(item for item in value.values() if isinstance(item, dict | list))
            elif isinstance(value, list):
                deeper.extend(item for item in value if isinstance(item, dict | list))
        layer = deeper


def text(body: Obj, name: str) -> str | None:
    """Return a text; ``None`` without one."""
    value = body.get(name)
    if not isinstance(value, str | None):
        raise invalid(name, f"it is {shown(value)}, expected text")
    return value


def flag(body: Obj, name: str, *, default: bool, place: str | None = None) -> bool:
    """Return yes or no; ``place`` is the field's name in errors."""
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise invalid(place or name, f"it is {shown(value)}, expected true or false")
    return default if value is None else value


def integer(body: Obj, name: str, least: int, most: int | None = None) -> int | None:
    """Return a whole number within bounds; ``None`` without one."""
    value = body.get(name)
    if value is None:
        return None
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < least
        or (most is not None and value > most)
    ):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise invalid(name, f"it is {shown(value)}, expected a whole number {bounds}")
    return value


def number(body: Obj, name: str, least: float, most: float, *, default: float) -> float:
    """Return a number within bounds."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise invalid(name, f"it is {shown(value)}, expected a number from {least} to {most}")
    return float(value)


def refuse_unknown(body: Obj, known: Mapping[str, Callable[[Json], bool] | None]) -> None:
    """Refuse fields that are unknown, or whose value would have to change something."""
    for name, value in body.items():
        if name not in known:
            raise OpenAiError(
                400,
                f"Unknown parameter: {name[:80]!r}; known are {', '.join(known)}",
                param=name[:80],
                code="unknown_parameter",
            )
        is_harmless = known[name]
        if is_harmless is not None and value is not None and not is_harmless(value):
            raise OpenAiError(
                400,
                f"Unsupported value: {name!r} is {shown(value)}, which this gateway cannot do; "
                "leave it out",
                param=name,
                code="unsupported_value",
            )


def only(*values: Json) -> Callable[[Json], bool]:
    """Return a check that a value is one of these."""
    return lambda value: any(
        value == other and isinstance(value, bool) == isinstance(other, bool) for other in values
    )


def anything(_: Json) -> bool:
    """Let any value pass: it changes nothing."""
    return True
