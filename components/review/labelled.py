"""The file for a labelling tool: a question a line, and back with ``verdict`` or ``correction``.

What the tool gives back is checked line by line: it must still name an interaction of the workload,
with its own client and response, so that nobody's answer lands on another's traffic.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from components import warehouse
from components.review import answers
from components.review.reading import Question
from components.schema import Answer, Json
from components.warehouse import Connection


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


def line(question: Question, *, now: datetime) -> str:
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
            "answer": answers.to_message(Answer.from_json(about.answer)),
            "verdict": None,
            "correction": None,
            "comment": None,
        },
        ensure_ascii=False,
    )


def read(
    con: Connection, lines: Iterable[bytes], workload_id: str, *, reviewer: str
) -> Iterator[Labelled]:
    """Read what a labelling tool gave back; blank lines are left out."""
    numbered = [(number, one) for number, one in enumerate(lines, 1) if one.strip()]
    parsed = [(number, one, _json(one)) for number, one in numbered]
    targets = _targets(con, workload_id, [_named(value) for _, _, value in parsed])
    for number, content, value in parsed:
        yield _read(number, content, value, workload_id, targets, reviewer)


def _read(
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
        message = answers.read_message(corrected)
        return answers.correction(about, message, reviewer=reviewer, at=at, comment=comment)
    if verdict == "good" or verdict == "bad":
        return answers.vote(about, verdict, reviewer=reviewer, at=at, comment=comment)
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
