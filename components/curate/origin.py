"""Where a request comes from: its conversation, its user, its tools, and the turns before it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from components import manifest
from components.curate import split
from components.curate.candidate import Candidate, Row
from components.curate.split import SplitBy
from components.schema import Json

ASKING = ("user", "tool")
"""The roles whose messages a model answers."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a request may have in common with others, as digests.

    ``tools`` is set where the workload is split by them. ``path`` has one digest for each message
    that a user or a tool sent, of all such messages up to it, so that a path is a prefix of that of
    every later turn. ``context`` is of system messages and tools. ``answered_before`` is of the
    last such message before the newest and the answer to it, ``answered`` of the newest and its
    logged answer: where an application cuts its histories, one turn's ``answered`` is the next
    one's ``answered_before``. ``former_group`` is the group that versions before 0026 settled.
    """

    request: str
    redacted_request: str | None
    tools: str | None
    conversation: str | None
    user: str | None
    path: tuple[str, ...]
    context: str
    answered_before: str | None
    answered: str
    former_group: str


def read(row: Row, candidate: Candidate, split_by: SplitBy, redacted_request: str | None) -> Origin:
    """Read the origin of an interaction, of what was logged before redaction."""
    names = candidate.tool_names
    messages = [one for one in candidate.messages if one["role"] in (*ASKING, "assistant")]
    return Origin(
        request=row.example_id,
        redacted_request=redacted_request,
        tools=split.tools(names) if split_by == "tools" and names else None,
        conversation=split.conversation(row.conversation_id) if row.conversation_id else None,
        user=split.user(row.user_id) if row.user_id else None,
        path=_path(messages, candidate.opening),
        context=manifest.digest([candidate.said("system", "developer"), row.tools]),
        answered_before=_answered_before(messages),
        answered=manifest.digest([_asked(messages), _content(_logged(candidate))]),
        former_group=split.group(split_by, names, candidate.opening, row.user_id),
    )


def _path(messages: Sequence[dict[str, Json]], opening: str) -> tuple[str, ...]:
    path: list[str] = []
    for message in messages:
        if message["role"] == "assistant":
            continue
        if not path and message["role"] == "user":
            path.append(split.opening_group(opening))
        else:
            path.append(manifest.digest(["path", *path[-1:], message["role"], _content(message)]))
    return tuple(path)


def _answered_before(messages: Sequence[dict[str, Json]]) -> str | None:
    """Hash the last message that was answered before the newest, and its answer."""
    asked = [n for n, one in enumerate(messages) if one["role"] in ASKING]
    answers = [n for n, one in enumerate(messages[: asked[-1]]) if one["role"] == "assistant"]
    before = [n for n in asked if answers and n < answers[-1]]
    if not before:
        return None
    return manifest.digest([_content(messages[before[-1]]), _content(messages[answers[-1]])])


def _asked(messages: Sequence[dict[str, Json]]) -> Json:
    return _content(next(one for one in reversed(messages) if one["role"] in ASKING))


def _logged(candidate: Candidate) -> dict[str, Json]:
    return (candidate.logged if candidate.is_corrected else candidate.message) or {}


def _content(message: dict[str, Json]) -> Json:
    """Return a message's text and calls without their ids, which say nothing of its meaning."""
    content, calls = message.get("content"), message.get("tool_calls")
    text = content.strip() if isinstance(content, str) else json.dumps(content, sort_keys=True)
    functions: list[Json] = (
        [one.get("function") for one in calls if isinstance(one, dict)]
        if isinstance(calls, list)
        else []
    )
    return ["" if content is None else text, functions]
