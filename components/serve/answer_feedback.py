"""Feedback about an answer by its id, which says whose it is: no other key is needed."""

import time

from components.receive import objections
from components.receive.client_tokens import Token
from components.receive.objections import EXPECTED, KINDS
from components.serve import body_fields, openai_error, response_id
from components.serve.body_fields import Obj
from components.serve.openai_error import OpenAiError

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
    if not objections.fits(str(body["kind"]), body["value"], body.get("scale")):
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
