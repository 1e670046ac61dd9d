"""Convert Anthropic's Messages API: content blocks, tools and responses in OpenAI's chat form."""

from typing import TypeGuard

from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.schema import Json

THOUGHTS = ("thinking", "redacted_thinking")
BLOCKS = ("tool_use", "tool_result", "image", *THOUGHTS)
"""The types of blocks that are not parts of OpenAI's content; both have texts."""

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "refusal": "content_filter",
}
"""OpenAI's names of the reasons to stop."""

STREAMED = ("message_start", "content_block_delta")
"""Types of events that no other API streams."""

PIECES = {"text": "text", "partial_json": "input", "thinking": "thinking"}
"""The fields of a piece of a block, and the block's."""


def to_request(request: Obj, at: str) -> Obj:
    """Return a request in chat form; one in OpenAI's is unchanged."""
    converted = dict(request)
    first = _system(converted.pop("system", None), f"{at}system")
    messages = fields.require_array(request, "messages", at)
    converted["messages"] = first + to_messages(messages, f"{at}messages")
    if isinstance(tools := request.get("tools"), list):
        converted["tools"] = [_tool(tool, f"{at}tools[{n}].") for n, tool in enumerate(tools)]
    return converted


def to_messages(messages: list[Json], at: str) -> list[Json]:
    """Return messages with blocks in chat form, others unchanged.

    Each tool result becomes a message. Results come first, as the API demands of their blocks.
    """
    converted: list[Json] = []
    for index, message in enumerate(messages):
        path = f"{at}[{index}]."
        match message:
            case {"role": "assistant"}:
                converted.append(answer(message, path))
            case {"role": "user", "content": list(content)} if _has_blocks(content):
                converted += _results_and_rest(message, content, f"{path}content")
            case _:
                converted.append(message)
    return converted


def answer(message: Obj, at: str) -> Obj:
    """Return an assistant's message in chat form; unchanged if it has no blocks."""
    content = message.get("content")
    if not isinstance(content, list) or not _has_blocks(content):
        return message
    return message | _answer(content, fields.optional_array(message, "tool_calls", at), at)


def is_content(value: Json) -> TypeGuard[list[Json]]:
    """Return whether a value is the content of an answer without its message."""
    return isinstance(value, list) and bool(value) and all(map(_is_block, value))


def is_response(value: Json) -> TypeGuard[Obj]:
    """Return whether a value is a response of this API."""
    match value:
        case {"role": "assistant", "content": list(), "stop_reason": _}:
            return True
        case _:
            return False


def is_plain(response: Obj) -> bool:
    """Return whether a response is text that came to its end."""
    content = fields.optional_array(response, "content")
    return not _has_blocks(content) and response["stop_reason"] in ("end_turn", "stop_sequence")


def is_stream(events: list[Json]) -> bool:
    """Return whether a list is what this API streams."""
    return any(isinstance(event, dict) and event.get("type") in STREAMED for event in events)


def assemble(events: list[Json], at: str) -> Obj:
    """Return the response that was streamed; one that broke off has no ``stop_reason``."""
    whole: Obj | None = None
    blocks: dict[int, Obj] = {}
    for path, event in fields.objects(events, at):
        match event.get("type"):
            case "message_start":
                whole = fields.require_object(event, "message", path)
            case "content_block_start":
                index = fields.require_whole_number(event, "index", path, 0)
                blocks[index] = {**fields.require_object(event, "content_block", path)}
            case "content_block_delta":
                index = fields.require_whole_number(event, "index", path, 0)
                if index not in blocks:
                    raise fields.missing(f"{at}[]", f"the start of the block {index}")
                _join(blocks[index], fields.require_object(event, "delta", path))
            case "message_delta" if whole is not None:
                used = (fields.optional_object(holder, "usage") for holder in (whole, event))
                whole = whole | fields.optional_object(event, "delta", path)
                whole["usage"] = {name: count for usage in used for name, count in usage.items()}
            case "error":
                raise fields.wrong_type(f"{path}error", event.get("error"), "a part of an answer")
            case _:  # pings, and ends of blocks
                continue
    if whole is None:
        raise fields.missing(f"{at}[]", "a message_start in the events of a stream")
    return {"stop_reason": None, **whole, "content": [blocks[index] for index in sorted(blocks)]}


def _join(block: Obj, delta: Obj) -> None:
    """Add a piece to a block; the input of a call becomes the JSON text that the pieces are of."""
    for key, value in delta.items():
        name = PIECES.get(key)
        if name is not None and isinstance(value, str) and value:
            before = block.get(name)
            block[name] = before + value if isinstance(before, str) else value


def to_choice(response: Obj, at: str) -> Obj:
    """Return a response as a choice; without a reason to stop it was logged before its end."""
    message = _answer(fields.require_array(response, "content", at), [], at)
    reason = response.get("stop_reason")
    finish = FINISH.get(reason, reason) if isinstance(reason, str) else canonical.CUT
    return canonical.choice(message, finish)


def to_response(response: Obj, at: str) -> Obj:
    """Return a response in chat form."""
    used = fields.optional_object(response, "usage", at)
    return canonical.response(
        [to_choice(response, at)],
        response_id=response.get("id"),
        model=response.get("model"),
        usage=canonical.usage(used.get("input_tokens"), used.get("output_tokens")),
    )


def cached_usage(response: Obj, at: str) -> Obj | None:
    """Return the usage of a response's whole prompt: Anthropic counts cached tokens apart."""
    used = fields.optional_object(response, "usage", at)
    read, written = used.get("cache_read_input_tokens"), used.get("cache_creation_input_tokens")
    prompt = canonical.total(used.get("input_tokens"), read, written)
    return canonical.cached_usage(prompt, used.get("output_tokens"), read, written)


def _answer(content: list[Json], known: list[Json], at: str) -> Obj:
    """Return the message of blocks; those of ``known`` calls, which some log as well, are left out.

    OpenAI's form has no place for a text after a call: the texts come first.
    """
    ids = [call["id"] for call in known if isinstance(call, dict) and call.get("id") is not None]
    calls: list[Obj] = []
    thoughts: list[Json] = []
    parts: list[Obj] = []
    for path, block in fields.objects(content, f"{at}content"):
        if block.get("type") in THOUGHTS:
            thoughts.append(block.get("thinking"))
        elif block.get("type") != "tool_use":
            parts.append(_part(block))
        elif block.get("id") not in ids:
            calls.append(_call(block, path))
    message = canonical.message("assistant", parts, calls, thoughts)
    if known:
        message["tool_calls"] = [*known, *calls]
    return message


def _results_and_rest(message: Obj, content: list[Json], at: str) -> list[Json]:
    results: list[Json] = []
    rest: list[Obj] = []
    for path, block in fields.objects(content, at):
        if block.get("type") == "tool_result":
            results.append(_result(block, path))
        else:
            rest.append(_part(block))
    if rest:
        results.append(message | canonical.message("user", rest, [], []))
    return results


def _call(block: Obj, at: str) -> Obj:
    arguments = block.get("input")
    if not isinstance(arguments, dict | str | None):  # text: the JSON that a stream consisted of
        raise fields.wrong_type(f"{at}input", arguments, "an object")
    name = fields.require_text(block, "name", at)
    return canonical.tool_call(name, {} if arguments is None else arguments, block.get("id"))


def _result(block: Obj, at: str) -> Obj:
    content = block.get("content")
    if isinstance(content, list):
        parts = [_part(part) for _, part in fields.objects(content, f"{at}content")]
        content = canonical.message("tool", parts, [], [])["content"]
    if not isinstance(content, list):
        content = "" if content is None else fields.as_text(content)
    call_id = block.get("tool_use_id")
    return fields.without_nulls({"role": "tool", "tool_call_id": call_id, "content": content})


def _part(block: Obj) -> Obj:
    match block:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image", "source": {"type": "base64", "data": str(content)} as source}:
            url = f"data:{source.get('media_type') or 'image/png'};base64,{content}"
            return {"type": "image_url", "image_url": {"url": url}}
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return {"type": "image_url", "image_url": {"url": url}}
        case _:
            return block


def _tool(tool: Json, at: str) -> Json:
    match tool:
        case {"name": _, "input_schema": parameters} if "function" not in tool:
            name = fields.require_text(tool, "name", at)
            return canonical.tool(name, tool.get("description"), parameters)
        case _:
            return tool


def _has_blocks(content: list[Json]) -> bool:
    return any(isinstance(block, dict) and block.get("type") in BLOCKS for block in content)


def _is_block(value: Json) -> bool:
    return isinstance(value, dict) and value.get("type") in ("text", *BLOCKS)


def _system(value: Json, at: str) -> list[Json]:
    """Return the system prompt, which is not among the messages, as at most one message."""
    match value:
        case None | "" | []:
            return []
        case str():
            return [canonical.text_message("system", value)]
        case list():
            parts: list[Obj] = [
                {"type": "text", "text": fields.require_text(block, "text", path)}
                for path, block in fields.objects(value, at)
            ]
            return [canonical.message("system", parts, [], [])]
        case _:
            raise fields.wrong_type(at, value, "text or an array of text blocks")
