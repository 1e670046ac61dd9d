"""Read JSON field by field, with errors that name the field and its expected type."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TypeAlias, cast

from components.collect.source import Defaults, RejectedRecord, SourceRecord, SourceRow
from components.schema import Json, kind_of

Obj: TypeAlias = dict[str, Json]  # a JSON object
Convert: TypeAlias = Callable[[SourceRow, Defaults], Iterable[SourceRecord]]
Read: TypeAlias = Callable[[Iterable[SourceRow], Defaults], Iterator[SourceRecord]]

DEEPEST = 200  # maximum nesting of a record; Python can't write JSON of a thousand levels

MAX_SHOWN = 80  # characters of a wrong value to quote in a reason


class WrongShapeError(ValueError):
    """Raised when a field has an unexpected form; names the field, its value, the expectation."""

    def __init__(self, message: str) -> None:
        # The quoted value may have half a surrogate pair, which no file and no table accepts.
        super().__init__(message.encode(errors="backslashreplace").decode())


def by_row(convert: Convert) -> Read:
    """Return a source's ``read`` that converts each row; a failure yields a ``RejectedRecord``."""

    def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[SourceRecord]:
        for row in rows:
            try:
                check_depth(row)
                converted = list(convert(row, defaults))
            except WrongShapeError as error:
                converted = [RejectedRecord(row, str(error))]
            yield from converted

    return read


def check_depth(row: SourceRow) -> None:
    """Raise ``WrongShapeError`` for a record nested so deeply that it exhausts a reader's stack."""
    if row.text.count("{") + row.text.count("[") > DEEPEST and is_deep(row.value):
        raise WrongShapeError(f"the record is nested deeper than {DEEPEST} levels")


def is_deep(value: Json) -> bool:
    """Return whether a value nests deeper than ``DEEPEST`` levels."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _holders(outer)]
        if not level:
            return False
    return True


def part(row: SourceRow, value: Obj) -> SourceRow:
    """Return a part of a row as a row with the same place and its own text."""
    text = as_json(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON may spell but UTF-8 can't
        text = json.dumps(value)
    return SourceRow(row.place, text, value)


def wrong_type(field: str, value: Json, expected: str) -> WrongShapeError:
    """Return the error for a field of the wrong type."""
    return WrongShapeError(f"`{field}` is {kind_of(value)}, expected {expected}")


def unknown_value(field: str, value: str, expected: str) -> WrongShapeError:
    """Return the error for a field with an unknown value of the right type."""
    return WrongShapeError(f'`{field}` is "{value[:MAX_SHOWN]}", expected {expected}')


def missing(field: str, expected: str) -> WrongShapeError:
    """Return the error for a missing field."""
    return WrongShapeError(f"`{field}` is missing, expected {expected}")


def require_text(holder: Obj, key: str, at: str = "") -> str:
    """Return a text, or raise ``WrongShapeError``; ``at`` is the path of ``holder`` with a dot."""
    value = holder.get(key)
    return value if isinstance(value, str) else _fail(holder, key, at, "text")


def require_object(holder: Obj, key: str, at: str = "") -> Obj:
    """Return an object, or raise ``WrongShapeError``."""
    value = holder.get(key)
    return value if isinstance(value, dict) else _fail(holder, key, at, "an object")


def require_array(holder: Obj, key: str, at: str = "") -> list[Json]:
    """Return an array, or raise ``WrongShapeError``."""
    value = holder.get(key)
    return value if isinstance(value, list) else _fail(holder, key, at, "an array")


def require_number(holder: Obj, key: str, at: str = "") -> int | float:
    """Return a finite number (not a boolean) a float can hold, or raise ``WrongShapeError``."""
    value = holder.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:
            return value
        raise unknown_value(at + key, as_json(value), "a finite number")
    return _fail(holder, key, at, "a number")


def require_whole_number(holder: Obj, key: str, at: str, default: int) -> int:
    """Return a whole number, ``default`` if missing, or raise ``WrongShapeError``."""
    value = holder.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(at + key, value, "a whole number")
    return value


def optional_text(holder: Obj, key: str, at: str = "") -> str | None:
    """Return a text; ``None`` if it is missing, null or empty."""
    return require_text(holder, key, at) or None if holder.get(key) is not None else None


def optional_object(holder: Obj, key: str, at: str = "") -> Obj:
    """Return an object; an empty one if it is missing or null."""
    return require_object(holder, key, at) if holder.get(key) is not None else {}


def optional_array(holder: Obj, key: str, at: str = "") -> list[Json]:
    """Return an array; an empty one if it is missing or null."""
    return require_array(holder, key, at) if holder.get(key) is not None else []


def objects(values: list[Json], at: str) -> Iterator[tuple[str, Obj]]:
    """Yield each element of an array of objects with its path and a final dot."""
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise wrong_type(f"{at}[{index}]", value, "an object")
        yield f"{at}[{index}].", value


def parsed(text: str, field: str) -> Json:
    """Return the value of a field's JSON text, or raise ``WrongShapeError``."""
    value = loads(text)
    if value is None and text.strip() != "null":
        raise WrongShapeError(
            f'`{field}` is the text "{text[:MAX_SHOWN]}", expected JSON as text or as it is'
        )
    return value


def unpacked(holder: Obj, key: str, at: str = "") -> Json:
    """Return a field's value, parsed if it is JSON text; raise ``WrongShapeError`` if invalid."""
    value = holder.get(key)
    return parsed(value, at + key) if isinstance(value, str) and value.strip() else value


def unpacked_object(holder: Obj, key: str) -> Obj:
    """Return an object that may be JSON text; an empty one if it is missing, null or empty."""
    value = unpacked(holder, key)
    if not isinstance(value, dict) and value not in (None, ""):
        raise wrong_type(key, value, "an object, or its JSON as text")
    return value if isinstance(value, dict) else {}


def unpacked_array(holder: Obj, key: str) -> list[Json] | None:
    """Return an array that may be JSON text; ``None`` if it is missing or null."""
    value = unpacked(holder, key)
    if not isinstance(value, list | None):
        raise wrong_type(key, value, "an array")
    return value


def as_json(value: Json) -> str:
    """Return a value as JSON text, with all its characters as they are."""
    return json.dumps(value, ensure_ascii=False)


def as_text(value: Json) -> str:
    """Return a text unchanged, any other value as JSON."""
    return value if isinstance(value, str) else as_json(value)


def loads(text: str) -> Json:
    """Return the value of JSON text; ``None`` if invalid, too deep, or with NaN or Infinity."""
    try:
        value = cast("Json", json.loads(text, parse_constant=_reject_constant))
    except (ValueError, RecursionError):
        return None
    return None if is_deep(value) else value


def digest(value: Json) -> str:
    """Return the MD5 of a value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.md5(text.encode()).hexdigest()


def without_nulls(holder: Obj) -> Obj:
    """Return the object without its null values."""
    return {key: value for key, value in holder.items() if value is not None}


def _holders(value: Json) -> list[Json]:
    match value:
        case dict():
            return [inner for inner in value.values() if isinstance(inner, dict | list)]
        case list():
            return [inner for inner in value if isinstance(inner, dict | list)]
        case _:
            return []


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _fail(holder: Obj, key: str, at: str, expected: str) -> NoReturn:
    if key not in holder:
        raise missing(at + key, expected)
    raise wrong_type(at + key, holder[key], expected)
