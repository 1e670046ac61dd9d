"""Convert OpenAI's Responses API and streamed chunks to chat completions."""

from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
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
    if instructions := fields.may_text(request, "instructions", at):
        messages.append(canonical.text_message("system", instructions))
    given = request.get("input")
    if isinstance(given, str):
        messages.append(canonical.text_message("user", given))
    else:
        messages += _messages(fields.want_array(request, "input", at), f"{at}input")
    rest: Obj = {key: value for key, value in request.items() if key not in TRANSLATED}
    tools = fields.may_array(request, "tools", at)
    offered = [_tool(tool, path) for path, tool in fields.objects(tools, f"{at}tools")]
    return canonical.request(messages, {"tools": [*offered] or None, **rest})


def to_response(response: Obj, at: str) -> Obj:
    """Write the response in chat form: all its items are one assistant message."""
    output = _messages(fields.want_array(response, "output", at), f"{at}output")
    message = _merged(output, f"{at}output")
    used = fields.may_object(response, "usage", at)
    return canonical.response(
        [canonical.choice(message, _finish_reason(response, message))],
        response_id=fields.want_text(response, "id", at),
        model=response.get("model"),
        created=response.get("created_at"),
        usage=canonical.usage(used.get("input_tokens"), used.get("output_tokens")),
    )


def final(events: list[Json], at: str) -> Obj | None:
    """Find the whole response in the events of a stream; ``None`` if they are no such events."""
    for index, event in enumerate(events):
        if isinstance(event, dict) and event.get("type") in FINAL:
            return fields.want_object(event, "response", f"{at}[{index}].")
    return None


def _messages(items: list[Json], at: str) -> list[Json]:
    """Write items as messages; calls that follow one another are one assistant message."""
    messages: list[Json] = []
    for path, item in fields.objects(items, at):
        match item.get("type", "message"):
            case "message":
                messages.append(_message(item, path))
            case "function_call":
                _add_call(messages, item, path)
            case "function_call_output":
                call_id = fields.want_text(item, "call_id", path)
                messages.append(
                    {"role": "tool", "tool_call_id": call_id, "content": item.get("output")}
                )
            case _:  # reasoning, searches of the server: kept in the payload
                continue
    return messages


def _message(item: Obj, at: str) -> Obj:
    role = fields.want_text(item, "role", at)
    content = item.get("content")
    if isinstance(content, list):
        parts = [_part(part) for _, part in fields.objects(content, f"{at}content")]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        return {"role": role, "content": texts[0] if len(parts) == len(texts) == 1 else [*parts]}
    return {"role": role, "content": fields.want_text(item, "content", at)}


def _part(part: Obj) -> Obj:
    match part:
        case {"type": str(name), "text": str(text)} if name in PARTS:
            return {"type": PARTS[name], "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            return {"type": "image_url", "image_url": {"url": url}}
        case _:
            return part


def _add_call(messages: list[Json], item: Obj, at: str) -> None:
    call = canonical.tool_call(
        fields.want_text(item, "name", at),
        item.get("arguments"),
        fields.want_text(item, "call_id", at),
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
            raise fields.missing(f"{at}[]", "a message or a function call")
        case _:
            texts = [m["content"] for m in messages if isinstance(m, dict) and m.get("content")]
            calls: list[Json] = []
            for message in messages:
                if isinstance(message, dict):
                    calls += fields.may_array(message, "tool_calls")
            text = "\n".join(text for text in texts if isinstance(text, str)) or None
            merged = canonical.text_message("assistant", text)
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
    return canonical.tool(
        fields.want_text(tool, "name", at), tool.get("description"), tool.get("parameters"), **more
    )


HEAD = ("id", "created", "model", "service_tier", "system_fingerprint")
"""What each chunk repeats about the whole response."""


def events(text: str, at: str) -> list[Json]:
    """Read server-sent events (``data: {...}`` lines) as the chunks they carry."""
    lines = (
        line.removeprefix("data:").strip() for line in text.splitlines() if line[:5] == "data:"
    )
    found = [fields.parsed(line, at) for line in lines if line != "[DONE]"]
    if not found:
        raise fields.unknown(at, text, "a response, or the `data:` lines of a stream")
    return found


def assemble(chunks: list[Json], at: str) -> Obj:
    """Write the response that ``chunks`` (OpenAI ``chat.completion.chunk`` objects) stream.

    Texts and call arguments are joined piece by piece; of everything else the last word counts.
    """
    whole: Obj = {"object": "chat.completion"}
    choices: dict[int, Obj] = {}
    for path, chunk in fields.objects(chunks, at):
        if "error" in chunk:
            raise fields.wrong(f"{path}error", chunk["error"], "a chunk of an answer")
        whole |= {
            key: chunk[key] for key in HEAD if key not in whole and chunk.get(key) is not None
        }
        if chunk.get("usage") is not None:
            whole["usage"] = chunk["usage"]
        for choice_path, piece in fields.objects(
            fields.may_array(chunk, "choices", path), f"{path}choices"
        ):
            _add(choices, piece, choice_path)
    if not choices:
        raise fields.missing(f"{at}[].choices", "at least one choice in the chunks of a stream")
    whole["choices"] = [_closed(choices[index]) for index in sorted(choices)]
    return whole


def _add(choices: dict[int, Obj], piece: Obj, at: str) -> None:
    """Add one chunk's piece to the choice that it continues."""
    index = _index(piece, at)
    choice = choices.setdefault(
        index, {"index": index, "message": {"role": "assistant"}, "finish_reason": None}
    )
    if piece.get("finish_reason") is not None:
        choice["finish_reason"] = piece["finish_reason"]
    delta = fields.may_object(piece, "delta", at)
    _join(fields.want_object(choice, "message"), delta, f"{at}delta.")
    if logprobs := fields.may_object(piece, "logprobs", at):
        _join(_held(choice, "logprobs"), logprobs, f"{at}logprobs.")


def _join(whole: Obj, piece: Obj, at: str) -> None:
    """Add a piece: texts and lists go on where they ended, calls by their index."""
    for key, value in piece.items():
        before = whole.get(key)
        if key == "tool_calls":
            _join_calls(whole, fields.may_array(piece, key, at), f"{at}{key}")
        elif key == "function_call" and isinstance(value, dict):
            _join(_held(whole, key), value, f"{at}{key}.")
        elif key == "role":
            whole[key] = value or before
        elif isinstance(before, str) and isinstance(value, str):
            whole[key] = before + value
        elif isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif value is not None or key not in whole:
            whole[key] = [*value] if isinstance(value, list) else value


def _join_calls(message: Obj, pieces: list[Json], at: str) -> None:
    """Add pieces of calls, which are held by index until the choice is closed."""
    calls = _held(message, "tool_calls")
    for path, piece in fields.objects(pieces, at):
        call = _held(calls, str(_index(piece, path)))
        call |= {key: piece[key] for key in ("id", "type") if piece.get(key) is not None}
        _join(
            _held(call, "function"), fields.may_object(piece, "function", path), f"{path}function."
        )


def _closed(choice: Obj) -> Obj:
    """Write a choice whose pieces are all there; its message says its content, if only null."""
    message = fields.want_object(choice, "message")
    message.setdefault("content", None)
    if calls := fields.may_object(message, "tool_calls"):
        message["tool_calls"] = [calls[index] for index in sorted(calls, key=int)]
    return choice


def _held(holder: Obj, key: str) -> Obj:
    """Give the object under ``key``, a new one if there is none."""
    value = holder.get(key)
    if not isinstance(value, dict):
        holder[key] = value = {}
    return value


def _index(piece: Obj, at: str) -> int:
    index = piece.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int):
        raise fields.wrong(f"{at}index", index, "a whole number")
    return index
