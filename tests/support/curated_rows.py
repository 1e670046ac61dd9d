"""Rows of candidates, for tests of the rules to vary."""

import json
from collections.abc import Sequence

from components.curate import interaction
from components.curate.interaction import Candidate, CandidateRow
from components.schema import Json
from tests.support import logs


def row(
    *,
    messages: Json = None,
    tools: Json = None,
    message: Json = None,
    finish_reason: str | None = "stop",
    is_corrected: bool = False,
    acceptable: Json = None,
    released: Sequence[str] = (),
) -> CandidateRow:
    return CandidateRow(
        workload_id="w",
        interaction_id="i",
        example_id="e",
        logged_at=logs.NOW,
        conversation_id=None,
        user_id=None,
        messages=json.dumps(messages or [{"role": "user", "content": "Weather in Rome?"}]),
        tools=json.dumps([logs.WEATHER] if tools is None else tools),
        message=json.dumps(message or logs.call("weather", {"city": "Rome"})),
        finish_reason=finish_reason,
        is_corrected=is_corrected,
        acceptable=None if acceptable is None else json.dumps(acceptable),
        released=[*released],
    )


def answered(
    text: str, *, asked: str = "Tell me.", system: str = "", is_corrected: bool = False
) -> Candidate:
    """Read a conversation without tools, in which ``text`` is the answer."""
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": asked})
    return interaction.read(
        row(messages=messages, tools=[], message=logs.say(text), is_corrected=is_corrected)
    )


def asked(text: str) -> Candidate:
    """Read a conversation in which ``text`` is what the user said."""
    return answered("Yes.", asked=text)
