"""Make interactions of what OpenTelemetry's GenAI conventions say about one call of a model."""

from dataclasses import dataclass, field

from components.collect.source import Defaults
from components.collect.sources import canonical, fields, otlp_messages
from components.collect.sources.fields import Obj
from components.collect.sources.otlp_messages import CHOICE, GenAiEvent
from components.schema import Json

CHATTING = ("chat", "generate_content", "text_completion")
"""Operations that are calls of a model; an agent's or tool's spans are made of those."""

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
"""Parameters of a request, as OpenAI and as OpenTelemetry name them."""

KEPT = ("service.name", "gen_ai.provider.name", "gen_ai.system", "gen_ai.agent.name")
"""Attributes that an interaction keeps as metadata."""


@dataclass(slots=True)
class SpanCall:
    """What is known of one call so far: its span and its events may come apart."""

    trace_id: str
    span_id: str
    seconds: float
    duration_ms: float | None = None
    attributes: Obj = field(default_factory=dict[str, Json])
    resource: Obj = field(default_factory=dict[str, Json])
    asked: list[Json] = field(default_factory=list[Json])
    answered: list[Json] = field(default_factory=list[Json])

    def take_attributes(self, attributes: Obj) -> None:
        """Add attributes of the span or of an event; messages may be JSON as text."""
        self.attributes |= attributes
        asked, answered = _newer(attributes)
        self.asked = asked or _older(attributes, "gen_ai.prompt") or self.asked
        self.answered = answered or _older_choices(attributes) or self.answered

    def take_span(self, attributes: Obj, events: list[GenAiEvent]) -> None:
        """Add what a span says; its own events count where its attributes hold no messages."""
        self.take_attributes(attributes)
        has_asked, has_answered = bool(self.asked), bool(self.answered)
        for event in events:
            is_known = has_answered if event.name == CHOICE else has_asked
            if not event.is_evaluation and not (event.is_message and is_known):
                self.take_event(event)

    def take_event(self, event: GenAiEvent) -> None:
        """Add what an event of the span, or a log record of that name, says."""
        at = f"{event.name}."
        if event.name == CHOICE:
            self.answered.append(otlp_messages.choice_from_event(event.said(), at))
        elif event.is_message:
            self.asked.append(otlp_messages.from_event(event.name, event.said(), at))
        else:
            self.take_attributes({**event.attributes, **event.said()})

    @property
    def is_whole(self) -> bool:
        """Tell whether request and answer are both there."""
        return bool(self.asked and self.answered)

    def lack(self) -> str:
        """Say what the call lacks to be an interaction."""
        lacking = "`gen_ai.output.messages`" if self.asked else "`gen_ai.input.messages`"
        return (
            f"the call of span {self.span_id or '(none)'} has no {lacking} and no events with the "
            "messages, wants both request and answer: is the capture of content turned on?"
        )

    def record(self, defaults: Defaults) -> Obj:
        """Write the interaction."""
        said = self.attributes
        parameters: Obj = {key: said.get(name) for key, name in PARAMETERS.items()}
        tools = fields.unpacked(said, "gen_ai.tool.definitions")
        if tools is not None:
            parameters["tools"] = otlp_messages.tools(tools, "gen_ai.tool.definitions")
        elif indexed := otlp_messages.indexed_tools(said):
            parameters["tools"] = indexed
        everything = self.resource | said
        return canonical.interaction(
            defaults,
            timestamp=self.seconds,
            request=canonical.request(self._messages(), parameters),
            response=self._response(),
            workload_id=_first(everything, "flywheel.workload_id"),
            conversation_id=_first(said, "gen_ai.conversation.id", "session.id"),
            user_id=_first(said, "user.id", "enduser.id"),
            trace_id=self.trace_id or None,
            duration_ms=self.duration_ms,
            metadata=fields.without_nulls({key: everything.get(key) for key in KEPT}),
        )

    def _messages(self) -> list[Json]:
        instructions = fields.unpacked(self.attributes, "gen_ai.system_instructions")
        if instructions is None:
            return self.asked
        return otlp_messages.system(instructions, "gen_ai.system_instructions") + self.asked

    def _response(self) -> Obj:
        said = self.attributes
        reasons = said.get("gen_ai.response.finish_reasons")
        return canonical.response(
            [_with_reason(choice, reasons) for choice in self.answered],
            response_id=said.get("gen_ai.response.id") or self.span_id,
            model=said.get("gen_ai.response.model"),
            usage=canonical.usage(
                _first(said, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
                _first(said, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
            ),
        )


def is_call(attributes: Obj) -> bool:
    """Tell whether attributes are those of a model's call."""
    operation = attributes.get("gen_ai.operation.name")
    if operation is not None:
        return operation in CHATTING
    return "gen_ai.system" in attributes or "gen_ai.provider.name" in attributes


def _newer(attributes: Obj) -> tuple[list[Json], list[Json]]:
    asked = fields.unpacked(attributes, "gen_ai.input.messages")
    answered = fields.unpacked(attributes, "gen_ai.output.messages")
    return (
        [] if asked is None else otlp_messages.from_parts(asked, "gen_ai.input.messages"),
        []
        if answered is None
        else otlp_messages.choices_from_parts(answered, "gen_ai.output.messages"),
    )


def _older(attributes: Obj, key: str) -> list[Json]:
    """Read messages that one attribute holds as JSON text, or that are numbered attributes."""
    if attributes.get(key) is None:
        return otlp_messages.indexed_messages(attributes)
    held = fields.unpacked(attributes, key)
    return canonical.messages(held if isinstance(held, list) else [held], key)


def _older_choices(attributes: Obj) -> list[Json]:
    key = "gen_ai.completion"
    if attributes.get(key) is None:
        return otlp_messages.indexed_choices(attributes)
    held = fields.unpacked(attributes, key)
    answers = canonical.messages(held if isinstance(held, list) else [held], key)
    return [
        canonical.choice(answer, None, index)
        for index, (_, answer) in enumerate(fields.objects(answers, key))
    ]


def _with_reason(choice: Json, reasons: Json) -> Json:
    """Fill in the reason to finish from the span, where the choice itself has none."""
    match choice, reasons:
        case ({"index": int(index), "finish_reason": None, **rest}, list()):
            known = reasons[index] if 0 <= index < len(reasons) else None
            return {"index": index, **rest, "finish_reason": otlp_messages.finish_reason(known)}
        case _:
            return choice


def _first(attributes: Obj, *keys: str) -> Json:
    return next((attributes[key] for key in keys if attributes.get(key) is not None), None)
