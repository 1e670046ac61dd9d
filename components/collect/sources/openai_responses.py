"""Write requests and responses of OpenAI's Responses API as chat completions."""

from components.collect.sources import chat, shape
from components.collect.sources.shape import Obj
from components.schema import Json

PARTS = {"input_text": "text", "output_text": "text", "text": "text"}
"""Names of the parts that are plain text, as chat completions call them."""

TRANSLATED = ("input", "instructions", "tools")
FINAL = ("response.completed", "response.incomplete")


def is_request(request: Obj) -> bool:
    """Tell a request of the Responses API from one for a chat completion."""
    return "input" in request and "messages" not in request


def to_request(request: Obj, at: str) -> Obj:
    """Write the request in chat form; parameters that are not about messages stay as they are."""
    messages: list[Json] = []
    if instructions := shape.may_text(request, "instructions", at):
        messages.append(chat.text_message("system", instructions))
    given = request.get("input")
    if isinstance(given, str):
        messages.append(chat.text_message("user", given))
    else:
        messages += _messages(shape.want_array(request, "input", at), f"{at}input")
    rest: Obj = {key: value for key, value in request.items() if key not in TRANSLATED}
    tools = shape.may_array(request, "tools", at)
    offered = [_tool(tool, path) for path, tool in shape.objects(tools, f"{at}tools")]
    return chat.request(messages, {"tools": [*offered] or None, **rest})


def to_response(response: Obj, at: str) -> Obj:
    """Write the response in chat form: all its items are one assistant message."""
    output = _messages(shape.want_array(response, "output", at), f"{at}output")
    message = _merged(output, f"{at}output")
    used = shape.may_object(response, "usage", at)
    return chat.response(
        [chat.choice(message, _finish_reason(response, message))],
        response_id=shape.want_text(response, "id", at),
        model=response.get("model"),
        created=response.get("created_at"),
        usage=chat.usage(used.get("input_tokens"), used.get("output_tokens")),
    )


def final(events: list[Json], at: str) -> Obj | None:
    """Find the whole response in the events of a stream; ``None`` if they are no such events."""
    for index, event in enumerate(events):
        if isinstance(event, dict) and event.get("type") in FINAL:
            return shape.want_object(event, "response", f"{at}[{index}].")
    return None


def _messages(items: list[Json], at: str) -> list[Json]:
    """Write items as messages; calls that follow one another are one assistant message."""
    messages: list[Json] = []
    for path, item in shape.objects(items, at):
        match item.get("type", "message"):
            case "message":
                messages.append(_message(item, path))
            case "function_call":
                _add_call(messages, item, path)
            case "function_call_output":
                call_id = shape.want_text(item, "call_id", path)
                messages.append(
                    {"role": "tool", "tool_call_id": call_id, "content": item.get("output")}
                )
            case _:  # reasoning, searches of the server: kept in the payload
                continue
    return messages


def _message(item: Obj, at: str) -> Obj:
    role = shape.want_text(item, "role", at)
    content = item.get("content")
    if isinstance(content, list):
        parts = [_part(part) for _, part in shape.objects(content, f"{at}content")]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        return {"role": role, "content": texts[0] if len(parts) == len(texts) == 1 else [*parts]}
    return {"role": role, "content": shape.want_text(item, "content", at)}


def _part(part: Obj) -> Obj:
    match part:
        case {"type": str(name), "text": str(text)} if name in PARTS:
            return {"type": PARTS[name], "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            return {"type": "image_url", "image_url": {"url": url}}
        case _:
            return part


def _add_call(messages: list[Json], item: Obj, at: str) -> None:
    call = chat.tool_call(
        shape.want_text(item, "name", at),
        item.get("arguments"),
        shape.want_text(item, "call_id", at),
    )
    match messages:
        case [*_, {"role": "assistant", "tool_calls": list(calls)}]:
            calls.append(call)
        case [*_, {"role": "assistant"} as last]:
            last["tool_calls"] = [call]
        case _:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _merged(messages: list[Json], at: str) -> Obj:
    """Make one assistant message of all; texts that a call stands between are joined."""
    match messages:
        case [dict(only)]:
            return only
        case []:
            raise shape.missing(f"{at}[]", "a message or a function call")
        case _:
            texts = [m["content"] for m in messages if isinstance(m, dict) and m.get("content")]
            calls: list[Json] = []
            for message in messages:
                if isinstance(message, dict):
                    calls += shape.may_array(message, "tool_calls")
            text = "\n".join(text for text in texts if isinstance(text, str)) or None
            merged = chat.text_message("assistant", text)
            if calls:
                merged["tool_calls"] = calls
            return merged


def _finish_reason(response: Obj, message: Obj) -> str:
    match response.get("incomplete_details"):
        case {"reason": "max_output_tokens"}:
            return "length"
        case {"reason": str(reason)}:
            return reason
        case _:
            return "tool_calls" if message.get("tool_calls") else "stop"


def _tool(tool: Obj, at: str) -> Obj:
    """Write a function in chat form; tools of the server stay as they are."""
    if tool.get("type") != "function":
        return tool
    more = {"strict": tool.get("strict")}
    return chat.tool(
        shape.want_text(tool, "name", at), tool.get("description"), tool.get("parameters"), **more
    )
