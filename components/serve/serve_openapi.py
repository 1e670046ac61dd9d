"""The gateway's OpenAPI description, served at ``/openapi.json``."""

from typing import cast

from components.receive.openapi import FEEDBACK, SECURITY
from components.schema import Json
from components.serve.body_fields import Obj
from components.serve.chat_request import MOST_STOPS, MOST_TOOLS, MOST_TOP_LOGPROBS, ROLES
from components.serve.responses_request import ITEMS

_SAID = cast("Obj", FEEDBACK["properties"])

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


def _optional(schema: Obj) -> Obj:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT_PART: Obj = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_FUNCTION_CALL: Obj = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "id": {"type": "string"},
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name", "arguments"],
            "properties": {
                "name": {"type": "string"},
                "arguments": {"type": "string", "description": "JSON text of an object."},
            },
        },
    },
}
_MESSAGE: Obj = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": [*ROLES]},
        "content": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": _TEXT_PART},
                {"type": "null"},
            ]
        },
        "tool_calls": {"type": "array", "items": _FUNCTION_CALL},
        "tool_call_id": {"type": "string"},
    },
}
_TOOL: Obj = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,64}$"},
                "description": {"type": "string"},
                "parameters": {"type": "object", "description": "JSON Schema."},
                "strict": {"type": ["boolean", "null"]},
            },
        },
    },
}
_FLAT_TOOL: Obj = {
    "type": "object",
    "required": ["type", "name"],
    "properties": {
        "type": {"const": "function"},
        "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,64}$"},
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"], "description": "JSON Schema."},
    },
}
_OF_RESPONSES = ("model", "temperature", "top_p", "stream", "store", "metadata", "user")
_SHARED: Obj = {
    "model": {"type": "string", "description": "The workload; routing rules may choose another."},
    "max_tokens": _optional({"type": "integer", "minimum": 1}),
    "temperature": {
        **_optional({"type": "number", "minimum": 0, "maximum": 2}),
        "description": "0 if left out, as in evaluations.",
    },
    "top_p": _optional({"type": "number", "minimum": 0, "maximum": 1}),
    "n": _optional({"const": 1}),
    "seed": _optional({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}),
    "stop": _optional(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "maxItems": MOST_STOPS,
                },
            ]
        }
    ),
    "stream": _optional({"type": "boolean"}),
    "stream_options": _optional(
        {"type": "object", "properties": {"include_usage": {"type": "boolean"}}}
    ),
    "store": {**_optional({"type": "boolean"}), "description": "`false`: it is not logged."},
    "metadata": _optional(
        {
            "type": "object",
            "maxProperties": 16,
            "additionalProperties": {"type": "string", "maxLength": 512},
        }
    ),
    "user": _optional({"type": "string"}),
}
_CHAT: Obj = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        **_SHARED,
        "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
        "tools": _optional({"type": "array", "items": _TOOL, "maxItems": MOST_TOOLS}),
        "tool_choice": _optional(
            {
                "anyOf": [
                    {"enum": ["none", "auto", "required"]},
                    {
                        "type": "object",
                        "required": ["type", "function"],
                        "properties": {
                            "type": {"const": "function"},
                            "function": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {"name": {"type": "string"}},
                            },
                        },
                    },
                ]
            }
        ),
        "parallel_tool_calls": _optional({"type": "boolean"}),
        "response_format": _optional(
            {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"enum": ["text", "json_object", "json_schema"]},
                    "json_schema": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "schema": {"type": "object"},
                        },
                    },
                },
            }
        ),
        "max_completion_tokens": _optional({"type": "integer", "minimum": 1}),
        "logprobs": _optional({"type": "boolean"}),
        "top_logprobs": _optional({"type": "integer", "minimum": 0, "maximum": MOST_TOP_LOGPROBS}),
    },
    "example": {
        "model": "support",
        "messages": [{"role": "user", "content": "Where is my parcel?"}],
    },
}
_RESPONSES: Obj = {
    "type": "object",
    "required": ["input"],
    "additionalProperties": False,
    "properties": {
        **{name: _SHARED[name] for name in _OF_RESPONSES},
        "input": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"type": {"enum": [*ITEMS, None]}},
                    },
                },
            ],
            "description": "The whole conversation: nothing is kept between requests.",
        },
        "instructions": _optional({"type": "string"}),
        "tools": _optional({"type": "array", "items": _FLAT_TOOL, "maxItems": MOST_TOOLS}),
        "tool_choice": _optional(
            {
                "anyOf": [
                    {"enum": ["none", "auto", "required"]},
                    {
                        "type": "object",
                        "required": ["type", "name"],
                        "properties": {
                            "type": {"const": "function"},
                            "name": {"type": "string"},
                        },
                    },
                ]
            }
        ),
        "parallel_tool_calls": _optional({"type": "boolean"}),
        "text": _optional(
            {
                "type": "object",
                "properties": {
                    "format": _optional(
                        {
                            "type": "object",
                            "required": ["type"],
                            "properties": {
                                "type": {"enum": ["text", "json_object", "json_schema"]},
                                "name": {"type": "string"},
                                "schema": {"type": "object"},
                            },
                        }
                    )
                },
            }
        ),
        "max_output_tokens": _optional({"type": "integer", "minimum": 1}),
        "include": _optional({"type": "array", "items": {"type": "string"}}),
        "top_logprobs": _optional({"type": "integer", "minimum": 0, "maximum": MOST_TOP_LOGPROBS}),
    },
    "example": {"model": "support", "input": "Where is my parcel?"},
}
_COMPLETION: Obj = {
    "type": "object",
    "required": ["prompt"],
    "additionalProperties": False,
    "properties": {
        **_SHARED,
        "prompt": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1},
            ]
        },
        "logprobs": _optional({"type": "integer", "minimum": 0, "maximum": MOST_TOP_LOGPROBS}),
        "echo": _optional({"const": False}),
    },
}
_FEEDBACK: Obj = {
    "type": "object",
    "required": ["response_id", "kind", "value"],
    "properties": {
        "response_id": {"type": "string", "description": "The `id` of the answer."},
        "kind": _SAID["kind"],
        "value": _SAID["value"],
        "scale": {"type": "array", "description": "`[lowest, highest]` of a rating."},
        "comment": {"type": "string"},
        "actor_id": {"type": "string", "description": "Who gave it; the client if left out."},
    },
}
_ANYTHING: Obj = {"type": "object"}
_EVENT: Obj = {
    "type": "object",
    "properties": {
        "data": {"type": "string", "description": "JSON of a chunk or an event, or `[DONE]`."}
    },
}


def document(receiver: Obj | None = None) -> Obj:
    """Return the description; with the receiver's where that is mounted."""
    paths: Obj = {
        "/v1/chat/completions": {
            "post": _operation("Answer a chat.", _CHAT, is_streamed=True),
        },
        "/v1/responses": {
            "post": _operation(
                "Answer a chat in the form of the Responses API, without memory.",
                _RESPONSES,
                is_streamed=True,
            ),
        },
        "/v1/completions": {
            "post": _operation(
                "Complete a prompt, which is sent to the model as it is.",
                _COMPLETION,
                is_streamed=True,
            ),
        },
        "/v1/feedback": {"post": _operation("Store feedback about an answer.", _FEEDBACK)},
        "/v1/models": {"get": _operation("List the workloads.", None)},
        "/v1/routes": {"get": _operation("Say who serves which workload.", None)},
        "/healthz": {"get": _operation("Say that the process answers.", None, is_open=True)},
        "/readyz": {"get": _operation("Say whether requests succeed.", None, is_open=True)},
    }
    others = (receiver or {}).get("paths")
    if isinstance(others, dict):
        paths = {**others, **paths}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flywheel gateway",
            "version": "1",
            "description": "OpenAI's API over the champions of the workloads.",
        },
        "paths": paths,
        "components": {"securitySchemes": {**SECURITY}},
    }


def _operation(
    summary: str, body: Obj | None, *, is_streamed: bool = False, is_open: bool = False
) -> Obj:
    content: Obj = {"application/json": {"schema": _ANYTHING}}
    if is_streamed:
        content["text/event-stream"] = {"schema": _EVENT}
    answers: Obj = {"200": {"description": "The answer.", "content": content}}
    for status, reason in _REASONS.items():
        schema: Json = _ANYTHING if is_open else _ERROR
        answer: Obj = {
            "description": reason,
            "content": {"application/json": {"schema": schema}},
        }
        answers[str(status)] = answer
    operation: Obj = {"summary": summary, "responses": answers}
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    if not is_open:
        operation["security"] = [{"token": []}]
    return operation
