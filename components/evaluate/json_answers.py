"""JSON answers: whether two are equal, which of their fields agree, and whether a schema holds.

A model's answer is untrusted: each function takes linear time in its length, for the nesting that
``MAX_LEVELS`` allows.
"""

import json
import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple, NoReturn, TypeAlias, cast

from jsonschema_rs import Validator

from components.chat import tool_schema
from components.evaluate import text_answers
from components.evaluate.task_metrics import JSON_METRICS
from components.schema import Json

MAX_LEVELS = 100  # of nesting: what is deeper is not read


class Number(NamedTuple):
    """A number of any size as its digits without zeros around them, and a power of ten."""

    digits: str
    exponent: int


Value: TypeAlias = "dict[str, Value] | list[Value] | str | Number | bool | None"
"""A JSON value of which equal ones are equal in Python: 1.0 is 1, but ``true`` is not."""


def read(text: str) -> Value:
    """Parse JSON strictly.

    Raises:
        ValueError: It is not JSON, has a key twice, of which readers take either, NaN or Infinity,
            or is nested deeper than ``MAX_LEVELS``.
    """
    try:
        return _composed(_DECODER.decode(text), MAX_LEVELS)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_json(text: str) -> bool:
    """Return whether an answer is a JSON object or list, as it is or in a fence."""
    body = without_fence(text)
    if body[:1] not in ("{", "["):
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def without_fence(text: str) -> str:
    """Return a text without blanks around it and, if it is a Markdown block of JSON, its fence."""
    body = text.strip()
    if len(body) < 2 * len(_FENCE) or not (body.startswith(_FENCE) and body.endswith(_FENCE)):
        return body
    language, _, inside = body[len(_FENCE) : -len(_FENCE)].partition("\n")
    return inside.strip() if language.strip().casefold() in ("", "json") else body


def canonical(text: str) -> str:
    """Return a text that equal JSON answers have in common; an answer that is not JSON itself."""
    try:
        return _write(read(without_fence(text)))
    except ValueError:
        return text.strip()


def score_json(text: str, reference: str, schema: str = "") -> dict[str, float | None]:
    """Score a model's text by ``JSON_METRICS``; ``None`` where a metric does not apply.

    A fence around the answer is right only where the right answer has one, since whoever reads it
    expects it then. A right answer that is not JSON, such as an apology, is compared as a text.

    Args:
        text: The model's text.
        reference: The right answer.
        schema: The JSON Schema that the request came with, as JSON text; empty without one.
    """
    body = without_fence(reference)
    try:
        expected = read(body)
    except ValueError:
        return {**dict.fromkeys(JSON_METRICS), "exact": text_answers.same_words(text, reference)}
    given = without_fence(text) if body != reference.strip() else text.strip()
    has_schema = is_measured("schema_valid", reference, schema)
    try:
        value = read(given)
    except ValueError:
        wrong = {**dict.fromkeys(JSON_METRICS, 0.0)}
        return {**wrong, "schema_valid": 0.0 if has_schema else None}
    return {
        "valid_json": 1.0,
        "schema_valid": float(fits(given, schema)) if has_schema else None,
        "fields": agreement(value, expected),
        "exact": float(value == expected),
    }


def is_measured(name: str, reference: str, schema: str = "") -> bool:
    """Return whether a metric is measured on a request with this right answer and schema."""
    if name == "exact" or name not in JSON_METRICS:
        return name in JSON_METRICS
    body = without_fence(reference)
    try:
        read(body)
    except ValueError:
        return False
    return name != "schema_valid" or (bool(schema) and fits(body, schema))


def agreement(value: Value, expected: Value) -> float:
    """Return the F1 of the leaves that two values have in common, each at the same place.

    Leaves are texts, numbers, ``true``, ``false``, ``null`` and empty objects and lists. Items of
    lists that are equal are at the same place wherever they stand; the others are compared in
    their order.
    """
    return 2 * _common_leaves(value, expected) / (count_leaves(value) + count_leaves(expected))


def count_leaves(value: Value) -> int:
    """Count the leaves of a value."""
    if isinstance(value, dict) and value:
        return sum(map(count_leaves, value.values()))
    if isinstance(value, list) and value:
        return sum(map(count_leaves, value))
    return 1


def fits(text: str, schema: str) -> bool:
    """Return whether JSON fits a JSON Schema, as far as that can be checked."""
    validator = _validator(schema)
    if validator is None:
        return True
    try:
        return validator.is_valid(json.loads(text))
    except ValueError:  # a number, or half a surrogate pair, that the library does not take
        return False


def _common_leaves(value: Value, expected: Value) -> int:
    if isinstance(value, dict) and isinstance(expected, dict) and value:
        return sum(_common_leaves(value[key], expected[key]) for key in value.keys() & expected)
    if isinstance(value, list) and isinstance(expected, list) and value:
        return _common_items(value, expected)
    return int(type(value) is type(expected) and value == expected)


def _common_items(items: list[Value], expected: list[Value]) -> int:
    written, wanted = ([*map(_write, values)] for values in (items, expected))
    equal = Counter(written) & Counter(wanted)
    rest = _without(items, written, equal), _without(expected, wanted, equal)
    matched = sum(map(count_leaves, items)) - sum(map(count_leaves, rest[0]))
    return matched + sum(map(_common_leaves, *rest))


def _without(items: list[Value], written: list[str], equal: Counter[str]) -> list[Value]:
    left, rest = equal.copy(), list[Value]()
    for item, text in zip(items, written, strict=True):
        if left[text] > 0:
            left[text] -= 1
        else:
            rest.append(item)
    return rest


def _write(value: Value) -> str:
    return json.dumps(value, sort_keys=True)


def _composed(value: Value, levels: int) -> Value:
    match value:
        case str():
            return text_answers.composed(value)
        case list() | dict() if not levels:
            raise ValueError(f"it is nested deeper than {MAX_LEVELS} levels")
        case list():
            return [_composed(item, levels - 1) for item in value]
        case dict():
            return {key: _composed(item, levels - 1) for key, item in value.items()}
        case _:
            return value


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    value = {text_answers.composed(key): item for key, item in pairs}
    if len(value) < len(pairs):
        raise ValueError("it has a key twice")
    return value


_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


def _number(text: str) -> Number:
    # Not as floats or integers: 1e400 is no other number than 2e400, and a million digits take long
    match = cast("re.Match[str]", _NUMBER.fullmatch(text))
    sign, whole, part, power = match[1], match[2], match[3] or "", match[4] or "0"
    digits = (whole + part).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return Number("0", 0)
    exponent = int(power) - len(part) + len(digits) - len(significant)
    return Number(sign + significant, exponent)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_FENCE = "```"

_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_number, parse_float=_number, parse_constant=_refuse
)


@lru_cache(maxsize=512)
def _validator(schema: str) -> Validator | None:
    parsed: Json = json.loads(schema)
    return tool_schema.validator(parsed) if isinstance(parsed, dict) else None
