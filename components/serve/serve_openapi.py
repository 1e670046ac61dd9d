"""The gateway's OpenAPI description, served at ``/openapi.json``."""

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from components.receive.openapi import SECURITY
from components.serve.answer_feedback import AnswerFeedback
from components.serve.body_fields import Obj
from components.serve.chat_request import Chat, Completion
from components.serve.responses_request import Responses

_REFERENCE = "#/components/schemas/{model}"

_ERROR: Obj = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What was found and expected."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_REASONS = {
    400: "The body is refused, or the context does not fit.",
    401: "The token is missing, wrong or expired.",
    403: "The token is not for this kind of request, or not for this workload.",
    404: "No workload of this name is served, or there is no such answer.",
    405: "The method is not allowed.",
    408: "The request did not arrive in time.",
    413: "The body is too long.",
    415: "The encoding is unknown.",
    429: "The client has too many requests under way, or its token's quota is used up.",
    502: "The engine failed.",
    503: "There is no room in the spool, no replica, or too much to do.",
    504: "The engine did not answer in time.",
}

_ANYTHING: Obj = {"type": "object"}
_EVENT: Obj = {
    "type": "object",
    "properties": {
        "data": {"type": "string", "description": "JSON of a chunk or an event, or `[DONE]`."}
    },
}
_POSTS: dict[str, tuple[type[BaseModel], str]] = {
    "/v1/chat/completions": (Chat, "Answer a chat."),
    "/v1/responses": (Responses, "Answer a chat in the Responses API's form, without memory."),
    "/v1/completions": (Completion, "Complete a prompt, which is sent to the model as it is."),
    "/v1/feedback": (AnswerFeedback, "Store feedback about an answer."),
}
_GETS = {
    "/v1/models": "List the workloads.",
    "/v1/routes": "Say who serves which workload.",
    "/healthz": "Say that the process answers.",
    "/readyz": "Say whether requests succeed.",
}


def document(receiver: Obj | None = None) -> Obj:
    """Return the description; with the receiver's where that is mounted."""
    _, schemas = models_json_schema(
        [(model, "validation") for model, _ in _POSTS.values()], ref_template=_REFERENCE
    )
    others = (receiver or {}).get("paths")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flywheel gateway",
            "version": "1",
            "description": "OpenAI's API over the champions of the workloads.",
        },
        "paths": {
            **(others if isinstance(others, dict) else {}),
            **{path: {"post": _operation(about, model)} for path, (model, about) in _POSTS.items()},
            **{path: {"get": _operation(about)} for path, about in _GETS.items()},
        },
        "components": {"securitySchemes": {**SECURITY}, "schemas": schemas["$defs"]},
    }


def _operation(summary: str, body: type[BaseModel] | None = None) -> Obj:
    is_open = summary in (_GETS["/healthz"], _GETS["/readyz"])
    content: Obj = {"application/json": {"schema": _ANYTHING}}
    if body not in (None, AnswerFeedback):
        content["text/event-stream"] = {"schema": _EVENT}
    error: Obj = {"application/json": {"schema": _ANYTHING if is_open else _ERROR}}
    answers: Obj = {"200": {"description": "The answer.", "content": content}}
    for status, reason in _REASONS.items():
        answers[str(status)] = {"description": reason, "content": error}
    operation: Obj = {"summary": summary, "responses": answers}
    if body is not None:
        schema: Obj = {"$ref": _REFERENCE.format(model=body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    if not is_open:
        operation["security"] = [{"token": []}]
    return operation
