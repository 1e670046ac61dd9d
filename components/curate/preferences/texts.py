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
    """A request and answers to it, as OpenAI has them."""

    messages: list[Message]
    tools: list[Message]
    answers: list[Message]


Redact: TypeAlias = Callable[[Exchange], Exchange | None]
"""Take out of an exchange what is personal, the same for the same; ``None`` if that fails."""


@dataclass(frozen=True, slots=True)
class Written:
    """A request as JSON text, and the answers to it."""

    messages: str
    tools: str
    answers: tuple[Answer, ...]


def write(messages: str, tools: str, answers: Sequence[Answer], redact: Redact) -> Written | None:
    """Redact a request with the answers to it, so that all have the same placeholders."""
    asked = Exchange(
        cast("list[Message]", json.loads(messages)),
        cast("list[Message]", json.loads(tools)),
        [message(one) for one in answers],
    )
    found = redact(asked)
    if found is None:
        return None
    read = tuple(prompt.read_message(one) for one in found.answers)
    return Written(dumps(found.messages), dumps(found.tools), read)


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


def are_equal(answers: Sequence[Answer]) -> bool:
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
