"""People's answers as feedback records, and the files of labelling tools."""

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
    """Return a vote's record; ``target`` has ``workload_id``, ``client_id``, ``response_id``."""
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
    """Return the record of a correction: the assistant message that is the right answer."""
    return _record(target, "correction", message, reviewer, at, comment)


def to_message(answer: Answer) -> dict[str, Json]:
    """Return an answer as the assistant message of a chat completion."""
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    if answer.calls:
        message["tool_calls"] = [_call(number, call) for number, call in enumerate(answer.calls, 1)]
    return message


def read_message(correction: Json) -> dict[str, Json]:
    """Parse a corrected answer: its text, or the whole assistant message."""
    if isinstance(correction, str) and correction.lstrip().startswith("{"):
        try:
            correction = json.loads(correction)
        except ValueError as error:
            raise ValueError(f"the correction looks like JSON and is not: {error}") from error
    match correction:
        case str() if correction.strip():
            return {"role": "assistant", "content": correction.strip()}
        case {"role": "assistant", "content": str(content)} if content.strip():
            return correction
        case {"role": "assistant", "tool_calls": list(calls)} if calls:
            return correction
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
    """The interaction that feedback refers to."""

    interaction_id: str
    client_id: str
    response_id: str | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """One line of the file: its feedback record, or why it is invalid; neither if unanswered."""

    number: int
    content: bytes
    record: dict[str, Json] | None = None
    objection: str | None = None


def question_line(question: ReviewQuestion, *, now: datetime) -> str:
    """Return a question as a JSON line; ``asked_at`` makes reading its answer idempotent."""
    about = question.about
    return json.dumps(
        {
            "interaction_id": about.interaction_id,
            "workload_id": about.workload_id,
            "client_id": about.client_id,
            "response_id": about.response_id,
            "asked_at": now.isoformat(),
            "why": [reason.text for reason in question.reasons],
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
    """Parse the lines of a labelling tool's file; blank ones are skipped.

    Each must still name an interaction of the workload with its own client and response, so that an
    answer can't land on another's traffic.
    """
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    parsed = [(number, line, _json(line)) for number, line in numbered]
    targets = find_targets(con, workload_id, [_named(value) for _, _, value in parsed])
    for number, content, value in parsed:
        try:
            record = _feedback(value, workload_id, targets, reviewer)
            yield Labelled(number, content, record=record)
        except ValueError as error:
            yield Labelled(number, content, objection=str(error))


def _feedback(
    value: Json, workload_id: str, targets: Mapping[str, Target], reviewer: str
) -> dict[str, Json] | None:
    """Return a line's feedback record; ``None`` if it is unanswered or skipped."""
    if not isinstance(value, dict):
        raise ValueError("the line is not a JSON object")  # noqa: TRY004 - an objection to a line
    if not _is_storable(value):
        raise ValueError("it has half a character (a lone surrogate), or is nested too deeply")
    verdict, corrected = value.get("verdict"), value.get("correction")
    if verdict is None and corrected is None:
        return None
    if verdict not in (None, "good", "bad", "skip"):
        raise ValueError(
            f"`verdict` is {json.dumps(verdict)[:80]}, expected good, bad, skip or null"
        )
    target = targets.get(_named(value))
    named = (value.get("client_id"), value.get("response_id"))
    if target is None or named != (target.client_id, target.response_id):
        raise ValueError(f"the line's ids match no interaction of {workload_id}")
    comment, at = str(value.get("comment") or ""), _time(value.get("asked_at"))
    about: dict[str, Json] = {
        "workload_id": workload_id,
        "client_id": target.client_id,
        "response_id": target.response_id,
    }
    if corrected is not None:
        message = read_message(corrected)
        return correction_feedback(about, message, reviewer=reviewer, at=at, comment=comment)
    if verdict == "good" or verdict == "bad":
        return vote_feedback(about, verdict, reviewer=reviewer, at=at, comment=comment)
    return None


def _time(value: Json) -> datetime:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ValueError("`asked_at` is not a time, expected that of the export") from error
    if at.tzinfo is None:
        raise ValueError("`asked_at` has no time zone, expected that of the export")
    return at


def find_targets(con: Connection, workload_id: str, ids: list[str]) -> dict[str, Target]:
    """Find what feedback on the named interactions of a workload is aimed at, by their ids."""
    with warehouse.present(con, "named", {"interaction_id": pa.array(ids, pa.string())}):
        targets = warehouse.records(con, "marts/review_targets", Target, workload_id=workload_id)
    return {target.interaction_id: target for target in targets}


def _named(value: Json) -> str:
    name = str(value.get("interaction_id", "")) if isinstance(value, dict) else ""
    return name if _is_storable(name) else ""


def _is_storable(value: Json) -> bool:
    """Return whether a value can be written as UTF-8: an escape can name half a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _json(content: bytes) -> Json:
    try:
        value: Json = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value
