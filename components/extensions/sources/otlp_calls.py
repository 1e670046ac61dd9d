"""Convert a model call in OpenTelemetry's GenAI conventions to an interaction."""

from dataclasses import dataclass, field

from components.collect.source import Defaults
from components.collect.sources import anthropic_messages, canonical, fields
from components.collect.sources.fields import Obj
from components.extensions.sources import otlp_messages
from components.extensions.sources.otlp_messages import CHOICE, COMPLETION, PROMPT, GenAiEvent
from components.schema import Json

CALL_OPERATIONS = frozenset(
    {"chat", "generate_content", "text_completion"}
    | {"completion", "acompletion", "atext_completion"}  # LiteLLM's
    | {"unknown"}  # OpenLLMetry's
)
"""Operations of model calls, or OpenLLMetry's request types."""

OTHER_OPERATIONS = frozenset(
    {"execute_tool", "create_agent", "invoke_agent", "invoke_workflow", "embeddings", "retrieval"}
    | {"embedding", "aembedding", "rerank", "arerank"}  # OpenLLMetry's and LiteLLM's
    | {"agent", "chain", "evaluator", "guardrail", "prompt", "reranker", "retriever", "tool"}
    | {"event", "parser", "span"}
)
"""Operations that are no model calls, or consist of such calls; the last ones are OpenInference's,
Langfuse's and LangSmith's kinds."""

PARAMETERS = {
    "model": "gen_ai.request.model",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "stop": "gen_ai.request.stop_sequences",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}
"""OpenAI's names of request parameters, and OpenTelemetry's."""

INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")

READ_TOKENS = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens")
WRITTEN_TOKENS = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
)
"""Those of the input that the provider had, or has, cached: OpenTelemetry's and OpenLLMetry's."""

KEPT = ("service.name", "gen_ai.provider.name", "gen_ai.system", "gen_ai.agent.name")
"""Attributes to keep as metadata."""


@dataclass(slots=True)
class SpanCall:
    """The known parts of one call, whose span and events may arrive separately."""

    trace_id: str
    span_id: str
    seconds: float
    duration_ms: float | None = None
    has_failed: bool = False
    attributes: Obj = field(default_factory=dict[str, Json])
    resource: Obj = field(default_factory=dict[str, Json])
    messages: list[Json] = field(default_factory=list[Json])
    choices: list[Json] = field(default_factory=list[Json])

    def take_attributes(self, attributes: Obj) -> None:
        """Add attributes of the span or of an event; messages may be JSON as text."""
        self.attributes |= attributes
        self.has_failed |= bool(attributes.get("error.type"))
        messages = otlp_messages.from_parts(attributes)
        choices = otlp_messages.choices_from_parts(attributes)
        self.messages = messages or _older_messages(attributes) or self.messages
        self.choices = choices or _older_choices(attributes) or self.choices

    def take_span(self, attributes: Obj, events: list[GenAiEvent]) -> None:
        """Add a span; its own events count only if its attributes have no messages."""
        self.take_attributes(attributes)
        has_messages, has_choices = bool(self.messages), bool(self.choices)
        for event in events:
            is_known = has_choices if event.name == CHOICE else has_messages
            if not event.is_evaluation and not (event.is_message and is_known):
                self.take_event(event)

    def take_event(self, event: GenAiEvent) -> None:
        """Add an event of the span, or the log record that stands for one."""
        at = f"{event.name}."
        if event.name == CHOICE:
            self.choices.append(otlp_messages.choice_from_event(event.content(), at))
        elif event.is_message:
            self.messages += otlp_messages.from_event(event.name, event.content(), at)
        else:
            self.take_attributes({**event.attributes, **event.content()})

    @property
    def is_whole(self) -> bool:
        """Return whether the call has both a request and an answer."""
        return bool(self.messages and self.choices)

    @property
    def answer_key(self) -> str | None:
        """Return what names a whole call's answer: its id, which some servers repeat, and text."""
        response_id = self.attributes.get("gen_ai.response.id")
        if not isinstance(response_id, str) or not self.is_whole:
            return None
        answers: list[Json] = [
            choice.get("message") for _, choice in fields.objects(self.choices, "")
        ]
        return f"{response_id} {fields.digest(answers)}"

    def lack(self) -> fields.WrongShapeError:
        """Return the error of an incomplete call, which can't be an interaction."""
        # Without ids: what many calls lack for one reason is counted as one.
        if self.has_failed and not self.choices:
            return fields.WrongShapeError("a call has failed, and there is no answer to it")
        lacking = "`gen_ai.output.messages`" if self.messages else "`gen_ai.input.messages`"
        return fields.WrongShapeError(
            f"a call has no {lacking} and no events with the messages, expected both request and "
            "answer: is the capture of content turned on?"
        )

    def _is_left(self) -> bool:
        """Return whether it is a stream that was not read to its end, as OpenLLMetry has it."""
        match self.choices:
            case [{"finish_reason": ""}, *_]:
                return self.attributes.get("gen_ai.is_streaming") is True
            case _:
                return False

    def record(self, defaults: Defaults) -> Obj:
        """Return the interaction."""
        attributes = self.attributes
        parameters: Obj = {key: attributes.get(name) for key, name in PARAMETERS.items()}
        parameters["tools"] = otlp_messages.tools(attributes)
        system = otlp_messages.system(attributes)
        if self.messages[: len(system)] == system:  # OpenLIT has them in both places
            system = []
        messages = system + self.messages
        reasons = attributes.get("gen_ai.response.finish_reasons")
        everything = self.resource | attributes
        tokens = _first(attributes, *INPUT_TOKENS), _first(attributes, *OUTPUT_TOKENS)
        cached = _first(attributes, *READ_TOKENS), _first(attributes, *WRITTEN_TOKENS)
        return canonical.interaction(
            defaults,
            timestamp=self.seconds,
            request=canonical.request(messages, parameters),
            response=canonical.response(
                [_with_reason(choice, reasons) for choice in self.choices],
                response_id=attributes.get("gen_ai.response.id") or self.span_id,
                model=attributes.get("gen_ai.response.model"),
                usage=canonical.usage(*tokens),
            ),
            workload_id=_first(everything, "flywheel.workload_id"),
            conversation_id=_first(attributes, "gen_ai.conversation.id", "session.id"),
            user_id=_first(attributes, "user.id", "enduser.id"),
            trace_id=self.trace_id or None,
            duration_ms=self.duration_ms,
            finish=canonical.CUT if self.has_failed or self._is_left() else None,
            usage=canonical.cached_usage(*tokens, *cached),
            metadata=fields.without_nulls({key: everything.get(key) for key in KEPT}),
        )


def chat_attributes(request: Obj, choices: list[Json], at: str) -> Obj:
    """Return the attributes that a request and its choices in chat form stand for.

    Either may be empty; ``at`` names the choices.
    """
    translated: Obj = {new: request[old] for old, new in PARAMETERS.items() if old in request}
    if "messages" in request:
        translated[PROMPT] = request["messages"]
    if isinstance(tools := request.get("tools"), list):
        translated["gen_ai.tool.definitions"] = tools
    if choices:
        answers = [choice for _, choice in fields.objects(choices, at)]
        translated[COMPLETION] = [choice["message"] for choice in answers]
        reasons: list[Json] = [choice.get("finish_reason") for choice in answers]
        translated["gen_ai.response.finish_reasons"] = reasons
    return translated


def is_call(attributes: Obj) -> bool:
    """Return whether attributes belong to a model call."""
    operation = _operation(attributes)
    if operation is not None:
        return operation in CALL_OPERATIONS
    is_named = "gen_ai.system" in attributes or "gen_ai.provider.name" in attributes
    return is_named or otlp_messages.is_numbered(attributes)


def is_other_operation(attributes: Obj) -> bool:
    """Return whether attributes say that a span is no model call, as that of a tool."""
    return _operation(attributes) in OTHER_OPERATIONS


def _operation(attributes: Obj) -> str | None:
    name = _first(attributes, "gen_ai.operation.name", "llm.request.type")
    return None if name is None else str(name)


# The older forms: one attribute with JSON text, or numbered attributes.


def _older_messages(attributes: Obj) -> list[Json]:
    if attributes.get(PROMPT) is None:
        return otlp_messages.indexed_messages(attributes)
    return _unpacked_messages(attributes, PROMPT)


def _older_choices(attributes: Obj) -> list[Json]:
    if attributes.get(COMPLETION) is None:
        return otlp_messages.indexed_choices(attributes)
    answers = fields.objects(_unpacked_messages(attributes, COMPLETION), COMPLETION)
    return [canonical.choice(answer, None, index) for index, (_, answer) in enumerate(answers)]


def _unpacked_messages(attributes: Obj, key: str) -> list[Json]:
    value = fields.unpacked(attributes, key)
    messages: list[Json] = value if isinstance(value, list) else [value]
    return canonical.messages(anthropic_messages.to_messages(messages, key), key)


def _with_reason(choice: Json, reasons: Json) -> Json:
    match choice, reasons:
        case ({"index": int(index), "finish_reason": None, **rest}, list()):
            known = reasons[index] if 0 <= index < len(reasons) else None
            return {"index": index, **rest, "finish_reason": otlp_messages.finish_reason(known)}
        case _:
            return choice


def _first(attributes: Obj, *keys: str) -> Json:
    return next((attributes[key] for key in keys if attributes.get(key) is not None), None)
