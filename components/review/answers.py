"""Write what a person said about an answer as a feedback record, in the form that collect reads."""

import json
from datetime import datetime
from typing import Literal, TypeAlias

from components.schema import Answer, Call, Json

Verdict: TypeAlias = Literal["good", "bad"]


def vote(
    target: dict[str, Json], verdict: Verdict, *, reviewer: str, at: datetime, comment: str = ""
) -> dict[str, Json]:
    """Write a thumb; ``target`` holds ``workload_id``, ``client_id`` and ``response_id``."""
    thumb = "up" if verdict == "good" else "down"
    return _record(target, "thumb", thumb, reviewer, at, comment)


def correction(
    target: dict[str, Json],
    message: dict[str, Json],
    *,
    reviewer: str,
    at: datetime,
    comment: str = "",
) -> dict[str, Json]:
    """Write the assistant message that should have been the answer."""
    return _record(target, "correction", message, reviewer, at, comment)


def to_message(answer: Answer) -> dict[str, Json]:
    """Write an answer as the assistant message of a chat completion."""
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    if answer.calls:
        message["tool_calls"] = [_call(number, one) for number, one in enumerate(answer.calls, 1)]
    return message


def read_message(given: Json) -> dict[str, Json]:
    """Read a corrected answer: its text, or the whole assistant message.

    Raises:
        ValueError: It is neither, or says nothing.
    """
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise ValueError(f"the correction looks like JSON and is not: {error}") from error
    match given:
        case str() if given.strip():
            return {"role": "assistant", "content": given.strip()}
        case {"role": "assistant", "content": str(content)} if content.strip():
            return given
        case {"role": "assistant", "tool_calls": list(calls)} if calls:
            return given
        case _:
            raise ValueError("a correction is text, or an assistant message with content or calls")


def _call(number: int, call: Call) -> Json:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _record(
    target: dict[str, Json], kind: str, value: Json, reviewer: str, at: datetime, comment: str
) -> dict[str, Json]:
    record: dict[str, Json] = {
        "timestamp": at.isoformat(),
        "workload_id": target["workload_id"],
        "client_id": target["client_id"],
        "response_id": target["response_id"],
        "actor_id": reviewer,
        "kind": kind,
        "value": value,
    }
    return record | ({"comment": comment} if comment else {})
