"""Write a prompt and answers to it as they are stored, redacted together."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias, cast

from components import prompt
from components.curate.preferences.signal import key
from components.schema import Answer, Json

Message: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Exchange:
    """The request of an interaction and answers to it, as OpenAI has them.

    If it ``is_corrected``, the first answer is a person's correction.
    """

    interaction_id: str
    messages: list[Message]
    tools: list[Message]
    answers: list[Message]
    is_corrected: bool = False


@dataclass(frozen=True, slots=True)
class Redacted:
    """An exchange without personal data, as it is stored and with placeholders."""

    stored: Exchange
    placeholders: Exchange


Redact: TypeAlias = Callable[[Exchange], Redacted | None]
"""Take out of an exchange what is personal, the same for the same; ``None`` if that fails."""


@dataclass(frozen=True, slots=True)
class Written:
    """A request as JSON text, and the answers to it.

    They are ``identical`` if they differ in no more than how personal data is written.
    """

    messages: str
    tools: str
    answers: tuple[Answer, ...]
    identical: bool


def write(exchange: Exchange, redact: Redact) -> Written | None:
    """Redact a request with the answers to it, so that a value is the same in all of them."""
    found = redact(exchange)
    if found is None:
        return None
    read = tuple(prompt.read_message(one) for one in found.stored.answers)
    bare = [prompt.read_message(one) for one in found.placeholders.answers]
    stored = found.stored
    return Written(dumps(stored.messages), dumps(stored.tools), read, _are_equal(bare))


def exchange(
    interaction_id: str,
    messages: str,
    tools: str,
    answers: Sequence[Answer],
    *,
    is_corrected: bool = False,
) -> Exchange:
    """Read a request from JSON text, with answers to it."""
    return Exchange(
        interaction_id,
        cast("list[Message]", json.loads(messages)),
        cast("list[Message]", json.loads(tools)),
        [message(one) for one in answers],
        is_corrected,
    )


def said_by_users(messages: str) -> list[str]:
    """Give what users said in a request, in its order."""
    return [prompt.text_of(one) for one in json.loads(messages) if one.get("role") == "user"]


def message(answer: Answer) -> Message:
    """Give an answer as an assistant message."""
    calls: list[Json] = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.calls
    ]
    said: Message = {"role": "assistant", "content": answer.text}
    return {**said, "tool_calls": calls} if calls else said


def _are_equal(answers: Sequence[Answer]) -> bool:
    """Tell whether answers have become one."""
    return len({key(one) for one in answers}) == 1


def dump(answer: Answer) -> str:
    """Write an answer as JSON, its arguments in the order given: a model learns that order."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def dumps(value: Sequence[Message]) -> str:
    """Write JSON compactly; half a character, which only an escape can write, is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
