"""Read requests of OpenAI's Responses API: chats, whose fields have other names there.

A request is translated, then read and answered as any chat. Nothing of one is kept for the next, so
what relies on that is refused, as are the tools that OpenAI runs itself.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from components.schema import Json
from components.serve import body_fields, chat_request
from components.serve.body_fields import NO_EFFECT, Obj
from components.serve.chat_request import (
    MAX_MESSAGES,
    MAX_TOOLS,
    AnyForm,
    ChatRequest,
    Conversed,
    Empty,
    FunctionTool,
    Length,
    NamedFunction,
    OfFunction,
    Part,
    ResponsesRequest,
)
from components.serve.openai_error import OpenAiError, invalid

LOGPROBS = "message.output_text.logprobs"  # of `include`; all else there is of what never comes

MAX_ITEMS = 2 * MAX_MESSAGES  # parts of an answer and calls are items of their own

TEXTS = ("input_text", "output_text", "text")  # the types of text parts


class MessageItem(Part):
    """A message; its content is checked as a chat's, its texts may be of any type of text."""

    type: Literal["message"] | None = "message"
    role: Any = None
    content: Any = None


class CallItem(Part):
    """A call of an answer before."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    """JSON text of an object."""


class OutputItem(Part):
    """What a call returned: text or text parts."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Any]


class ReasoningItem(Part):
    """Ignored."""

    type: Literal["reasoning"]


def _type(item: Any) -> Any:  # noqa: ANN401 - any JSON
    return (item.get("type") or "message") if isinstance(item, dict) else "message"


Item: TypeAlias = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[OutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_type),
]


class FlatTool(FunctionTool, OfFunction):
    """A function that an answer may call."""


class NamedFlatTool(NamedFunction, OfFunction):
    """The tool that has to be called."""


class FlatSchemaForm(Part):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    name: Any = None
    json_schema: dict[str, Any] = Field(alias="schema")


class TextOptions(Part):
    """What the text of an answer is."""

    format: FlatSchemaForm | AnyForm | None = None
    verbosity: Literal["medium"] | None = None


class Effort(Part):
    """How much an answer is thought about."""

    effort: Literal["none"] | None = None


class Responses(Conversed):
    """``POST /v1/responses``; nothing is kept between requests."""

    input: str | Annotated[list[Item], Field(max_length=MAX_ITEMS, fail_fast=True)]
    """The whole conversation."""
    instructions: str | None = None
    tools: Annotated[list[FlatTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFlatTool | None = None
    text: TextOptions | None = None
    max_output_tokens: Length | None = None
    include: Annotated[list[str], Field(fail_fast=True)] | None = None

    max_tool_calls: Any = None
    stream_options: Any = None
    background_options: Any = None
    image: Any = None
    client_metadata: Any = None

    truncation: Literal["disabled"] | None = Field(None, description=NO_EFFECT)
    reasoning: Effort | None = Field(None, description=NO_EFFECT)
    context_management: Empty | None = Field(None, description=NO_EFFECT)
    access_programs: Empty | None = Field(None, description=NO_EFFECT)

    previous_response_id: Any = Field(None, description=NO_EFFECT)
    conversation: Any = Field(None, description=NO_EFFECT)
    prompt: Any = Field(None, description=NO_EFFECT)
    background: Any = Field(None, description=NO_EFFECT)


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
    names = {"messages": "input", "max_completion_tokens": "max_output_tokens"}
    names["response_format"] = "text.format"
    chat = _chat(body_fields.check(Responses, body), body, names)
    try:
        request = chat_request.chat_of(chat)
    except OpenAiError as error:
        error.rename(names)
        raise
    return replace(request, responses=ResponsesRequest(body, names))


def _chat(asked: Responses, body: Obj, names: dict[str, str]) -> Obj:
    """Return the body of the chat; note in ``names`` what its fields are called here."""
    chat: Obj = {name: body.get(name) for name in Conversed.model_fields}
    chat["messages"] = _messages(asked, body["input"], names)
    chat["tool_choice"] = _tool_choice(asked)
    tools = cast("list[Obj]", body.get("tools") or [])
    chat["tools"] = [_tool(tool) for tool in tools]
    names |= {f"tools[{number}].function": f"tools[{number}]" for number in range(len(tools))}
    if not tools:
        # Clients send what is about tools without any, which chats refuse, as OpenAI does.
        chat |= dict.fromkeys(("tools", "parallel_tool_calls"))
        if asked.tool_choice in ("auto", "none"):
            chat["tool_choice"] = None
    chat["response_format"] = _response_format(asked, body)
    chat["max_completion_tokens"] = asked.max_output_tokens
    if LOGPROBS in (asked.include or ()) or asked.top_logprobs:
        chat["logprobs"] = True
    else:
        chat["top_logprobs"] = None
    return {name: value for name, value in chat.items() if value is not None}


def _messages(asked: Responses, items: Json, names: dict[str, str]) -> list[Json]:
    messages: list[Obj] = []
    if asked.instructions:
        names["messages[0]"] = "instructions"
        messages.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        return [*messages, {"role": "user", "content": asked.input}]
    for number, (item, sent) in enumerate(zip(asked.input, cast("list[Obj]", items), strict=True)):
        place = f"input[{number}]"
        match item:
            case MessageItem():
                _add_message(messages, sent, place, names)
            case CallItem():
                _add_call(messages, item, place, names)
            case OutputItem():
                content = _content(cast("Json", item.output))
                message: Obj = {"role": "tool", "tool_call_id": item.call_id, "content": content}
                messages.append(message)
                names[f"messages[{len(messages) - 1}].content"] = f"{place}.output"
            case ReasoningItem():
                continue
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


def _add_call(messages: list[Obj], item: CallItem, place: str, names: dict[str, str]) -> None:
    function: Obj = {"name": item.name, "arguments": item.arguments}
    call: Obj = {"id": item.call_id, "type": "function", "function": function}
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


def _tool(tool: Obj) -> Obj:
    keys = ("name", "description", "parameters", "strict")
    function: Obj = {key: tool[key] for key in keys if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _tool_choice(asked: Responses) -> Json:
    if isinstance(asked.tool_choice, NamedFlatTool):
        return {"type": "function", "function": {"name": asked.tool_choice.name}}
    return asked.tool_choice


def _response_format(asked: Responses, body: Obj) -> Json:
    if asked.text is None or asked.text.format is None:
        return None
    form = cast("dict[str, Obj]", body["text"])["format"]
    if form["type"] != "json_schema":
        return form
    keys = ("name", "description", "schema", "strict")
    schema: Obj = {key: form[key] for key in keys if form.get(key) is not None}
    return {"type": "json_schema", "json_schema": schema}
