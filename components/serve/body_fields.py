"""Read a request's body, and check it by its model; errors are OpenAI's, and name the field."""

import re
from typing import Any, TypeAlias, TypeVar, cast

import orjson
from pydantic import BaseModel, ValidationError

from components.schema import Json, kind_of
from components.serve.openai_error import OpenAiError, invalid, shown

Obj: TypeAlias = dict[str, Json]
Model = TypeVar("Model", bound=BaseModel)

MAX_PARTS = 50_000  # objects and arrays of a body: reading them delays all others
DEEPEST = 200  # levels of a body; Python's recursion ends at 1,000, and templates recurse, too

_AROUND = re.compile(r"^(Value error,|\w+ should (be|have|match)) | after validation, not .*$")
_KINDS = {"missing": "a value", "string_type": "text", "list_type": "an array"} | dict.fromkeys(
    ("dict_type", "model_type", "model_attributes_type"), "an object"
)

NO_EFFECT = "Only a value that changes nothing."
"""The description of fields that OpenAI has, and this gateway cannot do."""


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
        if parts > MAX_PARTS:
            raise OpenAiError(
                400, f"the body has more than {MAX_PARTS} objects and arrays; send fewer"
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


def check(model: type[Model], body: Obj) -> Model:
    """Return a body as its model; raise ``OpenAiError`` (400) if it is refused."""
    is_closed = model.model_config.get("extra") == "forbid"
    for name in body if is_closed else ():  # pydantic would make an error for each
        if name not in model.model_fields:
            raise OpenAiError(
                400,
                f"Unknown parameter: {name[:80]!r}; known are {', '.join(model.model_fields)}",
                param=name[:80],
                code="unknown_parameter",
            )
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _refusal(model, body, error) from None


def _refusal(model: type[BaseModel], body: Obj, error: ValidationError) -> OpenAiError:
    errors = cast("list[dict[str, Any]]", error.errors(include_url=False))
    # A union has an error for each of its members: the one that fits furthest is meant.
    place = max((_place(body, each) for each in errors), key=len)
    chosen = [each for each in errors if _place(body, each) == place]
    parent: Any = body
    for part in place[:-1]:
        parent = parent[part]
    is_missing = isinstance(parent, dict) and place[-1] not in parent
    if is_missing:  # what is expected is known once it is there
        parent[place[-1]] = None
        try:
            check(model, body)
        finally:
            del parent[place[-1]]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]
    value = shown(None if is_missing else parent[place[-1]])
    if model.model_fields[str(place[0])].description == NO_EFFECT:
        return OpenAiError(
            400,
            f"Unsupported value: {param!r} is {value}, which this gateway cannot do; leave it out",
            param=param,
            code="unsupported_value",
        )
    is_schema = place[0] == "tools" and place[-1] == "parameters"
    code = "invalid_function_parameters" if is_schema else "invalid_value"
    expected = " or ".join(dict.fromkeys(map(_expected, chosen)))
    return invalid(param, f"it is {value}, expected {expected}", code=code)


def _place(body: Obj, error: dict[str, Any]) -> list[Any]:
    """Return the path to a value, without the names of a union's members."""
    value: Any = body
    place: list[Any] = []
    for part in error["loc"]:
        if isinstance(value, list if isinstance(part, int) else dict) and (
            isinstance(part, int) or part in value
        ):
            place.append(part)
            value = value[part]
    match error:
        case {"type": "missing", "loc": (*_, name)}:
            place.append(name)
        case {"ctx": {"discriminator": name}}:
            place.append(name.strip("_'()"))
        case _:
            pass
    return place


def _expected(error: dict[str, Any]) -> str:
    match error:
        case {"ctx": {"expected_tags": tags}}:
            return f"one of {tags}".replace("'", "")
        case {"type": kind} if kind in _KINDS:
            return _KINDS[kind]
        case {"msg": message}:
            return _AROUND.sub("", message)
        case _:
            raise AssertionError(error)
