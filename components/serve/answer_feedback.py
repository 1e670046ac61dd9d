"""Feedback about an answer by its id, which says whose it is: no other key is needed."""

import time
from typing import cast

from pydantic import ConfigDict

from components.receive import objections
from components.receive.client_tokens import Token
from components.receive.objections import EXPECTED
from components.receive.openapi import StatedFeedback
from components.schema import Json
from components.serve import body_fields, openai_error, response_id
from components.serve.body_fields import Obj
from components.serve.openai_error import OpenAiError, invalid, shown

KEPT = ("response_id", "kind", "value", "comment", "scale", "metadata")


class AnswerFeedback(StatedFeedback):
    """``POST /v1/feedback``."""

    model_config = ConfigDict(strict=True)

    response_id: str
    """The `id` of the answer."""
    actor_id: str | int | None = None
    """Who gave it; the client if left out."""
    user: str | int | None = None


def read(content: bytes, key: bytes, token: Token) -> tuple[str, str, Obj]:
    """Return the workload, the answer's id, and the record as the receiver takes it.

    Raises:
        OpenAiError: The body is no feedback, or about an answer that this client was not given.
    """
    body = body_fields.read_object(content)
    feedback = body_fields.check(AnswerFeedback, body)
    kind, value, answer_id = feedback.kind, cast("Json", feedback.value), feedback.response_id
    if not objections.fits(kind, value, feedback.scale):
        reason = f"it is {shown(value)} of a {kind}, expected {EXPECTED[kind]}"
        raise invalid("value", reason)
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
    actor = feedback.actor_id or feedback.user or token.client_id
    record: Obj = {
        **{name: body[name] for name in KEPT if name in body},
        "timestamp": time.time(),
        "workload_id": known.workload,
        "client_id": token.client_id,
        "actor_id": str(actor),
    }
    return known.workload, answer_id, record
