"""Read OpenAI requests for chats and completions, and refuse what cannot be answered.

What OpenAI knows and this gateway cannot do is refused unless its value changes nothing; what
OpenAI does not know is refused, as OpenAI does. Errors have OpenAI's form.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, cast

from components.schema import Json
from components.serve import body_fields, history_calls
from components.serve.body_fields import Obj, anything, only
from components.serve.openai_error import invalid, shown
from components.serve.response_id import Prefix

Endpoint: TypeAlias = Literal["chat", "completion"]

ROLES = ("system", "developer", "user", "assistant", "tool")
MOST_MESSAGES, MOST_TOOLS, MOST_STOPS, MOST_TOP_LOGPROBS = 2048, 128, 4, 20
MOST_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")  # OpenAI's, and the dots of the Berkeley leaderboard


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A request of the Responses API as it was sent."""

    body: Obj
    names: Mapping[str, str]
    """Its names of the fields of the chat that it was translated to, for errors."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. ``body`` is the whole request, as it was sent or translated."""

    endpoint: Endpoint
    body: Obj
    model: str | None
    messages: list[Obj]
    """Of a chat."""
    prompt: str
    """Of a completion, sent to the engine as it is."""
    tools: list[Obj]
    tool_choice: Json
    response_format: Obj | None
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    logprobs: int | None
    """The most probable tokens to report at each position; ``None`` without log-probabilities."""
    is_streamed: bool
    has_usage: bool
    """Whether a stream ends with the usage."""
    is_stored: bool
    is_parallel: bool
    """Whether an answer may have more than one call."""
    metadata: Mapping[str, str]
    user: str | None
    responses: ResponsesRequest | None = None
    """What it is translated from; ``None`` if it was sent as it is."""
    is_checked: bool = True
    """Whether a version can answer; if not, another server gets the body as it is."""

    @property
    def sent(self) -> Obj:
        """The body as it was sent."""
        return self.body if self.responses is None else self.responses.body

    @property
    def path(self) -> str:
        """Where OpenAI-compatible servers answer it, below their address."""
        if self.responses is not None:
            return "/responses"
        return "/chat/completions" if self.endpoint == "chat" else "/completions"

    @property
    def id_prefix(self) -> Prefix:
        """What the id of the answer begins with."""
        if self.responses is not None:
            return "resp_"
        return "chatcmpl-" if self.endpoint == "chat" else "cmpl-"

    @property
    def may_call(self) -> bool:
        """Whether the answer may have calls."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def offered(self) -> list[Obj]:
        """The tools of the prompt: none where no call is allowed, as versions learn it."""
        return self.tools if self.may_call else []

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a call."""
        return bool(self.tools) and (
            self.tool_choice == "required" or isinstance(self.tool_choice, dict)
        )

    @property
    def asks_for_form(self) -> bool:
        """Whether the request itself, whatever the version, asks for a call or for JSON."""
        return self.must_call or self.response_format is not None


def read_chat(content: bytes) -> ChatRequest:
    """Read the body of ``/v1/chat/completions``; raise ``OpenAiError`` (400) if it is refused."""
    return chat_of(body_fields.read_object(content))


def chat_of(body: Obj) -> ChatRequest:
    """Return a chat; raise ``OpenAiError`` (400) if it is refused."""
    body_fields.refuse_unknown(body, _CHAT)
    messages = _messages(body)
    tools = _tools(body)
    logprobs = body_fields.flag(body, "logprobs", default=False)
    top = body_fields.integer(body, "top_logprobs", 0, MOST_TOP_LOGPROBS)
    if top is not None and not logprobs:
        raise invalid("top_logprobs", "it is set, but `logprobs` is not true; set both")
    length = body_fields.integer(body, "max_completion_tokens", 1)
    return ChatRequest(
        endpoint="chat",
        messages=messages,
        prompt="",
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        response_format=_response_format(body),
        max_tokens=body_fields.integer(body, "max_tokens", 1) if length is None else length,
        logprobs=(top or 0) if logprobs else None,
        is_parallel=body_fields.flag(body, "parallel_tool_calls", default=True),
        **_shared(body),
    )


def read_completion(content: bytes) -> ChatRequest:
    """Read the body of ``/v1/completions``; raise ``OpenAiError`` (400) if it is refused."""
    return completion_of(body_fields.read_object(content))


def completion_of(body: Obj) -> ChatRequest:
    """Return a completion; raise ``OpenAiError`` (400) if it is refused."""
    body_fields.refuse_unknown(body, _COMPLETION)
    text = body.get("prompt")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str):
        raise invalid(
            "prompt",
            f"it is {shown(body.get('prompt'))}, expected text; send one request a prompt",
        )
    return ChatRequest(
        endpoint="completion",
        messages=[],
        prompt=text,
        tools=[],
        tool_choice=None,
        response_format=None,
        max_tokens=body_fields.integer(body, "max_tokens", 1),
        logprobs=body_fields.integer(body, "logprobs", 0, MOST_TOP_LOGPROBS),
        is_parallel=True,
        **_shared(body),
    )


def unchecked(
    body: Obj, endpoint: Endpoint, responses: ResponsesRequest | None = None
) -> ChatRequest:
    """Return a request of which only what the gateway itself needs is read.

    The rest is for another server to read. Raise ``OpenAiError`` (400) if `model` is not text.
    """
    options, metadata = body.get("stream_options"), body.get("metadata")
    users = (body.get("user"), body.get("safety_identifier"))
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return ChatRequest(
        endpoint=endpoint,
        body=body,
        model=_model(body),
        messages=[],
        prompt="",
        tools=[],
        tool_choice=None,
        response_format=None,
        max_tokens=None,
        temperature=0.0,
        top_p=1.0,
        seed=None,
        stop=(),
        logprobs=None,
        is_streamed=body.get("stream") is True,
        has_usage=isinstance(options, dict) and options.get("include_usage") is True,
        is_stored=body.get("store") is not False,
        is_parallel=True,
        metadata={key: text for key, text in texts if isinstance(text, str)},
        user=next((user for user in users if isinstance(user, str) and user), None),
        responses=responses,
        is_checked=False,
    )


class _Shared(TypedDict):
    body: Obj
    model: str | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    is_streamed: bool
    has_usage: bool
    is_stored: bool
    metadata: Mapping[str, str]
    user: str | None


def _model(body: Obj) -> str | None:
    model = body.get("model")
    if not isinstance(model, str | None):
        raise invalid("model", f"it is {shown(model)}, expected the name of a workload")
    return model


def _shared(body: Obj) -> _Shared:
    is_streamed = body_fields.flag(body, "stream", default=False)
    return {
        "body": body,
        "model": _model(body),
        "temperature": body_fields.number(body, "temperature", 0, 2, default=0.0),
        "top_p": body_fields.number(body, "top_p", 0, 1, default=1.0),
        "seed": body_fields.integer(body, "seed", -(2**63), 2**63 - 1),
        "stop": _stop(body),
        "is_streamed": is_streamed,
        "has_usage": _has_usage(body, is_streamed=is_streamed),
        "is_stored": body_fields.flag(body, "store", default=True),
        "metadata": _metadata(body),
        "user": body_fields.text(body, "user") or body_fields.text(body, "safety_identifier"),
    }


def _messages(body: Obj) -> list[Obj]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        found = "missing" if "messages" not in body else shown(messages)
        raise invalid("messages", f"it is {found}, expected an array of at least one message")
    if len(messages) > MOST_MESSAGES:
        raise invalid("messages", f"there are {len(messages)}, expected at most {MOST_MESSAGES}")
    history_calls.require_bounded(messages)
    return [_message(f"messages[{number}]", message) for number, message in enumerate(messages)]


def _message(place: str, message: Json) -> Obj:
    if not isinstance(message, dict):
        raise invalid(place, f"it is {shown(message)}, expected an object with a `role`")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise invalid(f"{place}.role", f"it is {shown(role)}, expected one of {', '.join(ROLES)}")
    refusal = message.get("refusal")
    if content is None and role == "assistant" and isinstance(refusal, str):
        content = [cast("Json", {"type": "refusal", "refusal": refusal})]
        message = cast("Obj", message | {"content": content})
    if content is None and role != "assistant":
        raise invalid(f"{place}.content", "it is missing, expected text or an array of text parts")
    if isinstance(content, list):
        for number, part in enumerate(content):
            _require_text_part(f"{place}.content[{number}]", part, role)
    elif not isinstance(content, str | None):
        raise invalid(
            f"{place}.content", f"it is {shown(content)}, expected text or an array of text parts"
        )
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise invalid(f"{place}.tool_call_id", "it is missing, expected the id of the call")
    if role == "assistant":
        history_calls.require_form(place, message)
        if content is None and not message.get("tool_calls"):
            raise invalid(f"{place}.content", "it is missing, and there are no `tool_calls`")
    return message


def _require_text_part(place: str, part: Json, role: Json) -> None:
    match part:
        case {"type": "text", "text": str()}:
            return
        case {"type": "refusal", "refusal": str()} if role == "assistant":
            return
        case {"type": str(kind)}:
            raise invalid(
                place, f"it is of the type {kind}, expected text: workloads read nothing else"
            )
        case _:
            raise invalid(place, f"it is {shown(part)}, expected {{'type': 'text', 'text': ...}}")


def _tools(body: Obj) -> list[Obj]:
    tools = body.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise invalid("tools", f"it is {shown(tools)}, expected an array of tools")
    if len(tools) > MOST_TOOLS:
        raise invalid("tools", f"there are {len(tools)}, expected at most {MOST_TOOLS}")
    names = set[str]()
    checked: list[Obj] = []
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        match tool:
            case {"type": "function", "function": {"name": str(name), **function}}:
                pass
            case _:
                raise invalid(
                    place,
                    f"it is {shown(tool)}, expected {{'type': 'function', 'function': "
                    "{'name': ..., 'parameters': ...}}",
                )
        if not _NAME.fullmatch(name):
            raise invalid(
                f"{place}.function.name",
                f"it is {name[:80]!r}, expected 1 to 64 of a-z, A-Z, 0-9, _, . and -",
            )
        if name in names:
            raise invalid(f"{place}.function.name", f"{name} is offered twice; offer it once")
        if not isinstance(function.get("description"), str | None):
            raise invalid(f"{place}.function.description", "it is not text")
        if not isinstance(function.get("parameters"), dict | None):
            raise invalid(
                f"{place}.function.parameters",
                f"it is {shown(function.get('parameters'))}, expected a JSON Schema object",
                code="invalid_function_parameters",
            )
        names.add(name)
        checked.append(tool)
    return checked


def _tool_choice(body: Obj, tools: Sequence[Obj]) -> Json:
    choice = body.get("tool_choice")
    if choice is None:
        return None
    if not tools:
        raise invalid("tool_choice", "it is only allowed where `tools` are offered")
    match choice:
        case "none" | "auto" | "required":
            return choice
        case {"type": "function", "function": {"name": str(name)}}:
            offered = [cast("Obj", tool["function"])["name"] for tool in tools]
            if name not in offered:
                raise invalid(
                    "tool_choice",
                    f"there is no tool {name[:80]!r}; offered: {', '.join(map(str, offered))}",
                )
            return choice
        case _:
            raise invalid(
                "tool_choice",
                f"it is {shown(choice)}, expected none, auto, required or "
                "{'type': 'function', 'function': {'name': ...}}",
            )


def _response_format(body: Obj) -> Obj | None:
    match body.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"} as form:
            return form
        case {"type": "json_schema", "json_schema": {"schema": dict()}} as form:
            return form
        case form:
            raise invalid(
                "response_format",
                f"it is {shown(form)}, expected {{'type': 'text'}}, {{'type': 'json_object'}} or "
                "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': {...}}}",
            )


def _stop(body: Obj) -> tuple[str, ...]:
    stop = body.get("stop")
    texts = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(texts, list) or len(texts) > MOST_STOPS:
        raise invalid("stop", f"it is {shown(stop)}, expected text or up to {MOST_STOPS} texts")
    if not all(isinstance(text, str) and text for text in texts):
        raise invalid("stop", f"it is {shown(stop)}, expected texts that are not empty")
    return tuple(cast("list[str]", texts))


def _has_usage(body: Obj, *, is_streamed: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not is_streamed:
        raise invalid("stream_options", "it is only allowed where `stream` is true")
    if not isinstance(options, dict):
        raise invalid("stream_options", f"it is {shown(options)}, expected an object")
    return body_fields.flag(
        options, "include_usage", default=False, place="stream_options.include_usage"
    )


def _metadata(body: Obj) -> dict[str, str]:
    metadata = body.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or len(metadata) > MOST_METADATA:
        raise invalid(
            "metadata",
            f"it is {shown(metadata)}, expected an object of up to {MOST_METADATA} texts",
        )
    for key, value in metadata.items():
        if not isinstance(value, str) or len(value) > LONGEST_VALUE or len(key) > LONGEST_KEY:
            raise invalid(
                "metadata",
                f"{key[:80]!r} is {shown(value)}, expected keys of up to {LONGEST_KEY} and texts "
                f"of up to {LONGEST_VALUE} characters",
            )
    return cast("dict[str, str]", metadata)


_BOTH: dict[str, Callable[[Json], bool] | None] = {
    **dict.fromkeys(
        (
            "model", "stream", "stream_options", "temperature", "top_p", "seed", "stop",
            "max_tokens", "logprobs", "store", "metadata", "user", "safety_identifier",
        )
    ),
    "n": only(1),
    "presence_penalty": only(0),
    "frequency_penalty": only(0),
    "logit_bias": only({}),
}  # fmt: skip
_CHAT: dict[str, Callable[[Json], bool] | None] = {
    **_BOTH,
    **dict.fromkeys(
        (
            "messages", "tools", "tool_choice", "response_format", "max_completion_tokens",
            "top_logprobs", "parallel_tool_calls",
        )
    ),
    "modalities": only(["text"]),
    "service_tier": anything,
    "prompt_cache_key": anything,
    "prompt_cache_options": anything,
    "prompt_cache_retention": anything,
    "reasoning_effort": only("none"),
    "verbosity": only("medium"),
    **dict.fromkeys(
        ("audio", "prediction", "web_search_options", "functions", "function_call", "moderation"),
        only([]),
    ),
}  # fmt: skip
_COMPLETION: dict[str, Callable[[Json], bool] | None] = {
    **_BOTH,
    "prompt": None,
    "echo": only(False),
    "best_of": only(1),
    "suffix": only(""),
}
