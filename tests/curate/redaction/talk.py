"""Conversations for tests of redaction, and what is left of them."""

import json

from components.curate.redaction.redactor import Conversation, Redacted, Redactor
from components.curate.redaction.settings import Redaction
from components.schema import Json
from tests import logs


def redact(conversation: Conversation, settings: Redaction | None = None) -> Redacted:
    """Redact a conversation as a workload would."""
    return Redactor(settings or Redaction()).redact(conversation)


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
