"""Read OpenAI requests for chats and completions, and refuse what cannot be answered.

What OpenAI knows and this gateway cannot do is refused unless its value changes nothing; what
OpenAI does not know is refused, as OpenAI does. Errors have OpenAI's form. The models are what
``/openapi.json`` describes, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from components.schema import Json
from components.serve import body_fields, history_calls
from components.serve.body_fields import NO_EFFECT, Obj
from components.serve.openai_error import invalid, shown
from components.serve.response_id import Prefix

Endpoint: TypeAlias = Literal["chat", "completion"]

MAX_MESSAGES, MAX_TOOLS, MAX_STOPS, MAX_TOP_LOGPROBS = 2048, 128, 4, 20
MAX_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512

One: TypeAlias = Annotated[float, Field(ge=1, le=1)]
Zero: TypeAlias = Annotated[float, Field(ge=0, le=0)]
# `Literal[False]` takes 0, too, which is equal to it.
No: TypeAlias = Annotated[bool, Field(le=0), WithJsonSchema({"type": "boolean", "const": False})]
Length: TypeAlias = Annotated[int, Field(ge=1)]
TopLogprobs: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]
Empty: TypeAlias = Annotated[list[Any], Field(max_length=0)]
FunctionName: TypeAlias = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$"),  # OpenAI's, and the dots of the Berkeley leaderboard
]
Stop: TypeAlias = Annotated[str, Field(min_length=1)]


def _few(metadata: object) -> object:
    if isinstance(metadata, dict) and len(cast("Obj", metadata)) > MAX_METADATA:
        raise ValueError(f"at most {MAX_METADATA} entries")  # before there is an error for each
    return metadata


Metadata: TypeAlias = Annotated[
    dict[
        Annotated[str, Field(max_length=LONGEST_KEY)],
        Annotated[str, Field(max_length=LONGEST_VALUE)],
    ],
    Field(max_length=MAX_METADATA),
    BeforeValidator(_few),
]


class Part(BaseModel):
    """A part of a request: no number is taken for a text, and other fields are ignored."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)


class TextPart(Part):
    """A text; workloads read nothing else."""

    type: Literal["text"]
    text: str


class RefusalPart(Part):
    """An assistant's refusal."""

    type: Literal["refusal"]
    refusal: str


class CalledFunction(Part):
    """The function of a call."""

    name: str
    arguments: str | dict[str, Any]
    """JSON text of an object."""


class FunctionCall(Part):
    """A call in an assistant's message."""

    id: Any = None
    type: Any = "function"
    function: CalledFunction


class Instruction(Part):
    """A message of who asks."""

    role: Literal["system", "developer", "user"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]


class ToolResult(Part):
    """What a call returned."""

    role: Literal["tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]
    tool_call_id: str


class AssistantMessage(Part):
    """An answer before; with ``content``, ``tool_calls`` or ``refusal``."""

    role: Literal["assistant"]
    content: (
        str
        | Annotated[
            list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]],
            Field(fail_fast=True),
        ]
        | None
    ) = None
    tool_calls: Annotated[list[FunctionCall], Field(fail_fast=True)] | None = None
    refusal: Any = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        is_refusal = isinstance(self.refusal, str)
        if self.content is None and not self.tool_calls and not is_refusal:
            raise ValueError("`content`; it is missing, and there are no `tool_calls`")
        return self


ChatMessage: TypeAlias = Annotated[
    Instruction | AssistantMessage | ToolResult, Field(discriminator="role")
]


class FunctionTool(Part):
    """A function that an answer may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema."""
    strict: Any = None
    """Counts for nothing: whether calls are held to schemas is set at the gateway."""


class OfFunction(Part):
    """What is of a function: OpenAI's other tools run nowhere here."""

    type: Literal["function"]


class Tool(OfFunction):
    """A tool that is offered."""

    function: FunctionTool


class NamedFunction(Part):
    """The name of a function."""

    name: str


class NamedTool(OfFunction):
    """The tool that has to be called."""

    function: NamedFunction


class AnyForm(Part):
    """Text, or any JSON object."""

    type: Literal["text", "json_object"]


class NamedSchema(Part):
    """A named JSON Schema."""

    name: Any = None
    json_schema: dict[str, Any] = Field(alias="schema")


class SchemaForm(Part):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class UsageOptions(Part):
    """What a stream has besides the answer."""

    include_usage: bool | None = None


class Asked(BaseModel):
    """What all three APIs have."""

    model_config = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)

    model: str | None = None
    """The workload; routing rules may choose another."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 if left out, as in evaluations."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stream: bool | None = None
    store: bool | None = None
    """`false`: it is not logged."""
    metadata: Metadata | None = None
    user: str | None = None
    safety_identifier: str | None = None


class _Generated(Asked):
    """What chats and completions have."""

    max_tokens: Length | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    stream_options: UsageOptions | None = None

    n: One | None = Field(None, description=NO_EFFECT)
    presence_penalty: Zero | None = Field(None, description=NO_EFFECT)
    frequency_penalty: Zero | None = Field(None, description=NO_EFFECT)
    logit_bias: Annotated[dict[Any, Any], Field(max_length=0)] | None = Field(
        None, description=NO_EFFECT
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Conversed(Asked):
    """What chats and responses have."""

    parallel_tool_calls: bool | None = None
    top_logprobs: TopLogprobs | None = None

    service_tier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None

    moderation: Empty | None = Field(None, description=NO_EFFECT)


class Chat(Conversed, _Generated):
    """``POST /v1/chat/completions``."""

    messages: Annotated[
        list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    ]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: SchemaForm | AnyForm | None = None
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None

    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = Field(
        None, description=NO_EFFECT
    )
    reasoning_effort: Literal["none"] | None = Field(None, description=NO_EFFECT)
    verbosity: Literal["medium"] | None = Field(None, description=NO_EFFECT)
    audio: Empty | None = Field(None, description=NO_EFFECT)
    prediction: Empty | None = Field(None, description=NO_EFFECT)
    web_search_options: Empty | None = Field(None, description=NO_EFFECT)
    functions: Empty | None = Field(None, description=NO_EFFECT)
    function_call: Empty | None = Field(None, description=NO_EFFECT)


class Completion(_Generated):
    """``POST /v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1, fail_fast=True)]
    """One text, which is sent to the model as it is."""
    logprobs: TopLogprobs | None = None

    echo: No | None = Field(None, description=NO_EFFECT)
    best_of: One | None = Field(None, description=NO_EFFECT)
    suffix: Literal[""] | None = Field(None, description=NO_EFFECT)


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
    is_streamed: bool
    has_usage: bool
    """Whether a stream ends with the usage."""
    is_stored: bool
    metadata: Mapping[str, str]
    user: str | None
    messages: list[Obj] = field(default_factory=list[Obj])
    """Of a chat."""
    prompt: str = ""
    """Of a completion, sent to the engine as it is."""
    tools: list[Obj] = field(default_factory=list[Obj])
    tool_choice: Json = None
    response_format: Obj | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """The most probable tokens to report at each position; ``None`` without log-probabilities."""
    is_parallel: bool = True
    """Whether an answer may have more than one call."""
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
    if isinstance(messages := body.get("messages"), list):  # before there is a model of each call
        history_calls.require_bounded(messages[:MAX_MESSAGES])
    chat = body_fields.check(Chat, body)
    if chat.top_logprobs is not None and not chat.logprobs:
        raise invalid("top_logprobs", "it is set, but `logprobs` is not true; set both")
    _require_offered(chat)
    form = chat.response_format
    return ChatRequest(
        endpoint="chat",
        messages=[_readable(message) for message in cast("list[Obj]", messages)],
        tools=cast("list[Obj]", body.get("tools") or []),
        tool_choice=body.get("tool_choice"),
        response_format=(
            None if form is None or form.type == "text" else cast("Obj", body["response_format"])
        ),
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        is_parallel=chat.parallel_tool_calls is not False,
        **_shared(chat, body),
    )


def read_completion(content: bytes) -> ChatRequest:
    """Read the body of ``/v1/completions``; raise ``OpenAiError`` (400) if it is refused."""
    return completion_of(body_fields.read_object(content))


def completion_of(body: Obj) -> ChatRequest:
    """Return a completion; raise ``OpenAiError`` (400) if it is refused."""
    completion = body_fields.check(Completion, body)
    prompt = completion.prompt
    return ChatRequest(
        endpoint="completion",
        prompt=prompt if isinstance(prompt, str) else prompt[0],
        max_tokens=completion.max_tokens,
        logprobs=completion.logprobs,
        **_shared(completion, body),
    )


def unchecked(
    body: Obj, endpoint: Endpoint, responses: ResponsesRequest | None = None
) -> ChatRequest:
    """Return a request of which only what the gateway itself needs is read.

    The rest is for another server to read. Raise ``OpenAiError`` (400) if `model` is not text.
    """
    model = body.get("model")
    if not isinstance(model, str | None):
        raise invalid("model", f"it is {shown(model)}, expected the name of a workload")
    options, metadata = body.get("stream_options"), body.get("metadata")
    users = (body.get("user"), body.get("safety_identifier"))
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return ChatRequest(
        endpoint=endpoint,
        body=body,
        model=model,
        is_streamed=body.get("stream") is True,
        has_usage=isinstance(options, dict) and options.get("include_usage") is True,
        is_stored=body.get("store") is not False,
        metadata={key: text for key, text in texts if isinstance(text, str)},
        user=next((user for user in users if isinstance(user, str) and user), None),
        responses=responses,
        is_checked=False,
    )


def _shared(request: _Generated, body: Obj) -> dict[str, Any]:
    options = request.stream_options
    if options is not None and not request.stream:
        raise invalid("stream_options", "it is only allowed where `stream` is true")
    return {
        "body": body,
        "model": request.model,
        "temperature": request.temperature or 0.0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "seed": request.seed,
        "stop": request.stops,
        "is_streamed": bool(request.stream),
        "has_usage": bool(options and options.include_usage),
        "is_stored": request.store is not False,
        "metadata": request.metadata or {},
        "user": request.user or request.safety_identifier,
    }


def _readable(message: Obj) -> Obj:
    """Return a message whose refusal is a part of its content."""
    refusal = message.get("refusal")
    if (
        message["role"] != "assistant"
        or message.get("content") is not None
        or not isinstance(refusal, str)
    ):
        return message
    part: Obj = {"type": "refusal", "refusal": refusal}
    return {**message, "content": [part]}


def _require_offered(chat: Chat) -> None:
    names = [tool.function.name for tool in chat.tools or ()]
    for number, name in enumerate(names):
        if name in names[:number]:
            place = f"tools[{number}].function.name"
            raise invalid(place, f"{name} is offered twice; offer it once")
    if chat.tool_choice is not None and not names:
        raise invalid("tool_choice", "it is only allowed where `tools` are offered")
    if isinstance(chat.tool_choice, NamedTool):
        name = chat.tool_choice.function.name
        if name not in names:
            raise invalid(
                "tool_choice", f"there is no tool {name[:80]!r}; offered: {', '.join(names)}"
            )
