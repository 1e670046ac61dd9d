"""Take the body of ``/v1/interactions`` or ``/v1/feedback`` apart.

Here only what could never be loaded is turned down: no JSON, no objects, keys that are missing.
Whether a record is sound is judged by collect, with the rules that it has for every source.
"""

import json
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic_core import from_json

from components.receive.refusal import RefusedError
from components.receive.tokens import Token
from components.schema import Json, kind_of

Kind: TypeAlias = Literal["interactions", "feedback"]

KEYS: dict[Kind, tuple[str, ...]] = {
    "interactions": ("timestamp", "workload_id", "request", "response"),
    "feedback": ("timestamp", "workload_id", "actor_id", "kind", "value"),
}
"""Keys of every record, ``client_id`` apart: the token says that."""

TARGETS = ("response_id", "conversation_id", "target_id")
"""What feedback is about: ``target_id`` is for senders who don't know which of the two it is."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one body: one JSON text, and how many they are."""

    body: bytes
    count: int


def read(kind: Kind, content: bytes) -> Records:
    """Read one object, an array of them, or one a line.

    Raises:
        RefusedError: 400 for what is no JSON, 422 for what is no record; nothing of it is taken.
    """
    if not content.strip():
        raise RefusedError(400, "the body is empty, wants a JSON object, an array, or one a line")
    try:
        value: Json = from_json(content, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        return _lines(kind, content, error)
    if not isinstance(value, list):
        _check(kind, "the body", value)
        return Records(content, 1)
    for number, one in enumerate(value, start=1):
        _check(kind, f"record {number}", one)
    return Records(content, len(value))


def require_workloads(body: bytes, token: Token) -> None:
    """Check that all records of a body, as ``read`` returned it, are of a token's workloads.

    Of a key that a record has twice, one reader takes the first and another the last: all count.

    Raises:
        RefusedError: 403, naming the record; nothing of the body is taken.
    """
    root: _Pairs | list[_Pairs] = json.loads(body, object_pairs_hook=_Pairs)
    for number, record in enumerate([root] if isinstance(root, _Pairs) else root, start=1):
        for key, value in record:
            if key == "workload_id" and not token.may_send_for(value):
                raise RefusedError(
                    403,
                    f"record {number} is of the workload {json.dumps(value)[:80]}, and the token "
                    f"{token.id} may send for {', '.join(token.workloads)}",
                )


class _Pairs(list[tuple[str, object]]):
    """A JSON object with all its keys, also those that it has twice."""


def _lines(kind: Kind, content: bytes, why_not_whole: ValueError) -> Records:
    """Read a body that is no JSON as a whole: each line, if already the first one is."""
    texts: list[bytes] = []
    for number, text in enumerate(content.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            value: Json = from_json(text, allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            found = f"line {number} is not JSON: {error}" if texts else None
            reason = found or f"the body is not JSON: {why_not_whole}"
            raise RefusedError(400, reason) from error
        _check(kind, f"line {number}", value)
        texts.append(text)
    return Records(b"[" + b",".join(texts) + b"]", len(texts))


def _check(kind: Kind, place: str, value: Json) -> None:
    if not isinstance(value, dict):
        raise RefusedError(422, f"{place} is {kind_of(value)}, wants an object")
    missing = [key for key in KEYS[kind] if key not in value]
    if kind == "feedback" and not any(key in value for key in TARGETS):
        missing.append(" or ".join(TARGETS))
    if missing:
        raise RefusedError(422, f"{place}: missing keys: {', '.join(missing)}")
