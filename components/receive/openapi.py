"""Schemas of bodies and responses for ``/openapi.json``; the routes parse bodies themselves."""

from components.schema import Json

Schema = dict[str, Json]

_TIMESTAMP: Schema = {
    "description": "Unix seconds or ISO 8601; without an offset it is UTC.",
    "anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}],
}
_CLIENT: Schema = {"type": "string", "description": "Ignored: the token determines the client."}

INTERACTION: Schema = {
    "type": "object",
    "required": ["timestamp", "workload_id", "request", "response"],
    "additionalProperties": True,
    "properties": {
        "timestamp": _TIMESTAMP,
        "workload_id": {"type": "string", "minLength": 1},
        "client_id": _CLIENT,
        "request": {
            "type": "object",
            "description": "As in OpenAI chat completions: `messages`, `tools`, `model`, ...",
            "required": ["messages"],
        },
        "response": {
            "type": "object",
            "description": "As in OpenAI chat completions: `id`, `choices`, `usage`, ...",
        },
    },
    "example": {
        "timestamp": 1760000000,
        "workload_id": "support",
        "request": {"messages": [{"role": "user", "content": "Where is my parcel?"}]},
        "response": {
            "id": "chatcmpl-1",
            "choices": [{"message": {"role": "assistant", "content": "On its way."}}],
        },
    },
}

FEEDBACK: Schema = {
    "type": "object",
    "required": ["timestamp", "workload_id", "actor_id", "kind", "value"],
    "additionalProperties": True,
    "anyOf": [
        {"required": ["response_id"]},
        {"required": ["conversation_id"]},
        {"required": ["target_id"]},
    ],
    "properties": {
        "timestamp": _TIMESTAMP,
        "workload_id": {"type": "string", "minLength": 1},
        "client_id": _CLIENT,
        "response_id": {"type": "string", "description": "The `id` of the response."},
        "conversation_id": {"type": "string"},
        "target_id": {"type": "string", "description": "An id that is one of the two."},
        "actor_id": {"type": "string", "description": "The person or program that gave it."},
        "kind": {
            "enum": [
                "thumb",
                "rating",
                "choice",
                "correction",
                "regenerate",
                "comment",
                "outcome",
            ]
        },
        "value": {
            "description": "`up` or `down` for a thumb, a message for a correction, ...; `null`"
            " takes the actor's thumb, rating, correction or comment back."
        },
    },
    "example": {
        "timestamp": 1760000060,
        "workload_id": "support",
        "response_id": "chatcmpl-1",
        "actor_id": "ann",
        "kind": "thumb",
        "value": "down",
    },
}

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


def records(schema: Schema) -> Schema:
    """Return the schema of a route for one record, an array of records, or one per line."""
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
