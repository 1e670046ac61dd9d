"""Parse one interaction into what the rules read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import NoReturn, cast

from components.chat import prompt
from components.schema import Answer, Json, Message

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class MalformedError(Exception):
    """An interaction that has not the form of a chat completion; ``objection`` is the slug."""

    def __init__(self, objection: str) -> None:
        self.objection = objection
        super().__init__(objection)


@dataclass(frozen=True)
class Candidate:
    """One interaction with the answer to learn from, in the form of a chat completion.

    ``finish_reason`` is of the logged answer, ``None`` if that was corrected. ``message`` is the
    assistant message as it came, ``None`` if there is none; ``logged`` is production's, where
    ``message`` corrects it. ``released`` names the rules that a
    person has overruled for it. What is read out of it is read once. Interactions that offer equal
    tools share one list of them; ``tools_text`` is the JSON that it was read from.
    """

    interaction_id: str
    messages: list[dict[str, Json]]
    tools: list[dict[str, Json]]
    tool_names: tuple[str, ...]
    message: dict[str, Json] | None
    finish_reason: str | None
    is_corrected: bool
    acceptable: Json
    tools_text: str
    released: frozenset[str] = frozenset()
    logged: dict[str, Json] | None = None

    @property
    def opening(self) -> str:
        """The conversation's first user message."""
        said = (one for one in self.messages if one["role"] == "user")
        return json.dumps(next(said, {}).get("content"), sort_keys=True)

    @cached_property
    def answer(self) -> Answer:
        """The answer to learn from; ``ValueError`` if its arguments are not JSON objects."""
        return prompt.read_message(self.message or {})

    @cached_property
    def answer_json(self) -> str:
        """The answer's JSON, arguments in the order given: it is the order that is learned.

        ``ValueError`` if they hold what is no JSON, such as NaN.
        """
        return _write(self.answer)

    @cached_property
    def logged_json(self) -> str:
        """The JSON of what production answered; what can't be read is text, as it came."""
        if not self.is_corrected:
            return self.answer_json
        try:
            text = _write(prompt.read_message(self.logged or {}))
            text.encode()  # half a character, which only an escape can write, is no text
        except (ValueError, RecursionError):
            return _write(Answer(json.dumps(self.logged)))
        return text

    def said(self, *roles: str) -> list[str]:
        """Give the texts of the request that were said in one of the roles, in their order."""
        return [
            text
            for message in self.messages
            if message["role"] in roles
            for text in _texts(message)
        ]

    @cached_property
    def rendered(self) -> list[Message]:
        """The request as a model reads it; ``ValueError`` if an earlier call is not JSON."""
        if self.tools is read_tools(self.tools_text)[0]:
            return prompt.render_prompt_with_tools(self.messages, self.tools_text)
        return prompt.render_prompt(self.messages, self.tools)


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One row of ``staging.candidates``; what is JSON is still text."""

    interaction_id: str
    workload_id: str
    example_id: str
    logged_at: datetime
    conversation_id: str | None
    user_id: str | None
    messages: str
    tools: str
    message: str | None
    finish_reason: str | None
    is_corrected: bool
    acceptable: str | None
    released: list[str] = field(default_factory=list[str])
    logged_message: str | None = None


def read(row: CandidateRow) -> Candidate:
    """Read an interaction.

    Raises:
        MalformedError: Its request or its answer has not the form of a chat completion.
    """
    try:
        messages, (tools, tool_names) = _objects(loads(row.messages)), read_tools(row.tools)
        message, acceptable = loads(row.message or "null"), loads(row.acceptable or "null")
    except (ValueError, RecursionError) as error:
        raise MalformedError("unreadable") from error
    if not all(_is_message(one) for one in messages) or not _asks(messages):
        raise MalformedError("malformed_messages")
    if not isinstance(message, dict | None):
        raise MalformedError("malformed_answer")
    return Candidate(
        interaction_id=row.interaction_id,
        messages=messages,
        tools=tools,
        tool_names=tool_names,
        message=message,
        finish_reason=row.finish_reason,
        is_corrected=row.is_corrected,
        acceptable=acceptable,
        tools_text=row.tools,
        released=frozenset(row.released),
        logged=_logged(row.logged_message),
    )


def _logged(text: str | None) -> dict[str, Json] | None:
    """Read what production answered; what was corrected need not be readable."""
    try:
        found = loads(text or "null")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else None


def loads(text: str) -> Json:
    """Read strict JSON: DuckDB lets NaN and Infinity pass, which no other reader takes."""
    return cast("Json", _STRICT.decode(text))


@lru_cache(maxsize=512)
def read_tools(text: str) -> tuple[list[dict[str, Json]], tuple[str, ...]]:
    """Read tools and their names; an application offers the same ones over and over."""
    tools = _objects(loads(text))
    return tools, tuple(_tool_names(tools))


def content_parts(message: dict[str, Json]) -> list[Json]:
    """Give the parts of a message's content; text and none at all are no parts."""
    content = message.get("content")
    return content if isinstance(content, list) else []


def _texts(message: dict[str, Json]) -> Iterator[str]:
    match message:
        case {"content": str(text)}:
            yield text
        case _:
            for part in content_parts(message):
                match part:
                    case {"text": str(text)}:
                        yield text
                    case _:
                        pass


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)
_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _write(answer: Answer) -> str:
    calls = [{"name": call.name, "arguments": call.arguments} for call in answer.calls]
    return _WRITER.encode({"text": answer.text, "calls": calls})


def _objects(value: Json) -> list[dict[str, Json]]:
    objects = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(objects) < len(value):
        raise MalformedError("malformed_request")
    return objects


def _is_message(message: dict[str, Json]) -> bool:
    role, calls = message.get("role"), message.get("tool_calls")
    return (
        isinstance(role, str)
        and role in ROLES
        and isinstance(message.get("content"), str | list | None)
        and isinstance(calls, list | None)
    )


def _asks(messages: list[dict[str, Json]]) -> bool:
    return any(message["role"] in ("user", "tool") for message in messages)


def _tool_names(tools: list[dict[str, Json]]) -> Iterator[str]:
    for tool in tools:
        match tool:
            case {"function": {"name": str(name)}} if name:
                yield name
            case _:
                raise MalformedError("malformed_tools")
