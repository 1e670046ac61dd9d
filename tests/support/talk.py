"""Conversations for tests of redaction, and what is left of them."""

import json
from collections.abc import Iterable

from components.curate.redaction import json_texts, redactor
from components.curate.redaction.redactor import Conversation, Redacted
from components.curate.redaction.surrogate_keys import Marked
from components.curate.settings import Allowed, Redaction
from components.extensions.surrogates.conversation_surrogates import (
    ConversationSurrogates as StandIns,
)
from components.schema import Json
from tests.support import logs


def redact(conversation: Conversation, settings: Redaction | None = None) -> Redacted:
    """Redact a conversation as a workload would."""
    return redactor.for_settings(settings or Redaction()).redact(conversation)


def stand_in(
    conversation: Conversation,
    key: bytes = bytes(32),
    taken: Iterable[str] = (),
    settings: Redaction | None = None,
) -> Conversation:
    """Put surrogates in the places of a conversation's values."""
    settings = settings or Redaction()
    redacted = redact(conversation, settings)
    if redacted.marked is None:
        return conversation
    parts = ("messages", "tools", "answers", "acceptable")
    texts = {name: json_texts.dumps(getattr(redacted.marked, name)) for name in parts}
    marked = Marked(redacted.first_mark, redacted.occurrences, texts)
    drawn = StandIns(key, frozenset(taken), Allowed.by(settings))
    drawn.draw([marked])
    return Conversation(**{name: json.loads(drawn.write(marked, name) or "") for name in parts})


def made_up(text: str, key: bytes = bytes(32), taken: Iterable[str] = ()) -> str:
    """Return a user's single message with surrogates."""
    (message,) = stand_in(Conversation([user(text)]), key, taken).messages
    return str(message["content"])


def user(text: str) -> dict[str, Json]:
    """Write a user's message."""
    return {"role": "user", "content": text}


def said(text: str, settings: Redaction | None = None) -> str:
    """Give what a user's single message becomes."""
    (message,) = redact(Conversation([user(text)]), settings).conversation.messages
    return str(message["content"])


def text_call(arguments: str) -> dict[str, Json]:
    """Write an assistant message that calls a tool with arguments as JSON text."""
    return logs.call("book", arguments)


def arguments(message: dict[str, Json]) -> Json:
    """Read the arguments of a message's only call."""
    match message:
        case {"tool_calls": [{"function": {"arguments": str(text)}}]}:
            return json.loads(text)
        case {"tool_calls": [{"function": {"arguments": given}}]}:
            return given
        case _:
            raise AssertionError(f"no call in {message}")
