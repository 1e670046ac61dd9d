"""Read JSON field by field, with errors that name the field and what its format expects."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TypeAlias, cast

from components.collect.source import ParsedRecord, RejectedRecord, SourceRow
from components.schema import Json, kind_of

Obj: TypeAlias = dict[str, Json]
"""A JSON object."""

DEEPEST = 200
"""Levels that a record may nest: Python writes no JSON of a thousand."""

MOST_SHOWN = 80
"""Characters of a wrong value that a reason quotes."""


class WrongShapeError(ValueError):
    """A field is not what its format says; the message names it, what it is and what it wants."""

    def __init__(self, message: str) -> None:
        # What it quotes may hold half a surrogate pair, which no file and no table takes.
        super().__init__(message.encode(errors="backslashreplace").decode())


def each(
    rows: Iterable[SourceRow],
    convert: Callable[[SourceRow], Iterable[ParsedRecord | RejectedRecord]],
) -> Iterator[ParsedRecord | RejectedRecord]:
    """Convert row by row; a row whose conversion fails is refused with the reason."""
    for row in rows:
        try:
            check_depth(row)
            converted = list(convert(row))
        except WrongShapeError as error:
            converted = [RejectedRecord(row, str(error))]
        yield from converted


def check_depth(row: SourceRow) -> None:
    """Refuse a record that was made to exhaust the stack of whoever reads it."""
    if row.text.count("{") + row.text.count("[") > DEEPEST and is_deep(row.value):
        raise WrongShapeError(f"the record is nested deeper than {DEEPEST} levels")


def is_deep(value: Json) -> bool:
    """Tell whether a value nests deeper than ``DEEPEST`` levels."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _holders(one)]
        if not level:
            return False
    return True


def part(row: SourceRow, value: Obj) -> SourceRow:
    """Cut a part out of a row: it keeps the row's place and has a text of its own."""
    text = json.dumps(value, ensure_ascii=False)
    if not _is_unicode(text):  # half a surrogate pair, which JSON may spell but UTF-8 can't
        text = json.dumps(value)
    return SourceRow(row.place, text, value)


def wrong(field: str, found: Json, wanted: str) -> WrongShapeError:
    """Say that ``field`` is of the wrong type."""
    return WrongShapeError(f"`{field}` is {kind_of(found)}, wants {wanted}")


def unknown(field: str, found: str, wanted: str) -> WrongShapeError:
    """Say that ``field`` has the right type and a value that means nothing."""
    return WrongShapeError(f'`{field}` is "{found[:MOST_SHOWN]}", wants {wanted}')


def missing(field: str, wanted: str) -> WrongShapeError:
    """Say that ``field`` is not there."""
    return WrongShapeError(f"`{field}` is missing, wants {wanted}")


def want_text(holder: Obj, key: str, at: str = "") -> str:
    """Read a text that must be there; ``at`` is the path of ``holder``, with its final dot."""
    value = holder.get(key)
    return value if isinstance(value, str) else _fail(holder, key, at, "text")


def want_object(holder: Obj, key: str, at: str = "") -> Obj:
    """Read an object that must be there."""
    value = holder.get(key)
    return value if isinstance(value, dict) else _fail(holder, key, at, "an object")


def want_array(holder: Obj, key: str, at: str = "") -> list[Json]:
    """Read an array that must be there."""
    value = holder.get(key)
    return value if isinstance(value, list) else _fail(holder, key, at, "an array")


def want_number(holder: Obj, key: str, at: str = "") -> int | float:
    """Read a number that must be there; a boolean is none."""
    value = holder.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return _fail(holder, key, at, "a number")


def may_text(holder: Obj, key: str, at: str = "") -> str | None:
    """Read a text that may be missing, null or empty: then ``None``."""
    return want_text(holder, key, at) or None if holder.get(key) is not None else None


def may_object(holder: Obj, key: str, at: str = "") -> Obj:
    """Read an object that may be missing or null: then an empty one."""
    return want_object(holder, key, at) if holder.get(key) is not None else {}


def may_array(holder: Obj, key: str, at: str = "") -> list[Json]:
    """Read an array that may be missing or null: then an empty one."""
    return want_array(holder, key, at) if holder.get(key) is not None else []


def objects(values: list[Json], at: str) -> Iterator[tuple[str, Obj]]:
    """Go through an array whose elements must be objects, each with its path and a final dot."""
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise wrong(f"{at}[{index}]", value, "an object")
        yield f"{at}[{index}].", value


def parsed(text: str, field: str) -> Json:
    """Read JSON that a field holds as text."""
    found = loads(text)
    if found is None and text.strip() != "null":
        raise WrongShapeError(
            f'`{field}` is the text "{text[:MOST_SHOWN]}", wants JSON as text or as it is'
        )
    return found


def unpacked(holder: Obj, key: str, at: str = "") -> Json:
    """Read a field that may hold its JSON as text, which must then be sound."""
    value = holder.get(key)
    return parsed(value, at + key) if isinstance(value, str) and value.strip() else value


def loads(text: str) -> Json:
    """Read JSON; ``None`` for what is none, is too deep or has numbers that JSON does not know."""
    try:
        read = cast("Json", json.loads(text, parse_constant=_no_number))
    except (ValueError, RecursionError):
        return None
    return None if is_deep(read) else read


def digest(value: Json) -> str:
    """Name a value by its content, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.md5(text.encode()).hexdigest()


def without_nulls(holder: Obj) -> Obj:
    """Leave out the keys that say nothing."""
    return {key: value for key, value in holder.items() if value is not None}


def _holders(value: Json) -> list[Json]:
    """Give the objects and arrays directly within a value."""
    match value:
        case dict():
            return [one for one in value.values() if isinstance(one, dict | list)]
        case list():
            return [one for one in value if isinstance(one, dict | list)]
        case _:
            return []


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _fail(holder: Obj, key: str, at: str, wanted: str) -> NoReturn:
    if key not in holder:
        raise missing(at + key, wanted)
    raise wrong(at + key, holder[key], wanted)
