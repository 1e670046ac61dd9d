"""People's answers as feedback records, and the file of a labelling tool."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import pyarrow as pa

from components.review.pick import ReviewQuestion
from components.schema import Answer, Call, Json
from components.store import warehouse
from components.store.warehouse import Connection

Verdict: TypeAlias = Literal["good", "bad"]


def vote_feedback(
    target: dict[str, Json], verdict: Verdict, *, reviewer: str, at: datetime, comment: str = ""
) -> dict[str, Json]:
    """Write a thumb; ``target`` holds ``workload_id``, ``client_id`` and ``response_id``."""
    thumb = "up" if verdict == "good" else "down"
    return _record(target, "thumb", thumb, reviewer, at, comment)


def correction_feedback(
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


@dataclass(frozen=True, slots=True)
class Target:
    """What feedback on an interaction is aimed at."""

    interaction_id: str
    client_id: str
    response_id: str | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """One line of the file: the feedback that it is, or why it can't be read.

    Neither, if nobody has answered it.
    """

    number: int
    content: bytes
    record: dict[str, Json] | None = None
    objection: str | None = None


def question_line(question: ReviewQuestion, *, now: datetime) -> str:
    """Write a question; ``asked_at`` makes an answer, read twice, the same answer."""
    about = question.about
    return json.dumps(
        {
            "interaction_id": about.interaction_id,
            "workload_id": about.workload_id,
            "client_id": about.client_id,
            "response_id": about.response_id,
            "asked_at": now.isoformat(),
            "why": [reason.said for reason in question.pick.reasons],
            "messages": json.loads(about.messages),
            "tools": json.loads(about.tools),
            "answer": to_message(Answer.from_json(about.answer)),
            "verdict": None,
            "correction": None,
            "comment": None,
        },
        ensure_ascii=False,
    )


def read_labels(
    con: Connection, lines: Iterable[bytes], workload_id: str, *, reviewer: str
) -> Iterator[Labelled]:
    """Read what a labelling tool gave back; blank lines are left out."""
    numbered = [(number, one) for number, one in enumerate(lines, 1) if one.strip()]
    parsed = [(number, one, _json(one)) for number, one in numbered]
    targets = _targets(con, workload_id, [_named(value) for _, _, value in parsed])
    for number, content, value in parsed:
        yield _read_line(number, content, value, workload_id, targets, reviewer)


def _read_line(
    number: int,
    content: bytes,
    value: Json,
    workload_id: str,
    targets: Mapping[str, Target],
    reviewer: str,
) -> Labelled:
    if not isinstance(value, dict):
        return Labelled(number, content, objection="the line is no JSON object")
    try:
        record = _feedback(value, workload_id, targets, reviewer)
    except ValueError as error:
        return Labelled(number, content, objection=str(error))
    return Labelled(number, content, record=record)


def _feedback(
    value: dict[str, Json], workload_id: str, targets: Mapping[str, Target], reviewer: str
) -> dict[str, Json] | None:
    """Turn a line into a feedback record.

    Raises:
        ValueError: Saying what is wrong with it.
    """
    verdict, corrected = value.get("verdict"), value.get("correction")
    if verdict is None and corrected is None:
        return None
    if verdict not in (None, "good", "bad", "skip"):
        raise ValueError(f"`verdict` is {json.dumps(verdict)[:80]}, wants good, bad, skip or null")
    target = targets.get(_named(value))
    aimed = None if target is None else (target.client_id, target.response_id)
    if aimed != (value.get("client_id"), value.get("response_id")):
        raise ValueError(f"the line names no interaction of {workload_id}, or another's")
    comment, at = str(value.get("comment") or ""), _time(value.get("asked_at"))
    about: dict[str, Json] = {**value, "workload_id": workload_id}
    if corrected is not None:
        message = read_message(corrected)
        return correction_feedback(about, message, reviewer=reviewer, at=at, comment=comment)
    if verdict == "good" or verdict == "bad":
        return vote_feedback(about, verdict, reviewer=reviewer, at=at, comment=comment)
    return None


def _time(given: Json) -> datetime:
    try:
        at = datetime.fromisoformat(str(given))
    except ValueError as error:
        raise ValueError("`asked_at` is no time, wants that of the export") from error
    if at.tzinfo is None:
        raise ValueError("`asked_at` has no time zone, wants that of the export")
    return at


def _targets(con: Connection, workload_id: str, ids: list[str]) -> dict[str, Target]:
    with warehouse.present(con, "named", {"interaction_id": pa.array(ids, pa.string())}):
        found = list(warehouse.read(con, "marts/review_targets", Target, workload_id=workload_id))
    return {one.interaction_id: one for one in found}


def _named(value: Json) -> str:
    return str(value.get("interaction_id", "")) if isinstance(value, dict) else ""


def _json(content: bytes) -> Json:
    try:
        found: Json = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found
