"""Read OpenAI requests for chats and completions, and refuse what cannot be answered.

What OpenAI knows and this gateway cannot do is refused unless its value changes nothing; what
OpenAI does not know is refused, as OpenAI does. Errors have OpenAI's form.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, cast

import orjson

from components.chat import prompt
from components.receive.client_tokens import Token
from components.receive.settings import RefusedError
from components.schema import Json, kind_of

Obj: TypeAlias = dict[str, Json]
Endpoint: TypeAlias = Literal["chat", "completion"]

ROLES = ("system", "developer", "user", "assistant", "tool")
MOST_MESSAGES, MOST_TOOLS, MOST_STOPS, MOST_TOP_LOGPROBS = 2048, 128, 4, 20
MOST_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
MOST_PARTS = 50_000  # objects and arrays of a body: reading them delays all others
DEEPEST = 200  # levels of a body; Python's recursion ends at 1,000, and templates recurse, too

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")  # OpenAI's, and the dots of the Berkeley leaderboard

_TYPES = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    408: ("timeout_error", None),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("service_unavailable_error", None),
    504: ("timeout_error", None),
}


class OpenAiError(Exception):
    """A refused or failed request, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.allow = allow
        """The path's methods, where the request's is another one."""
        self.status = status
        self.message = message
        self.retry_after = retry_after
        kind, default = _TYPES.get(status, ("invalid_request_error", None))
        self._kind = kind if status < 500 or status in _TYPES else "server_error"
        self._param, self._code = param, code or default

    def body(self) -> bytes:
        """Return the response's body."""
        error = {
            "message": self.message,
            "type": self._kind,
            "param": self._param,
            "code": self._code,
        }
        return orjson.dumps({"error": error})

    @classmethod
    def of(cls, refused: RefusedError) -> "OpenAiError":
        """Convert an error of the receiver."""
        return cls(refused.status, refused.reason, retry_after=refused.retry_after)


def require_scope(token: Token, workload: str, param: str) -> None:
    """Raise ``OpenAiError`` (403) if a token is not for a workload, which ``param`` names."""
    if not token.may_send_for(workload):
        raise OpenAiError(
            403,
            f"the token {token.id} may use {', '.join(token.workloads)}, not {workload[:80]}",
            param=param,
        )


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. ``body`` is the whole request as it was sent."""

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

    @property
    def may_call(self) -> bool:
        """Whether the answer may have calls."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a call."""
        return bool(self.tools) and (
            self.tool_choice == "required" or isinstance(self.tool_choice, dict)
        )


def read_object(content: bytes) -> Obj:
    """Parse a body; raise ``OpenAiError`` (400) if it is not a JSON object."""
    try:
        body = cast("Json", orjson.loads(content))
    except orjson.JSONDecodeError as error:
        raise OpenAiError(
            400, f"the body is not JSON: {error}; expected a JSON object in UTF-8"
        ) from error
    if not isinstance(body, dict):
        raise OpenAiError(400, f"the body is {kind_of(body)}, expected a JSON object")
    _require_flat(body)
    return body


def read_chat(content: bytes) -> ChatRequest:
    """Read the body of ``/v1/chat/completions``; raise ``OpenAiError`` (400) if it is refused."""
    body = read_object(content)
    _refuse_unknown(body, _CHAT)
    messages = _messages(body)
    tools = _tools(body)
    logprobs = _flag(body, "logprobs", default=False)
    top = _integer(body, "top_logprobs", 0, MOST_TOP_LOGPROBS)
    if top is not None and not logprobs:
        raise _invalid("top_logprobs", "it is set, but `logprobs` is not true; set both")
    length = _integer(body, "max_completion_tokens", 1)
    return ChatRequest(
        endpoint="chat",
        messages=messages,
        prompt="",
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        response_format=_response_format(body),
        max_tokens=_integer(body, "max_tokens", 1) if length is None else length,
        logprobs=(top or 0) if logprobs else None,
        is_parallel=_flag(body, "parallel_tool_calls", default=True),
        **_shared(body),
    )


def read_completion(content: bytes) -> ChatRequest:
    """Read the body of ``/v1/completions``; raise ``OpenAiError`` (400) if it is refused."""
    body = read_object(content)
    _refuse_unknown(body, _COMPLETION)
    text = body.get("prompt")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str):
        raise _invalid(
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
        max_tokens=_integer(body, "max_tokens", 1),
        logprobs=_integer(body, "logprobs", 0, MOST_TOP_LOGPROBS),
        is_parallel=True,
        **_shared(body),
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


def _shared(body: Obj) -> _Shared:
    model = body.get("model")
    if not isinstance(model, str | None):
        raise _invalid("model", f"it is {shown(model)}, expected the name of a workload")
    is_streamed = _flag(body, "stream", default=False)
    return {
        "body": body,
        "model": model,
        "temperature": _number(body, "temperature", 0, 2, default=0.0),
        "top_p": _number(body, "top_p", 0, 1, default=1.0),
        "seed": _integer(body, "seed", -(2**63), 2**63 - 1),
        "stop": _stop(body),
        "is_streamed": is_streamed,
        "has_usage": _has_usage(body, is_streamed=is_streamed),
        "is_stored": _flag(body, "store", default=True),
        "metadata": _metadata(body),
        "user": _text(body, "user") or _text(body, "safety_identifier"),
    }


def _messages(body: Obj) -> list[Obj]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        found = "missing" if "messages" not in body else shown(messages)
        raise _invalid("messages", f"it is {found}, expected an array of at least one message")
    if len(messages) > MOST_MESSAGES:
        raise _invalid("messages", f"there are {len(messages)}, expected at most {MOST_MESSAGES}")
    _require_flat_arguments(messages)
    return [_message(f"messages[{number}]", message) for number, message in enumerate(messages)]


def _message(place: str, message: Json) -> Obj:
    if not isinstance(message, dict):
        raise _invalid(place, f"it is {shown(message)}, expected an object with a `role`")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _invalid(f"{place}.role", f"it is {shown(role)}, expected one of {', '.join(ROLES)}")
    if content is None and role != "assistant":
        raise _invalid(f"{place}.content", "it is missing, expected text or an array of text parts")
    if isinstance(content, list):
        for number, part in enumerate(content):
            _require_text_part(f"{place}.content[{number}]", part)
    elif not isinstance(content, str | None):
        raise _invalid(
            f"{place}.content", f"it is {shown(content)}, expected text or an array of text parts"
        )
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise _invalid(f"{place}.tool_call_id", "it is missing, expected the id of the call")
    if role == "assistant":
        _require_calls(place, message)
        if content is None and not message.get("tool_calls"):
            raise _invalid(f"{place}.content", "it is missing, and there are no `tool_calls`")
    return message


def _require_text_part(place: str, part: Json) -> None:
    match part:
        case {"type": "text", "text": str()}:
            return
        case {"type": "refusal", "refusal": str()}:
            return
        case {"type": str(kind)}:
            raise _invalid(
                place, f"it is of the type {kind}, expected text: workloads read nothing else"
            )
        case _:
            raise _invalid(place, f"it is {shown(part)}, expected {{'type': 'text', 'text': ...}}")


def _require_calls(place: str, message: Obj) -> None:
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, list):
        raise _invalid(f"{place}.tool_calls", f"it is {shown(calls)}, expected an array of calls")
    for number, call in enumerate(calls):
        at = f"{place}.tool_calls[{number}]"
        match call:
            case {"function": {"name": str(), "arguments": str() | dict()}}:
                pass
            case _:
                raise _invalid(
                    at,
                    f"it is {shown(call)}, expected {{'id': ..., 'type': 'function', "
                    "'function': {'name': ..., 'arguments': '{...}'}}",
                )
        try:
            prompt.render_answer(prompt.read_message({"tool_calls": [call]})).encode()
        except (ValueError, RecursionError) as error:
            raise _invalid(
                f"{at}.function.arguments",
                "they are not the JSON text of an object, or have half a surrogate pair",
            ) from error


def _tools(body: Obj) -> list[Obj]:
    tools = body.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise _invalid("tools", f"it is {shown(tools)}, expected an array of tools")
    if len(tools) > MOST_TOOLS:
        raise _invalid("tools", f"there are {len(tools)}, expected at most {MOST_TOOLS}")
    names = set[str]()
    checked: list[Obj] = []
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        match tool:
            case {"type": "function", "function": {"name": str(name), **function}}:
                pass
            case _:
                raise _invalid(
                    place,
                    f"it is {shown(tool)}, expected {{'type': 'function', 'function': "
                    "{'name': ..., 'parameters': ...}}",
                )
        if not _NAME.fullmatch(name):
            raise _invalid(
                f"{place}.function.name",
                f"it is {name[:80]!r}, expected 1 to 64 of a-z, A-Z, 0-9, _, . and -",
            )
        if name in names:
            raise _invalid(f"{place}.function.name", f"{name} is offered twice; offer it once")
        if not isinstance(function.get("description"), str | None):
            raise _invalid(f"{place}.function.description", "it is not text")
        if not isinstance(function.get("parameters"), dict | None):
            raise _invalid(
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
        raise _invalid("tool_choice", "it is only allowed where `tools` are offered")
    match choice:
        case "none" | "auto" | "required":
            return choice
        case {"type": "function", "function": {"name": str(name)}}:
            offered = [cast("Obj", tool["function"])["name"] for tool in tools]
            if name not in offered:
                raise _invalid(
                    "tool_choice",
                    f"there is no tool {name[:80]!r}; offered: {', '.join(map(str, offered))}",
                )
            return choice
        case _:
            raise _invalid(
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
            raise _invalid(
                "response_format",
                f"it is {shown(form)}, expected {{'type': 'text'}}, {{'type': 'json_object'}} or "
                "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': {...}}}",
            )


def _stop(body: Obj) -> tuple[str, ...]:
    stop = body.get("stop")
    texts = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(texts, list) or len(texts) > MOST_STOPS:
        raise _invalid("stop", f"it is {shown(stop)}, expected text or up to {MOST_STOPS} texts")
    if not all(isinstance(text, str) and text for text in texts):
        raise _invalid("stop", f"it is {shown(stop)}, expected texts that are not empty")
    return tuple(cast("list[str]", texts))


def _has_usage(body: Obj, *, is_streamed: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not is_streamed:
        raise _invalid("stream_options", "it is only allowed where `stream` is true")
    if not isinstance(options, dict):
        raise _invalid("stream_options", f"it is {shown(options)}, expected an object")
    return _flag(options, "include_usage", default=False, place="stream_options.include_usage")


def _metadata(body: Obj) -> dict[str, str]:
    metadata = body.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or len(metadata) > MOST_METADATA:
        raise _invalid(
            "metadata",
            f"it is {shown(metadata)}, expected an object of up to {MOST_METADATA} texts",
        )
    for key, value in metadata.items():
        if not isinstance(value, str) or len(value) > LONGEST_VALUE or len(key) > LONGEST_KEY:
            raise _invalid(
                "metadata",
                f"{key[:80]!r} is {shown(value)}, expected keys of up to {LONGEST_KEY} and texts "
                f"of up to {LONGEST_VALUE} characters",
            )
    return cast("dict[str, str]", metadata)


def _text(body: Obj, name: str) -> str | None:
    value = body.get(name)
    if not isinstance(value, str | None):
        raise _invalid(name, f"it is {shown(value)}, expected text")
    return value


def _flag(body: Obj, name: str, *, default: bool, place: str | None = None) -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise _invalid(place or name, f"it is {shown(value)}, expected true or false")
    return default if value is None else value


def _integer(body: Obj, name: str, least: int, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < least
        or (most is not None and value > most)
    ):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise _invalid(name, f"it is {shown(value)}, expected a whole number {bounds}")
    return value


def _number(body: Obj, name: str, least: float, most: float, *, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise _invalid(name, f"it is {shown(value)}, expected a number from {least} to {most}")
    return float(value)


def _refuse_unknown(body: Obj, known: Mapping[str, Callable[[Json], bool] | None]) -> None:
    for name, value in body.items():
        if name not in known:
            raise OpenAiError(
                400,
                f"Unknown parameter: {name[:80]!r}; known are {', '.join(known)}",
                param=name[:80],
                code="unknown_parameter",
            )
        is_harmless = known[name]
        if is_harmless is not None and value is not None and not is_harmless(value):
            raise OpenAiError(
                400,
                f"Unsupported value: {name!r} is {shown(value)}, which this gateway cannot do; "
                "leave it out",
                param=name,
                code="unsupported_value",
            )


def _only(*values: Json) -> Callable[[Json], bool]:
    return lambda value: any(
        value == other and isinstance(value, bool) == isinstance(other, bool) for other in values
    )


def _anything(_: Json) -> bool:
    return True


_BOTH: dict[str, Callable[[Json], bool] | None] = {
    **dict.fromkeys(
        (
            "model", "stream", "stream_options", "temperature", "top_p", "seed", "stop",
            "max_tokens", "logprobs", "store", "metadata", "user", "safety_identifier",
        )
    ),
    "n": _only(1),
    "presence_penalty": _only(0),
    "frequency_penalty": _only(0),
    "logit_bias": _only({}),
}  # fmt: skip
_CHAT: dict[str, Callable[[Json], bool] | None] = {
    **_BOTH,
    **dict.fromkeys(
        (
            "messages", "tools", "tool_choice", "response_format", "max_completion_tokens",
            "top_logprobs", "parallel_tool_calls",
        )
    ),
    "modalities": _only(["text"]),
    "service_tier": _anything,
    "prompt_cache_key": _anything,
    "prompt_cache_retention": _anything,
    "reasoning_effort": _only("none"),
    "verbosity": _only("medium"),
    **dict.fromkeys(
        ("audio", "prediction", "web_search_options", "functions", "function_call", "moderation"),
        _only([]),
    ),
}  # fmt: skip
_COMPLETION: dict[str, Callable[[Json], bool] | None] = {
    **_BOTH,
    "prompt": None,
    "echo": _only(False),
    "best_of": _only(1),
    "suffix": _only(""),
}


def _require_flat(body: Json) -> None:
    """Refuse a body of more parts or levels than templates and schemas can be read in time."""
    level, parts, layer = 0, 0, [body]
    while layer:
        level += 1
        parts += len(layer)
        if parts > MOST_PARTS:
            raise OpenAiError(
                400, f"the body has more than {MOST_PARTS} objects and arrays; send fewer"
            )
        if level > DEEPEST:
            raise OpenAiError(
                400, f"the body is nested more than {DEEPEST} levels deep; send a flatter one"
            )
        deeper: list[Json] = []
        for value in layer:
            if isinstance(value, dict):
                deeper.extend(item for item in value.values() if isinstance(item, dict | list))
            elif isinstance(value, list):
                deeper.extend(item for item in value if isinstance(item, dict | list))
        layer = deeper


def _require_flat_arguments(messages: list[Json]) -> None:
    """Refuse calls whose arguments, which are JSON in a text, have more parts than a body may."""
    texts: list[str] = []
    for message in messages:
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for call in calls if isinstance(calls, list) else ():
            match call:
                case {"function": {"arguments": str(arguments)}}:
                    texts.append(arguments)
                case _:
                    pass
    if sum(text.count("[") + text.count("{") for text in texts) <= MOST_PARTS:
        return
    try:  # brackets in texts, as of code that was written, are no parts
        parsed = [cast("Json", orjson.loads(text)) for text in texts]
    except orjson.JSONDecodeError as error:
        raise _invalid("messages", f"arguments of a call are not JSON: {error}") from error
    _require_flat(parsed)


def _invalid(param: str, reason: str, *, code: str = "invalid_value") -> OpenAiError:
    return OpenAiError(400, f"Invalid value for {param!r}: {reason}", param=param, code=code)


def shown(value: Json) -> str:
    """Return a value short enough for a message."""
    if value is None:
        return "missing"
    if isinstance(value, dict | list):
        return kind_of(value)
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:80]}..."
