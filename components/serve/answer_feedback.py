"""Feedback about an answer by its id, which says whose it is: no other key is needed."""

import math
import time
from typing import cast

from components.receive.client_tokens import Token
from components.receive.openapi import FEEDBACK
from components.schema import Json
from components.serve import body_fields, openai_error, response_id
from components.serve.body_fields import Obj
from components.serve.openai_error import OpenAiError

KINDS = cast("list[str]", cast("Obj", cast("Obj", FEEDBACK["properties"])["kind"])["enum"])
EXPECTED = {
    "thumb": "up or down",
    "rating": "a number within the `scale` beside it, [lowest, highest]",
    "choice": "{'chosen': ..., 'rejected': ...} with two response ids or two assistant messages",
    "correction": "an assistant message, {'role': 'assistant', 'content': ...}",
    "regenerate": "true or the id of the new response",
    "comment": "text",
    "outcome": "{'name': ..., 'value': ...} with true or false, a number or text",
}
TYPES = {"comment": str | None, "actor_id": str | int | None, "user": str | int | None}
KEPT = ("response_id", "kind", "value", "comment", "scale", "metadata")


def read(content: bytes, key: bytes, token: Token) -> tuple[str, str, Obj]:
    """Return the workload, the answer's id, and the record as the receiver takes it.

    Raises:
        OpenAiError: The body is no feedback, or about an answer that this client was not given.
    """
    body = body_fields.read_object(content)
    answer_id = body.get("response_id")
    if not isinstance(answer_id, str):
        raise OpenAiError(
            400, "`response_id` is missing, expected the `id` of an answer", param="response_id"
        )
    if body.get("kind") not in KINDS:
        raise OpenAiError(400, f"`kind` is not one of {', '.join(KINDS)}", param="kind")
    if "value" not in body:
        raise OpenAiError(
            400,
            "`value` is missing, expected for example up or down for a thumb",
            param="value",
        )
    if not _fits(str(body["kind"]), body["value"], body.get("scale")):
        shown = openai_error.shown(body["value"])
        raise OpenAiError(
            400,
            f"`value` of a {body['kind']} is {shown}, expected {EXPECTED[str(body['kind'])]}",
            param="value",
        )
    for name, types in TYPES.items():
        if not isinstance(found := body.get(name), types):
            shown = openai_error.shown(found)
            raise OpenAiError(400, f"`{name}` is {shown}, expected text", param=name)
    known = response_id.verify(key, token.client_id, answer_id)
    if known is None:
        raise OpenAiError(
            404,
            f"there is no answer {answer_id[:200]!r} to this client; send the `id` of an "
            "answer as it came, with the token that asked",
            param="response_id",
            code="response_not_found",
        )
    openai_error.require_scope(token, known.workload, "response_id")
    if not known.is_stored:
        raise OpenAiError(
            404,
            "the answer was not logged, because its request had `store: false`; there is "
            "nothing that the feedback could be about",
            param="response_id",
            code="response_not_stored",
        )
    actor = body.get("actor_id") or body.get("user") or token.client_id
    record: Obj = {
        **{name: body[name] for name in KEPT if name in body},
        "timestamp": time.time(),
        "workload_id": known.workload,
        "client_id": token.client_id,
        "actor_id": str(actor),
    }
    return known.workload, answer_id, record


def _fits(kind: str, value: Json, scale: Json) -> bool:
    """Return whether a kind of feedback may have a value, as `sql/temp/feedback.sql` reads it."""
    match kind, value:
        case "thumb" | "rating" | "correction" | "comment", None:
            return True
        case "thumb", "up" | "down":
            return True
        case "rating", (int() | float()) as rating:
            match scale:
                case [(int() | float()) as low, (int() | float()) as high]:
                    is_finite = math.isfinite(high - low)
                    are_numbers = not any(isinstance(each, bool) for each in (rating, low, high))
                    return are_numbers and is_finite and low < high and low <= rating <= high
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
        case "outcome", {"name": str(), "value": bool() | int() | float() | str()}:
            return True
        case _:
            return False
