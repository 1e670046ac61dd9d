"""Amazon Bedrock: its log of model invocations, as it lies in S3 or CloudWatch.

Read are calls of the Converse API, streamed or not, and ``InvokeModel`` of models that take and
give messages: Anthropic's, and those of OpenAI's form.
"""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields, openai_logs
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "bedrock"

SCHEMA = "ModelInvocationLog"
MANY_BYTES = "100 KB"  # of a body that the log has in a file of its own

CONVERSATIONS = ("conversation_id", "session_id")
"""Keys of the request's metadata, which an application chooses."""

PARAMETERS = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stopSequences": "stop",
}
"""Converse's names of parameters, and OpenAI's."""

USAGE = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadInputTokens": "cache_read_input_tokens",
    "cacheWriteInputTokens": "cache_creation_input_tokens",
}
"""Converse's names of counts, and those of Anthropic's API."""

STOPPED = {"guardrail_intervened": "refusal", "content_filtered": "refusal"}
"""Converse's reasons to stop that Anthropic's API has under another name."""


def claims(value: dict[str, Json]) -> bool:
    """Claim logged invocations."""
    return value.get("schemaType") == SCHEMA


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interaction of an invocation."""
    yield ParsedRecord(row, "interactions", _interaction(row.value, defaults))


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    failure = fields.optional_text(value, "errorCode")
    if failure is not None:
        raise fields.unknown_value("errorCode", failure, "a response: the call has no answer")
    asked, answered = _body(value, "input"), _body(value, "output")
    request, at = fields.require_object({"input": asked}, "input"), "input.inputBodyJson."
    metrics: Obj = {}
    if isinstance(answered, dict) and "output" in answered:
        request, metrics = _request(request, at), fields.optional_object(answered, "metrics")
        answered = _response(answered, "output.outputBodyJson.")
    request, response, beside = openai_logs.exchange(request, at, answered)
    sent = fields.optional_object(value, "requestMetadata")
    model = fields.require_text(value, "modelId")
    known = fields.without_nulls({key: value.get(key) for key in ("region", "operation")})
    return canonical.interaction(
        defaults,
        timestamp=value.get("timestamp"),
        request={"model": model, **request},
        response={
            **response,
            "id": response.get("id") or fields.require_text(value, "requestId"),
            "model": response.get("model") or model,
        },
        workload_id=fields.optional_text(sent, "workload_id", "requestMetadata."),
        conversation_id=next((sent[key] for key in CONVERSATIONS if sent.get(key)), None),
        user_id=fields.optional_text(sent, "user_id", "requestMetadata."),
        trace_id=fields.optional_text(value, "requestId"),
        duration_ms=metrics.get("latencyMs"),
        metadata=sent | known,
        **beside,
    )


def _body(value: Obj, side: str) -> Json:
    holder = fields.require_object(value, side)
    key = f"{side}BodyJson"
    body = fields.unpacked(holder, key, f"{side}.")
    if body is None:
        elsewhere = fields.optional_text(holder, f"{side}BodyS3Path", f"{side}.")
        place = f": it is in {elsewhere}, as bodies of more than {MANY_BYTES} are"
        raise fields.missing(f"{side}.{key}", f"the body{place if elsewhere else ''}")
    return body


# Converse's blocks become Anthropic's, which have the same parts.


def _request(body: Obj, at: str) -> Obj:
    listed = fields.require_array(body, "messages", at)
    messages: list[Json] = [
        {"role": fields.require_text(message, "role", path), "content": _blocks(message, path)}
        for path, message in fields.objects(listed, f"{at}messages")
    ]
    system = fields.optional_array(body, "system", at)
    sent = fields.optional_object(body, "inferenceConfig", at)
    request: Obj = {new: sent.get(old) for old, new in PARAMETERS.items()}
    offered = fields.optional_object(body, "toolConfig", at)
    tools = fields.optional_array(offered, "tools", f"{at}toolConfig.")
    listed_tools = fields.objects(tools, f"{at}toolConfig.tools")
    request["tools"] = [
        _tool(tool, path) for path, tool in listed_tools if "toolSpec" in tool
    ] or None
    request["tool_choice"] = _choice(offered.get("toolChoice"))
    texts = [block for _, block in fields.objects(system, f"{at}system") if "text" in block]
    request["system"] = [{"type": "text", "text": block["text"]} for block in texts] or None
    return {**fields.without_nulls(request), "messages": messages}


def _response(body: Obj, at: str) -> Obj:
    output = fields.require_object(body, "output", at)
    message = fields.require_object(output, "message", f"{at}output.")
    used = fields.optional_object(body, "usage", at)
    reason = body.get("stopReason")
    return {
        "role": "assistant",
        "content": _blocks(message, f"{at}output.message."),
        "stop_reason": STOPPED.get(reason, reason) if isinstance(reason, str) else None,
        "usage": {new: used[old] for old, new in USAGE.items() if used.get(old) is not None},
    }


def _blocks(message: Obj, at: str) -> list[Json]:
    content = fields.require_array(message, "content", at)
    return [
        _block(block, path)
        for path, block in fields.objects(content, f"{at}content")
        if "cachePoint" not in block
    ]


def _block(block: Obj, at: str) -> Json:
    match block:
        case {"text": text}:
            return {"type": "text", "text": text}
        case {"toolUse": {"name": name, "toolUseId": call_id, **call}}:
            return {"type": "tool_use", "id": call_id, "name": name, "input": call.get("input")}
        case {"toolResult": {"toolUseId": call_id, "content": list(content)}}:
            results: list[Json] = [_result(part) for _, part in fields.objects(content, at)]
            return {"type": "tool_result", "tool_use_id": call_id, "content": results}
        case {"reasoningContent": {"reasoningText": {"text": text}}}:
            return {"type": "thinking", "thinking": text}
        case {"reasoningContent": _}:
            return {"type": "redacted_thinking"}
        case {"image": {"format": str(form), "source": {"bytes": str(content)}}}:
            source: Json = {"type": "base64", "media_type": f"image/{form}", "data": content}
            return {"type": "image", "source": source}
        case _:
            return {"type": next(iter(block), ""), **block}


def _result(part: Obj) -> Json:
    return (
        {"type": "text", "text": fields.as_json(part["json"])}
        if "json" in part
        else _block(part, "")
    )


def _tool(tool: Obj, at: str) -> Json:
    specification = fields.require_object(tool, "toolSpec", at)
    schema = fields.optional_object(specification, "inputSchema", f"{at}toolSpec.")
    name = fields.require_text(specification, "name", f"{at}toolSpec.")
    return canonical.tool(name, specification.get("description"), schema.get("json"))


def _choice(choice: Json) -> Json:
    match choice:
        case {"tool": {"name": str(name)}}:
            return {"type": "function", "function": {"name": name}}
        case {"any": _}:
            return "required"
        case {"auto": _}:
            return "auto"
        case _:
            return None
