"""Feedback about an answer by its id, which says whose it is: no other key is needed."""

import time
from typing import cast

from components.receive.client_tokens import Token
from components.receive.openapi import FEEDBACK
from components.serve import chat_request, response_id
from components.serve.chat_request import Obj, OpenAiError

KINDS = cast("list[str]", cast("Obj", cast("Obj", FEEDBACK["properties"])["kind"])["enum"])
KEPT = ("response_id", "kind", "value", "comment", "scale", "metadata")


def read(content: bytes, key: bytes, token: Token) -> tuple[str, str, Obj]:
    """Return the workload, the answer's id, and the record as the receiver takes it.

    Raises:
        OpenAiError: The body is no feedback, or about an answer that this client was not given.
    """
    body = chat_request.read_object(content)
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
    known = response_id.verify(key, token.client_id, answer_id)
    if known is None:
        raise OpenAiError(
            404,
            f"there is no answer {answer_id[:200]!r} to this client; send the `id` of an "
            "answer as it came, with the token that asked",
            param="response_id",
            code="response_not_found",
        )
    chat_request.require_scope(token, known.workload, "response_id")
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
        "actor_id": actor if isinstance(actor, str) else token.client_id,
    }
    return known.workload, answer_id, record
