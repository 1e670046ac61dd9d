"""OpenAI's fine-tuning files: rows of ``messages`` (SFT), and preference rows (DPO).

An SFT row ends with the assistant message to learn; it becomes an interaction that was answered so.
A DPO row holds ``input``, ``preferred_output`` and ``non_preferred_output``; it becomes an
interaction with the preferred answer, and the choice between the two as feedback about it. Neither
has a time or ids: the time is 0, ids and actor are fixed by the content.
"""

from collections.abc import Iterable, Iterator

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, SourceRow
from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "openai_finetuning"

ACTOR = "annotator"
"""Who chose between the answers of a DPO row: the format does not say."""

PREFERENCE = {"input", "preferred_output", "non_preferred_output"}
BESIDE = ("tools", "functions", "parallel_tool_calls")
"""What a row may offer beside its messages."""

ALLOWED = {"messages", *BESIDE}


def claims(value: dict[str, Json]) -> bool:
    """Take preference rows, and rows of messages that end with an assistant's."""
    if value.keys() >= PREFERENCE:
        return True
    match value.get("messages"):
        case [_, *_, {"role": "assistant"}]:
            return value.keys() <= ALLOWED
        case _:
            return False


def read(rows: Iterable[SourceRow], defaults: Defaults) -> Iterator[ParsedRecord | RejectedRecord]:
    """Read rows of either kind."""
    return fields.each(rows, lambda row: _convert(row, defaults))


def _convert(row: SourceRow, defaults: Defaults) -> Iterable[ParsedRecord | RejectedRecord]:
    response_id = f"ft-{fields.digest(row.value)}"
    if "input" not in row.value:
        request, answer = learned(row.value)
        return [ParsedRecord(row, "interactions", answered(defaults, request, answer, response_id))]
    given = fields.want_object(row.value, "input")
    messages = canonical.messages(fields.want_array(given, "messages", "input."), "input.messages")
    request = canonical.request(messages, _beside(given))
    preferred = _only(row.value, "preferred_output")
    other = _only(row.value, "non_preferred_output")
    chosen = canonical.feedback(
        defaults,
        timestamp=canonical.NO_TIME,
        actor_id=ACTOR,
        kind="choice",
        value={"chosen": preferred, "rejected": other},
        target=("response_id", response_id),
    )
    return [
        ParsedRecord(row, "interactions", answered(defaults, request, preferred, response_id)),
        ParsedRecord(row, "feedback", chosen),
    ]


def learned(value: Obj) -> tuple[Obj, Obj]:
    """Take a row of messages apart: the request before the last message, and that as the answer."""
    messages = canonical.messages(fields.want_array(value, "messages"), "messages")
    if len(messages) < 2:
        raise fields.WrongShapeError(
            f"`messages` has {len(messages)} elements, wants a request and an answer"
        )
    match messages[-1]:
        case {"role": "assistant", **rest}:
            answer: Obj = {"role": "assistant"} | {k: v for k, v in rest.items() if k != "weight"}
            return canonical.request(messages[:-1], _beside(value)), answer
        case last:
            role = fields.want_text(last, "role") if isinstance(last, dict) else ""
            at = f"messages[{len(messages) - 1}].role"
            raise fields.unknown(at, role, "the assistant's answer at the end")


def answered(defaults: Defaults, request: Obj, answer: Obj, response_id: str) -> Obj:
    """Write the interaction of a row that has no time and names nobody."""
    reason = "tool_calls" if answer.get("tool_calls") else "stop"
    response = canonical.response([canonical.choice(answer, reason)], response_id=response_id)
    return canonical.interaction(
        defaults, timestamp=canonical.NO_TIME, request=request, response=response
    )


def _beside(holder: Obj) -> Obj:
    return {key: holder.get(key) for key in BESIDE}


def _only(value: Obj, key: str) -> Obj:
    """Read the one assistant message of an output."""
    match canonical.messages(fields.want_array(value, key), key):
        case [{"role": "assistant"} as message]:
            return message
        case [{"role": str(role)}]:
            raise fields.unknown(f"{key}[0].role", role, "assistant")
        case others:
            raise fields.WrongShapeError(f"`{key}` has {len(others)} elements, wants one message")
