"""Read the values of OTLP's JSON form: attributes, nested values, times and ids."""

from components.collect.sources import shape
from components.collect.sources.shape import Obj
from components.schema import Json

DEEPEST = 64
"""Levels of nesting that an attribute may have; a value below was made to do harm."""


def attributes(holder: Obj, at: str) -> Obj:
    """Read the attributes of a resource, span, event or log record by name."""
    return _entries(shape.may_array(holder, "attributes", at), f"{at}attributes", 0)


def value(wrapped: Json, at: str, depth: int = 0) -> Json:
    """Unwrap an ``AnyValue``; integers may be text, as protobuf's JSON form has 64-bit ones."""
    if depth > DEEPEST:
        raise shape.WrongShapeError(f"`{at}` is nested deeper than {DEEPEST} levels")
    match wrapped:
        case None | {"stringValue": None}:
            return None
        case {"intValue": str(text)} if text.lstrip("-").isdecimal() and len(text) < 21:
            return int(text)
        case {"arrayValue": dict(array)}:
            values = shape.may_array(array, "values", f"{at}.arrayValue.")
            return [value(one, f"{at}[{n}]", depth + 1) for n, one in enumerate(values)]
        case {"kvlistValue": dict(entries)}:
            values = shape.may_array(entries, "values", f"{at}.kvlistValue.")
            return _entries(values, at, depth + 1)
        case {"stringValue": str(plain)} | {"bytesValue": str(plain)}:
            return plain
        case {"boolValue": bool(plain)} | {"intValue": int(plain)}:
            return plain
        case {"doubleValue": int() | float() | str() as plain}:
            return plain
        case dict() if not wrapped:
            return None
        case _:
            raise shape.wrong(at, wrapped, "an object with one of OTLP's typed values")


def seconds(holder: Obj, keys: tuple[str, ...], at: str) -> float:
    """Read the first of the times that is set, given in nanoseconds, as unix seconds.

    To the microsecond, which is what a float can hold of them.
    """
    for key in keys:
        nanoseconds = holder.get(key)
        match nanoseconds:
            case None | 0 | "0" | "":
                continue
            case str() if nanoseconds.isdecimal() and len(nanoseconds) < 21:
                return int(nanoseconds) // 1000 / 1e6
            case int() if not isinstance(nanoseconds, bool):
                return nanoseconds // 1000 / 1e6
            case _:
                raise shape.wrong(at + key, nanoseconds, "nanoseconds as digits")
    raise shape.missing(at + keys[0], "nanoseconds as digits")


def duration_ms(holder: Obj, began: str, ended: str, at: str) -> float | None:
    """Give the milliseconds between two times; ``None`` where one is not set, or not after it."""
    try:
        seconds_ = seconds(holder, (ended,), at) - seconds(holder, (began,), at)
    except shape.WrongShapeError:  # a call is a call without it
        return None
    return round(1000 * seconds_, 3) if seconds_ >= 0 else None


def _entries(entries: list[Json], at: str, depth: int) -> Obj:
    read: Obj = {}
    for path, entry in shape.objects(entries, at):
        key = shape.want_text(entry, "key", path)
        read[key] = value(entry.get("value"), f"{at}[{key}]", depth)
    return read
