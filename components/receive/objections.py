"""What collecting will object to in a record, as far as the record alone shows.

The rules are those of ``sql/temp/refused_interactions.sql`` and ``sql/temp/feedback.sql``; of a
time as text only its date is looked at. A record with an objection is stored all the same: its
sender is warned, and quarantine keeps its bytes.
"""

import datetime
import json
import math
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from components.receive.openapi import KINDS
from components.schema import Json, kind_of

Kind: TypeAlias = Literal["interactions", "feedback"]

TARGETS = ("response_id", "conversation_id", "target_id")
"""What feedback is about; ``target_id`` is for senders that don't know which of the two it is."""

EXPECTED = {
    "thumb": "up or down",
    "rating": "a number within the `scale` beside it, [lowest, highest]",
    "choice": "{'chosen': ..., 'rejected': ...} with two response ids or two assistant messages",
    "correction": "an assistant message, {'role': 'assistant', 'content': ...}",
    "regenerate": "true or the id of the new response",
    "comment": "text",
    "outcome": "{'name': ..., 'value': ...} with true or false, a number or text",
}

MAX_SHOWN = 80  # characters of a value

_TIME = re.compile(r"\s*0{0,9}(\d{4})([-/ \\])(\d{1,2})\2(\d{1,2})([T\s].*)?", re.DOTALL | re.ASCII)


def objection(kind: Kind, record: Mapping[str, Json], latest: float) -> str | None:
    """Return why a record with all keys will be quarantined; ``None`` if nothing shows that.

    ``latest`` is the latest time (unix seconds) that a record may have.
    """
    workload = record["workload_id"]
    if not isinstance(workload, str):
        return f"`workload_id` is {kind_of(workload)}, expected text"
    if not workload.strip(" ") and kind == "interactions":
        return "`workload_id` is empty"
    rest = _in_feedback(record) if kind == "feedback" else _in_interaction(record)
    return _in_time(record["timestamp"], latest) or rest


def fits(kind: str, value: Json, scale: Json) -> bool:
    """Return whether a kind of feedback may have a value."""
    match kind, value:
        case "thumb" | "rating" | "correction" | "comment", None:
            return True
        case "thumb", "up" | "down":
            return True
        case "rating", (int() | float()) as rating:
            match scale:
                case [(int() | float()) as low, (int() | float()) as high]:
                    are_numbers = not any(isinstance(each, bool) for each in (rating, low, high))
                    is_scale = are_numbers and low < high and _is_finite(low, high)
                    return is_scale and low <= rating <= high
                case _:
                    return False
        case "choice", {"chosen": chosen, "rejected": rejected, **others}:
            is_pair = isinstance(chosen, str) and isinstance(rejected, str)
            is_pair |= isinstance(chosen, dict) and isinstance(rejected, dict)
            return is_pair and isinstance(others.get("tie"), bool | None)
        case "correction", {"role": "assistant", **others}:
            has_calls = isinstance(others.get("tool_calls"), list)
            return has_calls or isinstance(others.get("content"), str | list)
        case "regenerate", str() | True:
            return True
        case "comment", str():
            return True
        case "outcome", {"name": str(), "value": (int() | float()) as score}:
            return _is_finite(score, 0)
        case "outcome", {"name": str(), "value": str()}:
            return True
        case _:
            return False


def _is_finite(low: float, high: float) -> bool:
    try:
        return math.isfinite(float(high) - float(low))
    except OverflowError:  # a whole number of too many digits
        return False


def _in_time(time: Json, latest: float) -> str | None:
    if isinstance(time, str) and _is_time(time):
        return None
    if isinstance(time, bool) or not isinstance(time, int | float):
        return f"`timestamp` is {_shown(time)}, expected unix seconds or ISO 8601 text"
    if time > latest:
        return (
            f"`timestamp` {_shown(time)} lies more than a day in the future, expected unix "
            "seconds, not milliseconds"
        )
    return f"`timestamp` {_shown(time)} lies before 1970" if time < 0 else None


def _is_time(text: str) -> bool:
    """Return whether a text may be a time: begins with a date, which is all that is looked at."""
    if (match := _TIME.fullmatch(text)) is None:
        return text.strip().lower() == "epoch"
    try:
        datetime.date(int(match[1]), int(match[3]), int(match[4]))
    except (ValueError, OverflowError):
        return False
    return True


def _in_interaction(record: Mapping[str, Json]) -> str | None:
    request, response = record["request"], record["response"]
    if not isinstance(request, dict):
        return f"`request` is {kind_of(request)}, expected an object"
    if not isinstance(request.get("messages"), list):
        found = kind_of(request["messages"]) if "messages" in request else "missing"
        return f"`request.messages` is {found}, expected an array"
    if not isinstance(response, dict):
        return f"`response` is {kind_of(response)}, expected an object"
    return None


def _in_feedback(record: Mapping[str, Json]) -> str | None:
    named = [name for name in TARGETS if record.get(name) is not None]
    if len(named) != 1:
        return f"it names {' and '.join(named) or 'nothing'}, expected one of {', '.join(TARGETS)}"
    for name in (*named, "actor_id", "kind", "comment"):
        found = record.get(name)
        if not isinstance(found, str) and (found is not None or name != "comment"):
            return f"`{name}` is {kind_of(found)}, expected text"
    kind, value = str(record["kind"]), record["value"]
    if kind not in KINDS:
        return f"`kind` is {_shown(kind)}, expected {', '.join(KINDS)}"
    if not fits(kind, value, record.get("scale")):
        return f"`value` of a {kind} is {_shown(value)}, expected {EXPECTED[kind]}"
    return None


def _shown(value: Json) -> str:
    if isinstance(value, dict | list):
        return kind_of(value)
    if isinstance(value, str):
        value = value[:MAX_SHOWN]
    return json.dumps(value)[:MAX_SHOWN]
