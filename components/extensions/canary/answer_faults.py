"""What is bad about an answer, and which feedback is: the same for every arm."""

import json
from collections.abc import Sequence
from typing import cast

import orjson

from components.chat import dialects, tool_schema
from components.chat.dialects import Dialect
from components.schema import Call, Json
from components.serve import answer_log
from components.serve.body_fields import Obj
from components.serve.chat_request import ChatRequest
from components.serve.rollout_settings import BadKind

MAX_WORK = 10**8
"""Characters of schemas times characters of an answer: each value may be checked against each
keyword, and other requests wait for it. Beyond it, some 0.4 s, an answer counts as valid."""


def faults(
    request: ChatRequest,
    form: Dialect,
    text: str,
    finish: str | None,
    labels: Sequence[str] = (),
    limit: int | None = None,
) -> frozenset[BadKind]:
    """Return what is bad about an answer; whether it was slow is `latency_limits`' part.

    Args:
        request: The request.
        form: The syntax of the version's calls.
        text: The answer as the model wrote it.
        finish: Why it ended, as in the record; ``None`` if the version failed to answer.
        labels: The only texts that may answer where no tools are offered; any if empty.
        limit: The version's longest answer, in tokens. What a request cut by a shorter limit of
            its own, or by any if this is ``None``, is no fault.
    """
    own = request.max_tokens
    if finish == "length" and own is not None and (limit is None or own < limit):
        return frozenset()
    if finish == answer_log.GONE:  # the client left: nothing is known of the rest
        return frozenset()
    if finish is None or finish == answer_log.CUT:
        return frozenset({"error"})
    if finish == "length" or not text.strip():
        return frozenset({"cut"})
    return frozenset({"invalid"} if _is_invalid(request, form, text, labels) else ())


def is_dislike(kind: str, value: Json) -> bool:
    """Return whether feedback is a thumb down, a correction, or a wish for another answer.

    A later vote takes nothing back: evidence that was looked at already would change.
    """
    wishes_other = kind in ("correction", "regenerate") and value is not None
    return wishes_other or (kind, value) == ("thumb", "down")


def _is_invalid(request: ChatRequest, form: Dialect, text: str, labels: Sequence[str]) -> bool:
    if request.endpoint == "completion":
        return False
    answer = dialects.read_answer(form, text, offers_tools=request.may_call)
    if request.must_call and not answer.calls:
        return True
    schemas = orjson.dumps([request.response_format, request.tools])
    if len(schemas) * len(text) > MAX_WORK:
        return False
    if request.response_format is not None and not answer.calls:
        return not _has_format(request.response_format, answer.text)
    if request.may_call:
        broken = dialects.answer_problem(form, text, may_have_braces=True) is not None
        return broken or not all(_is_offered(call, request.tools) for call in answer.calls)
    return bool(labels) and answer.text not in labels


def _is_offered(call: Call, tools: Sequence[Obj]) -> bool:
    # Not by `tool_schema.is_offered`, which remembers the tools: clients' may be megabytes long.
    called = [tool for tool in tools if cast("Obj", tool["function"])["name"] == call.name]
    validator = tool_schema.validators(called).get(call.name)
    problem = validator and tool_schema.problem(validator, call.arguments)
    return bool(called) and problem is None


def _has_format(response_format: Obj, text: str) -> bool:
    try:
        content = cast("Json", json.loads(text))
    except (ValueError, RecursionError):
        return False
    match response_format:
        case {"json_schema": {"schema": dict(schema)}}:
            function: Obj = {"name": "answer", "parameters": schema}
            validator = tool_schema.validators([{"function": function}]).get("answer")
            # a schema of the answer is checked as one of arguments, which may be any JSON
            arguments = cast("dict[str, Json]", content)
            return validator is None or tool_schema.problem(validator, arguments) is None
        case _:
            return isinstance(content, dict)
