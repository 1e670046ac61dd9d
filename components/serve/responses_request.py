"""Read requests of OpenAI's Responses API: chats, whose fields have other names there.

A request is translated, then read and answered as any chat. Nothing of one is kept for the next, so
what relies on that is refused, as are the tools that OpenAI runs itself.
"""

from collections.abc import Callable
from dataclasses import replace

from components.schema import Json
from components.serve import body_fields, chat_request
from components.serve.body_fields import Obj, anything, only
from components.serve.chat_request import MOST_MESSAGES, MOST_TOOLS, ChatRequest, ResponsesRequest
from components.serve.openai_error import OpenAiError, invalid, shown

LOGPROBS = "message.output_text.logprobs"  # of `include`; all else there is of what never comes

MOST_ITEMS = 2 * MOST_MESSAGES  # parts of an answer and calls are items of their own

ITEMS = ("message", "function_call", "function_call_output", "reasoning")

TEXTS = ("input_text", "output_text", "text")  # the types of text parts

_SAME = (
    "model", "stream", "temperature", "top_p", "store", "metadata", "user", "safety_identifier",
    "parallel_tool_calls", "top_logprobs", "service_tier", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention",
)  # fmt: skip

_WITH_MEMORY = {
    "previous_response_id": "answers are not kept: send the whole conversation in `input`",
    "conversation": "conversations are not kept: send the whole one in `input`",
    "prompt": "prompts are not kept: send `instructions` and `input`",
    "background": "nothing is answered later: leave it out, and wait or stream",
}


def unchecked(body: Obj) -> ChatRequest:
    """Return a request of which only what the gateway itself needs is read.

    Raise ``OpenAiError`` (400) for what needs earlier answers, whose ids no other server knows.
    """
    for name, reason in _WITH_MEMORY.items():
        if body.get(name):
            raise invalid(name, reason, code="unsupported_value")
    return chat_request.unchecked(body, "chat", ResponsesRequest(body, {}))


def response_of(body: Obj) -> ChatRequest:
    """Return a chat; raise ``OpenAiError`` (400) if it is refused."""
    body_fields.refuse_unknown(body, _KNOWN)
    names = {"messages": "input", "max_completion_tokens": "max_output_tokens"}
    names["response_format"] = "text.format"
    try:
        chat = chat_request.chat_of(_chat(body, names))
    except OpenAiError as error:
        error.rename(names)
        raise
    return replace(chat, responses=ResponsesRequest(body, names))


def _chat(body: Obj, names: dict[str, str]) -> Obj:
    """Return the body of the chat; note in ``names`` what its fields are called here."""
    chat: Obj = {name: body.get(name) for name in _SAME}
    chat["messages"] = _messages(body, names)
    chat["tools"], chat["tool_choice"] = _tools(body, names), _tool_choice(body)
    if not chat["tools"] and isinstance(chat["tools"], list | None):
        # Clients send what is about tools without any, which chats refuse, as OpenAI does.
        chat |= dict.fromkeys(("tools", "parallel_tool_calls"))
        if chat["tool_choice"] in ("auto", "none"):
            chat["tool_choice"] = None
    chat["response_format"] = _response_format(body)
    chat["max_completion_tokens"] = body.get("max_output_tokens")
    if LOGPROBS in _include(body) or body.get("top_logprobs"):
        chat["logprobs"] = True
    else:
        chat["top_logprobs"] = None
    return {name: value for name, value in chat.items() if value is not None}


def _messages(body: Obj, names: dict[str, str]) -> list[Json]:
    messages: list[Obj] = []
    if instructions := body_fields.text(body, "instructions"):
        names["messages[0]"] = "instructions"
        messages.append({"role": "system", "content": instructions})
    items = body.get("input")
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    if not isinstance(items, list):
        raise invalid("input", f"it is {shown(items)}, expected text or an array of items")
    if len(items) > MOST_ITEMS:
        raise invalid("input", f"there are {len(items)} items, expected at most {MOST_ITEMS}")
    for number, item in enumerate(items):
        place = f"input[{number}]"
        if not isinstance(item, dict):
            raise invalid(place, f"it is {shown(item)}, expected an object with a `type`")
        match item.get("type"):
            case None | "message":
                _add_message(messages, item, place, names)
            case "function_call":
                _add_call(messages, item, place, names)
            case "function_call_output":
                _add_output(messages, item, place)
                names[f"messages[{len(messages) - 1}].content"] = f"{place}.output"
            case "reasoning":
                continue
            case "item_reference":
                raise invalid(
                    place,
                    "items are not kept: send the item itself, or ask for chat completions, in "
                    "Vercel's AI SDK with `openai.chat`",
                )
            case kind:
                raise invalid(
                    f"{place}.type", f"it is {shown(kind)}, expected one of {', '.join(ITEMS)}"
                )
        names.setdefault(f"messages[{len(messages) - 1}]", place)
    return [*messages]


def _add_message(messages: list[Obj], item: Obj, place: str, names: dict[str, str]) -> None:
    role, content = item.get("role"), _content(item.get("content"))
    if role == "tool" or item.get("tool_calls"):
        raise invalid(
            place,
            "it is a chat's; calls and their results are items of their own: {'type': "
            "'function_call', 'call_id': ..., 'name': ..., 'arguments': '{...}'}, {'type': "
            "'function_call_output', 'call_id': ..., 'output': ...}",
        )
    match messages:
        case [*_, {"role": "assistant", "tool_calls": _} as last] if (
            role == "assistant" and isinstance(content, str | list)
        ):  # one turn, whose call came first
            before = last["content"]
            if before is None:
                last["content"] = content
                names[f"messages[{len(messages) - 1}].content"] = f"{place}.content"
            elif isinstance(before, list):
                before.extend(_parts(content))
            else:
                last["content"] = [*_parts(before), *_parts(content)]
        case _:
            messages.append({"role": role, "content": content})


def _add_call(messages: list[Obj], item: Obj, place: str, names: dict[str, str]) -> None:
    match item:
        case {"call_id": str(call_id), "name": str(name), "arguments": str(arguments)}:
            function: Obj = {"name": name, "arguments": arguments}
            call: Obj = {"id": call_id, "type": "function", "function": function}
        case _:
            raise invalid(place, "expected the texts `call_id`, `name` and `arguments`")
    match messages:
        case [*_, {"role": "assistant", "tool_calls": list(calls)}]:
            calls.append(call)
        case [*_, {"role": "assistant"} as last]:
            last["tool_calls"] = calls = list[Json]([call])
        case _:
            calls = list[Json]([call])
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
    at = f"messages[{len(messages) - 1}].tool_calls[{len(calls) - 1}]"
    names |= {at: place, f"{at}.function": place}


def _add_output(messages: list[Obj], item: Obj, place: str) -> None:
    match item:
        case {"call_id": str(call_id), "output": (str() | list()) as output}:
            content = _content(output)
            messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
        case _:
            raise invalid(place, "expected the text `call_id`, and `output`: text or text parts")


def _content(content: Json) -> Json:
    """Return a content as chats have it; a single text is no array."""
    if not isinstance(content, list):
        return content
    parts = [_part(part) for part in content]
    match parts:
        case [{"type": "text", "text": text}]:
            return text
        case _:
            return parts


def _parts(content: Json) -> list[Json]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _part(part: Json) -> Json:
    match part:
        case {"type": str(kind), "text": str(text)} if kind in TEXTS:
            return {"type": "text", "text": text}
        case _:
            return part


def _tools(body: Obj, names: dict[str, str]) -> Json:
    tools = body.get("tools")
    if not isinstance(tools, list) or len(tools) > MOST_TOOLS:
        return tools  # chats say what is wrong with them
    names |= {f"tools[{number}].function": f"tools[{number}]" for number in range(len(tools))}
    return [_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools)]


def _tool(tool: Json, place: str) -> Json:
    match tool:
        case {"type": "function", "name": str()}:
            keys = ("name", "description", "parameters", "strict")
            function: Obj = {key: tool[key] for key in keys if tool.get(key) is not None}
            return {"type": "function", "function": function}
        case {"type": str(kind)} if kind != "function":
            found = f"it is of the type {kind[:80]}, which nothing here runs"
        case _:
            found = f"it is {shown(tool)}"
    raise invalid(
        place, f"{found}; expected {{'type': 'function', 'name': ..., 'parameters': {{...}}}}"
    )


def _tool_choice(body: Obj) -> Json:
    match body.get("tool_choice"):
        case (None | "none" | "auto" | "required") as choice:
            return choice
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case choice:
            raise invalid(
                "tool_choice",
                f"it is {shown(choice)}, expected none, auto, required or "
                "{'type': 'function', 'name': ...}",
            )


def _response_format(body: Obj) -> Json:
    text = body.get("text")
    if not isinstance(text, dict | None):
        raise invalid("text", f"it is {shown(text)}, expected an object with a `format`")
    text = text or {}
    if text.get("verbosity") not in (None, "medium"):
        raise invalid(
            "text.verbosity",
            f"it is {shown(text['verbosity'])}, which this gateway cannot do; leave it out",
            code="unsupported_value",
        )
    match text.get("format"):
        case (None | {"type": "text" | "json_object"}) as form:
            return form
        case {"type": "json_schema", "schema": dict()} as form:
            keys = ("name", "description", "schema", "strict")
            schema: Obj = {key: form[key] for key in keys if form.get(key) is not None}
            return {"type": "json_schema", "json_schema": schema}
        case form:
            raise invalid(
                "text.format",
                f"it is {shown(form)}, expected {{'type': 'text'}}, {{'type': 'json_object'}} or "
                "{'type': 'json_schema', 'name': ..., 'schema': {...}}",
            )


def _include(body: Obj) -> list[Json]:
    include = body.get("include")
    if include is None:
        return []
    if not isinstance(include, list) or not all(isinstance(name, str) for name in include):
        raise invalid("include", f"it is {shown(include)}, expected an array of texts")
    return include


def _is_without_effort(reasoning: Json) -> bool:
    return isinstance(reasoning, dict) and reasoning.get("effort") in (None, "none")


_KNOWN: dict[str, Callable[[Json], bool] | None] = {
    **dict.fromkeys((*_SAME, *_WITH_MEMORY)),
    **dict.fromkeys(
        ("input", "instructions", "tools", "tool_choice", "text", "max_output_tokens", "include")
    ),
    "truncation": only("disabled"),
    "reasoning": _is_without_effort,
    # Of tools that OpenAI runs, of its own streams and images, and what Codex adds.
    **dict.fromkeys(
        ("max_tool_calls", "stream_options", "background_options", "image", "client_metadata"),
        anything,
    ),
    **dict.fromkeys(("context_management", "moderation", "access_programs"), only([])),
}
