"""Parse one interaction for the rules."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import chain
from typing import NoReturn, cast

from pydantic_core import from_json

from components.chat import prompt
from components.schema import Answer, Json, Message

UNKNOWN = {
    "client_gone": "partial_answer",
    "upstream_cut": "partial_answer",
    "several_answers": "several_answers",
}
"""Finish reasons of answers of which nobody knows what was shown, and the objections to them; no
setting makes them examples."""

SYSTEM = ("system", "developer")
"""Roles whose messages are an application's."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class MalformedError(Exception):
    """Raised when an interaction is not a valid chat completion; its text is the objection."""


@dataclass(frozen=True)
class Candidate:
    """One interaction with the answer to learn, as a chat completion.

    ``finish_reason`` is of the logged answer, ``None`` if that was corrected. ``message`` is the
    raw assistant message, ``None`` if missing; ``logged`` is production's message where
    ``message`` corrects it. ``released`` names the rules that a person has overruled for it.
    Interactions with equal tools share one parsed list; ``tools_text`` is its JSON.
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

    @cached_property
    def opening(self) -> str:
        """The conversation's first user message."""
        user_messages = (message for message in self.messages if message["role"] == "user")
        return json.dumps(next(user_messages, {}).get("content"), sort_keys=True)

    @cached_property
    def answer(self) -> Answer:
        """The answer to learn; ``ValueError`` if its arguments are not JSON objects."""
        return prompt.read_message(self.message or {})

    @cached_property
    def answer_json(self) -> str:
        """The answer's JSON, arguments in logged order: a model learns that order.

        ``ValueError`` if they hold invalid JSON, such as NaN.
        """
        return _write(self.answer)

    @cached_property
    def logged_json(self) -> str | None:
        """The JSON of production's answer; an unreadable one is kept as text.

        ``None`` if there is none: it was cut off before its end, and then corrected.
        """
        if not self.is_corrected:
            return self.answer_json
        if self.logged is None:
            return None
        try:
            text = _write(prompt.read_message(self.logged))
            text.encode()  # a lone surrogate, which only an escape can write, is not text
        except (ValueError, RecursionError):
            return _write(Answer(json.dumps(self.logged)))
        return text

    def texts(self, *roles: str) -> list[str]:
        """Return the request's texts by any of the roles, in order."""
        return _texts(self.messages, roles)

    @cached_property
    def rendered(self) -> list[Message]:
        """The request's messages as rendered for a model; ``ValueError`` if a call is not JSON."""
        if self.tools is read_tools(self.tools_text)[0]:
            return prompt.render_prompt_with_tools(self.messages, self.tools_text)
        return prompt.render_prompt(self.messages, self.tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """One row of ``staging.candidates``, JSON values as text."""

    interaction_id: str
    workload_id: str
    example_id: str
    logged_at: datetime
    conversation_id: str | None = None
    user_id: str | None = None
    messages: str
    tools: str
    message: str | None
    finish_reason: str | None = None
    is_corrected: bool = False
    acceptable: str | None = None
    released: list[str] = field(default_factory=list[str])
    logged_message: str | None = None


def read(row: CandidateRow) -> Candidate:
    """Parse an interaction; raise ``MalformedError`` if it is not a valid chat completion."""
    try:
        messages, (tools, tool_names) = _objects(loads(row.messages)), read_tools(row.tools)
        message, acceptable = loads(row.message or "null"), loads(row.acceptable or "null")
    except (ValueError, RecursionError) as error:
        raise MalformedError("unreadable") from error
    is_asked = any(message.get("role") in ("user", "tool") for message in messages)
    if not is_asked or not all(_is_message(item) for item in messages):
        raise MalformedError("malformed_messages")
    if not isinstance(message, dict | None):
        raise MalformedError("malformed_answer")
    if row.finish_reason in UNKNOWN:
        raise MalformedError(UNKNOWN[row.finish_reason])
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
    """Parse production's answer, which may be invalid where it was corrected."""
    try:
        message = loads(text or "null")
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else None


def loads(text: str) -> Json:
    """Parse strict JSON: DuckDB accepts NaN and Infinity, which other readers reject."""
    try:
        return cast("Json", from_json(text, allow_inf_nan=False))
    except (TypeError, ValueError):
        return cast("Json", _STRICT.decode(text))  # which also reads lone surrogates


@lru_cache(maxsize=512)
def read_tools(text: str) -> tuple[list[dict[str, Json]], tuple[str, ...]]:
    """Parse tools and their names; cached, as an application repeats them."""
    tools, names = _objects(loads(text)), list[str]()
    for tool in tools:
        match tool:
            case {"function": {"name": str(name)}} if name:
                names.append(name)
            case _:
                raise MalformedError("malformed_tools")
    return tools, tuple(names)


def system_texts(messages: str) -> list[str]:
    """Return the system texts of a request's messages in JSON; none of malformed ones."""
    try:
        return _texts(_objects(loads(messages)), SYSTEM)
    except (ValueError, RecursionError, MalformedError):
        return []


def _texts(messages: list[dict[str, Json]], roles: tuple[str, ...]) -> list[str]:
    contents = (message.get("content") for message in messages if message.get("role") in roles)
    parts = chain.from_iterable(
        content if isinstance(content, list) else [{"text": content}] for content in contents
    )
    return [
        text
        for part in parts
        if isinstance(part, dict) and isinstance(text := part.get("text"), str)
    ]


def content_parts(message: dict[str, Json]) -> list[Json]:
    """Return the parts of a message's content; empty for text or missing content."""
    content = message.get("content")
    return content if isinstance(content, list) else []


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)
_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _write(answer: Answer) -> str:
    calls = [{"name": call.name, "arguments": call.arguments} for call in answer.calls]
    return _WRITER.encode({"text": answer.text, "calls": calls})


def _objects(value: Json) -> list[dict[str, Json]]:
    objects = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
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
