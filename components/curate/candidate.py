"""Read one interaction as the rules see it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, cast

from components import prompt
from components.schema import Answer, Json

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class MalformedError(Exception):
    """An interaction that has not the form of a chat completion; ``objection`` is the slug."""

    def __init__(self, objection: str) -> None:
        self.objection = objection
        super().__init__(objection)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One interaction with the answer to learn from; its request is sound and can be rendered.

    ``finish_reason`` is of the logged answer, ``None`` if that was corrected. ``message`` is the
    assistant message as it came, ``None`` if there is none.
    """

    interaction_id: str
    messages: list[dict[str, Json]]
    tools: list[dict[str, Json]]
    tool_names: tuple[str, ...]
    message: dict[str, Json] | None
    finish_reason: str | None
    is_corrected: bool
    thumbs_down: int
    acceptable: Json

    @property
    def opening(self) -> str:
        """The conversation's first user message."""
        said = (one for one in self.messages if one["role"] == "user")
        return json.dumps(next(said, {}).get("content"), sort_keys=True)

    def answer(self) -> Answer:
        """Read the answer to learn from; ``ValueError`` if its arguments are not JSON objects."""
        return prompt.read_message(self.message or {})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of ``staging.candidates``; what is JSON is still text."""

    interaction_id: str
    example_id: str
    logged_at: datetime
    conversation_id: str | None
    user_id: str | None
    messages: str
    tools: str
    message: str | None
    finish_reason: str | None
    is_corrected: bool
    thumbs_down: int
    acceptable: str | None


def read(row: Row) -> Candidate:
    """Read an interaction.

    Raises:
        MalformedError: Its request or its answer has not the form of a chat completion.
    """
    try:
        messages, tools = _objects(loads(row.messages)), _objects(loads(row.tools))
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
        tool_names=tuple(_tool_names(tools)),
        message=message,
        finish_reason=row.finish_reason,
        is_corrected=row.is_corrected,
        thumbs_down=row.thumbs_down,
        acceptable=acceptable,
    )


def loads(text: str) -> Json:
    """Read strict JSON: DuckDB lets NaN and Infinity pass, which no other reader takes."""
    return cast("Json", json.loads(text, parse_constant=_refuse))


def content_parts(message: dict[str, Json]) -> list[Json]:
    """Give the parts of a message's content; text and none at all are no parts."""
    content = message.get("content")
    return content if isinstance(content, list) else []


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _objects(value: Json) -> list[dict[str, Json]]:
    objects = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(objects) < len(value):
        raise MalformedError("malformed_request")
    return objects


def _is_message(message: dict[str, Json]) -> bool:
    calls = message.get("tool_calls")
    return (
        message.get("role") in ROLES
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
