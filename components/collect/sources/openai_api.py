"""Convert OpenAI's Responses API, text completions and streamed chunks to chat completions."""

import re

from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.schema import Json

TEXTS = ("input_text", "output_text", "text")  # types of plain text, all "text" in chat form
ELSEWHERE = ("previous_response_id", "conversation")
"""Keys of a request that name messages before its own."""

TRANSLATED = ("input", "instructions", "tools")
FINAL = ("response.completed", "response.incomplete")
UNFINISHED = ("queued", "in_progress", "failed", "cancelled")  # states of a response

HEAD = ("id", "created", "model", "service_tier", "system_fingerprint")
"""Keys of the whole response that each chunk of a stream repeats."""


def is_request(request: Obj) -> bool:
    """Return whether a request is for the Responses API, not for a chat completion."""
    return "input" in request and "messages" not in request


def to_request(request: Obj, at: str) -> Obj:
    """Return the request in chat form; parameters that don't concern messages are unchanged.

    Raise ``WrongShapeError`` if the server kept what was said before: it is not in the log.
    """
    for key in ELSEWHERE:
        if request.get(key):
            raise _elsewhere(at + key)
    messages: list[Json] = []
    if instructions := fields.optional_text(request, "instructions", at):
        messages.append(canonical.text_message("system", instructions))
    text = request.get("input")
    if isinstance(text, str):
        messages.append(canonical.text_message("user", text))
    else:
        messages += [*_messages(fields.require_array(request, "input", at), f"{at}input")]
    rest: Obj = {key: value for key, value in request.items() if key not in TRANSLATED}
    tools = fields.optional_array(request, "tools", at)
    written = [to_tool(tool, path) for path, tool in fields.objects(tools, f"{at}tools")]
    return canonical.request(messages, {"tools": [*written] or None, **rest})


def is_text_request(request: Obj) -> bool:
    """Return whether a request is for a text completion: it has a prompt instead of messages."""
    return "prompt" in request and not {"messages", "input"} & request.keys()


def text_to_request(request: Obj, at: str) -> Obj:
    """Return the request of a text completion with its prompt as the user's message."""
    match request["prompt"]:
        case str(prompt) | [str(prompt)]:
            pass
        case other:
            raise fields.wrong_type(f"{at}prompt", other, "text, or an array of one text")
    for key in ("echo", "suffix"):
        if request.get(key):
            raise fields.wrong_type(f"{at}{key}", request[key], "an answer that follows its prompt")
    rest: Obj = {key: value for key, value in request.items() if key != "prompt"}
    return canonical.request([canonical.text_message("user", prompt)], rest)


def text_to_response(response: Obj) -> Obj:
    """Return the response of a text completion in chat form; any other is unchanged."""
    match response:
        case {"object": "text_completion", "choices": list(choices)}:
            written = [_text_choice(choice) for choice in choices]
            return {**response, "object": "chat.completion", "choices": written}
        case _:
            return response


def _text_choice(choice: Json) -> Json:
    match choice:
        case {"text": str(text), **rest} if "message" not in rest:
            return {**rest, "message": canonical.text_message("assistant", text)}
        case _:
            return choice


def is_response(response: Obj) -> bool:
    """Return whether a response is of the Responses API."""
    return isinstance(response.get("output"), list) and "choices" not in response


def is_cut(response: Json) -> bool:
    """Return whether a completion or a response of the Responses API broke off before its end."""
    match response:
        case {"object": "chat.completion", "choices": [{"finish_reason": None}, *_]}:
            return True
        case {"output": list(), "status": status}:
            return status in UNFINISHED
        case _:
            return False


def to_response(response: Obj, at: str) -> Obj:
    """Return the response in chat form: all its items become one assistant message."""
    output = _messages(fields.require_array(response, "output", at), f"{at}output")
    message = _merged(output, f"{at}output")
    used = fields.optional_object(response, "usage", at)
    return canonical.response(
        [canonical.choice(message, _finish_reason(response, message))],
        response_id=fields.require_text(response, "id", at),
        model=response.get("model"),
        created=response.get("created_at"),
        usage=canonical.usage(used.get("input_tokens"), used.get("output_tokens")),
    )


def usage_beside(response: Obj, at: str) -> Obj | None:
    """Return the usage that ``to_response`` can't have.

    That is of a response of the Responses API whose prompt was cached in part, or that LiteLLM
    logged, with the names that chat completions have for the counts.
    """
    used = fields.optional_object(response, "usage", at)
    match used:
        case {"input_tokens_details": {"cached_tokens": cached}}:
            return canonical.cached_usage(
                used.get("input_tokens"), used.get("output_tokens"), cached, None
            )
        case {"prompt_tokens": prompt, "completion_tokens": completion}:
            match used.get("prompt_tokens_details"):
                case {"cached_tokens": cached} if cached:
                    return canonical.cached_usage(prompt, completion, cached, None)
                case _:
                    return canonical.usage(prompt, completion)
        case _:
            return None


def whole(chunks: list[Json], at: str) -> Obj:
    """Return the response that was streamed as ``chunks``, of either API.

    Raise ``WrongShapeError`` if the events of the Responses API have no final one.
    """
    has_events = False
    for index, chunk in enumerate(chunks):
        kind = chunk.get("type") if isinstance(chunk, dict) else None
        if isinstance(chunk, dict) and kind in FINAL:
            return fields.require_object(chunk, "response", f"{at}[{index}].")
        has_events = has_events or (isinstance(kind, str) and kind.startswith("response."))
    if has_events:
        raise fields.WrongShapeError(
            f"`{at}` is a stream that breaks off, expected its {' or '.join(FINAL)}"
        )
    return assemble(chunks, at)


def _messages(items: list[Json], at: str) -> list[Obj]:
    messages: list[Obj] = []
    for path, item in fields.objects(items, at):
        match item.get("type", "message"):
            case "message":
                messages.append(_message(item, path))
            case "function_call" | "custom_tool_call":
                _add_call(messages, item, path)
            case "function_call_output" | "custom_tool_call_output":
                call_id = fields.require_text(item, "call_id", path)
                output = item.get("output")
                content = _content(output, f"{path}output") if isinstance(output, list) else output
                messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
            case "item_reference":
                raise _elsewhere(f"{path}id")
            case _:  # reasoning and server-side searches stay in the payload only
                continue
    return messages


def _message(item: Obj, at: str) -> Obj:
    role = fields.require_text(item, "role", at)
    content = item.get("content")
    if isinstance(content, list):
        return {"role": role, "content": _content(content, f"{at}content")}
    return {"role": role, "content": fields.require_text(item, "content", at)}


def _content(content: list[Json], at: str) -> Json:
    parts = [_part(part) for _, part in fields.objects(content, at)]
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    return texts[0] if len(parts) == len(texts) == 1 else [*parts]


def _elsewhere(field: str) -> fields.WrongShapeError:
    return fields.WrongShapeError(
        f"`{field}` refers to what the server kept, and the log lacks it; expected the whole "
        "conversation in `input`"
    )


def _part(part: Obj) -> Obj:
    match part:
        case {"type": str(name), "text": str(text)} if name in TEXTS:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            return {"type": "image_url", "image_url": {"url": url}}
        case _:
            return part


def _add_call(messages: list[Obj], item: Obj, at: str) -> None:
    name, call_id = (fields.require_text(item, key, at) for key in ("name", "call_id"))
    call: Obj = canonical.tool_call(name, item.get("arguments"), call_id)
    if item.get("type") == "custom_tool_call":
        call = {
            "id": call_id,
            "type": "custom",
            "custom": {"name": name, "input": item.get("input")},
        }
    match messages:
        case [*_, {"role": "assistant", "tool_calls": list(calls)}]:
            calls.append(call)
        case [*_, {"role": "assistant"} as last]:
            last["tool_calls"] = [call]
        case _:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _merged(messages: list[Obj], at: str) -> Obj:
    if len(messages) == 1:
        return messages[0]
    if not messages:
        raise fields.missing(f"{at}[]", "a message or a function call")
    texts = [message["content"] for message in messages if message.get("content")]
    text = "\n".join(text for text in texts if isinstance(text, str)) or None
    merged = canonical.text_message("assistant", text)
    if calls := [call for m in messages for call in fields.optional_array(m, "tool_calls")]:
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


def to_tool(tool: Obj, at: str) -> Obj:
    """Return a tool of the Responses API in chat form; others are unchanged."""
    if tool.get("type") != "function" or "function" in tool:  # of the server, or in chat form
        return tool
    return canonical.flat_tool(tool, at, strict=tool.get("strict"))


def events(text: str, at: str) -> list[Json]:
    """Return the chunks of server-sent events (``data: {...}`` lines)."""
    # Not ``splitlines``: JSON texts may have its other line breaks, such as U+2028, as they are.
    lines = [line[5:].strip() for line in re.split("[\r\n]", text) if line.startswith("data:")]
    chunks = [fields.parsed(line, at) for line in lines if line != "[DONE]"]
    if not chunks:
        raise fields.unknown_value(at, text, "a response, or the `data:` lines of a stream")
    return chunks


def assemble(chunks: list[Json], at: str) -> Obj:
    """Return the response streamed as ``chunks`` (OpenAI ``chat.completion.chunk`` objects).

    Texts and call arguments are concatenated; for all other keys the last value counts. The
    ``finish_reason`` of a choice whose last chunk is missing is ``None``.
    """
    whole: Obj = {"object": "chat.completion"}
    choices: dict[int, Obj] = {}
    for path, chunk in fields.objects(chunks, at):
        if "error" in chunk:
            raise fields.wrong_type(f"{path}error", chunk["error"], "a chunk of an answer")
        whole |= {
            key: chunk[key] for key in HEAD if key not in whole and chunk.get(key) is not None
        }
        if chunk.get("usage") is not None:
            whole["usage"] = chunk["usage"]
        pieces = fields.optional_array(chunk, "choices", path)
        for choice_path, piece in fields.objects(pieces, f"{path}choices"):
            _add(choices, piece, choice_path)
    if not choices:
        raise fields.missing(f"{at}[].choices", "at least one choice in the chunks of a stream")
    whole["choices"] = [_completed(choices[index]) for index in sorted(choices)]
    return whole


def _add(choices: dict[int, Obj], piece: Obj, at: str) -> None:
    index = fields.require_whole_number(piece, "index", at, 0)
    choice = choices.setdefault(index, canonical.choice({"role": "assistant"}, None, index))
    if piece.get("finish_reason") is not None:
        choice["finish_reason"] = piece["finish_reason"]
    text: Obj = {"content": piece["text"]} if isinstance(piece.get("text"), str) else {}
    delta = fields.optional_object(piece, "delta", at) or text
    _join(fields.require_object(choice, "message"), delta, f"{at}delta.")
    if logprobs := fields.optional_object(piece, "logprobs", at):
        _join(_setdefault_object(choice, "logprobs"), logprobs, f"{at}logprobs.")


def _join(whole: Obj, piece: Obj, at: str) -> None:
    """Add a piece: texts and lists are appended, calls merged by index."""
    for key, value in piece.items():
        before = whole.get(key)
        if key == "tool_calls":
            _join_calls(whole, fields.optional_array(piece, key, at), f"{at}{key}")
        elif key == "function_call" and isinstance(value, dict):
            _join(_setdefault_object(whole, key), value, f"{at}{key}.")
        elif key == "role":
            whole[key] = value or before
        elif isinstance(before, str) and isinstance(value, str):
            whole[key] = before + value
        elif isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif value is not None or key not in whole:
            whole[key] = [*value] if isinstance(value, list) else value


def _join_calls(message: Obj, pieces: list[Json], at: str) -> None:
    """Merge pieces of calls, by their number until the choice is complete.

    Some servers send every call whole under the same index or none: another id with a name begins
    another call.
    """
    calls = _setdefault_object(message, "tool_calls")
    for path, piece in fields.objects(pieces, at):
        index = fields.require_whole_number(piece, "index", path, 0)
        function = fields.optional_object(piece, "function", path)
        call = _setdefault_object(calls, str(index))
        if function.get("name") and call.get("id") not in (
            None,
            "",
            piece.get("id") or call.get("id"),
        ):
            call = _setdefault_object(calls, str(max(map(int, calls)) + 1))
        call |= {key: piece[key] for key in ("id", "type") if piece.get(key) is not None}
        _join(_setdefault_object(call, "function"), function, f"{path}function.")


def _completed(choice: Obj) -> Obj:
    """Return a choice with its calls as a list and ``content`` set, if only to null."""
    message = fields.require_object(choice, "message")
    message.setdefault("content", None)
    if calls := fields.optional_object(message, "tool_calls"):
        message["tool_calls"] = [calls[index] for index in sorted(calls, key=int)]
    return choice


def _setdefault_object(holder: Obj, key: str) -> Obj:
    value = holder.get(key)
    if not isinstance(value, dict):
        holder[key] = value = {}
    return value
