"""Models and schemas of bodies and responses for ``/openapi.json``; the routes parse bodies."""

from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

from components.schema import Json

Schema = dict[str, Json]

FeedbackKind: TypeAlias = Literal[
    "thumb", "rating", "choice", "correction", "regenerate", "comment", "outcome"
]
KINDS = get_args(FeedbackKind)


class StatedFeedback(BaseModel):
    """What feedback says, whatever it is about."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: FeedbackKind
    value: Any
    """`up` or `down` for a thumb, a message for a correction, ...; `null` takes the actor's thumb,
    rating, correction or comment back."""
    scale: Any = None
    """`[lowest, highest]` of a rating."""
    comment: str | None = None


class _Record(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, extra="allow")

    timestamp: float | str
    """Unix seconds or ISO 8601; without an offset it is UTC."""
    workload_id: str = Field(min_length=1)
    client_id: Any = None
    """Ignored: the token determines the client."""


class InteractionRecord(_Record):
    """A request and its response, as in OpenAI chat completions."""

    request: Annotated[dict[str, Any], Field(json_schema_extra={"required": ["messages"]})]
    """`messages`, `tools`, `model`, ..."""
    response: dict[str, Any]
    """`id`, `choices`, `usage`, ..."""


class FeedbackRecord(StatedFeedback, _Record):
    """What a person or program says about a response or a conversation; it names one of them."""

    response_id: str | None = None
    """The `id` of the response."""
    conversation_id: str | None = None
    target_id: str | None = None
    """An id that is one of the two."""
    actor_id: str
    """The person or program that gave it."""


_ERROR: Schema = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {"type": "string", "description": "What was found, and what was expected."}
    },
}
_ACCEPTED: Schema = {
    "type": "object",
    "required": ["accepted"],
    "properties": {
        "accepted": {"type": "integer", "description": "Records on disk."},
        "warnings": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Why records that are on disk will be quarantined; absent if none will.",
        },
    },
}
_REASONS = {
    400: "The body can't be read.",
    401: "The token is missing, wrong or expired.",
    403: "The token is not for this kind, or not for this workload.",
    408: "The request did not arrive in time.",
    413: "The body is too long.",
    415: "The encoding is unknown.",
    422: "A record has missing keys.",
    429: "This client has too many bytes in flight, or its token's quota is used up.",
    503: "There is no room, or the disk fails.",
}


def records(model: type[BaseModel]) -> Schema:
    """Return the schema of a route for one record, an array of records, or one per line."""
    schema = model.model_json_schema()
    one_or_many: Schema = {"anyOf": [schema, {"type": "array", "items": schema}]}
    content: Schema = {
        "application/json": {"schema": one_or_many},
        "application/x-ndjson": {"schema": {"type": "string", "description": "One per line."}},
    }
    return _operation(content, {"application/json": {"schema": _ACCEPTED}}, _ERROR)


def otlp() -> Schema:
    """Return the schema of a route for OTLP/HTTP."""
    anything: Schema = {"schema": {"type": "object"}}
    binary: Schema = {"schema": {"type": "string", "format": "binary"}}
    both: Schema = {"application/json": anything, "application/x-protobuf": binary}
    status: Schema = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
    }
    return _operation(both, both, status)


def _operation(body: Schema, accepted: Schema, error: Schema) -> Schema:
    answers: Schema = {
        "200": {"description": "The whole body is on disk.", "content": accepted},
    }
    for status, reason in _REASONS.items():
        answer: Schema = {
            "description": reason,
            "content": {"application/json": {"schema": error}},
        }
        if status in {429, 503}:
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        answers[str(status)] = answer
    return {
        "security": [{"token": []}],
        "requestBody": {"required": True, "content": body},
        "responses": answers,
    }


SECURITY: Schema = {"token": {"type": "http", "scheme": "bearer"}}
