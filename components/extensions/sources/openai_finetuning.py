"""OpenAI's fine-tuning files: rows of ``messages`` (SFT), and preference rows (DPO).

An SFT row ends with the assistant message to learn; it becomes an interaction with that answer. A
DPO row has ``input``, ``preferred_output`` and ``non_preferred_output``; it becomes an interaction
with the preferred answer, and feedback with the choice between the two. Neither has a time or ids:
the time is 0, the id is the content's digest, the actor is ``ACTOR``.
"""

from collections.abc import Iterable

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "openai_finetuning"

ACTOR = "annotator"  # the actor of a DPO row's choice, which the format does not name

PREFERENCE = {"input", "preferred_output", "non_preferred_output"}
TOOL_KEYS = ("tools", "functions", "parallel_tool_calls")
"""Optional keys of a row besides its messages."""

ALLOWED = {"messages", *TOOL_KEYS}


def claims(value: dict[str, Json]) -> bool:
    """Claim preference rows, and rows of messages that end with the assistant's."""
    if value.keys() >= PREFERENCE:
        return True
    match value.get("messages"):
        case [_, *_, {"role": "assistant"}]:
            return value.keys() <= ALLOWED
        case _:
            return False


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterable[SourceRecord]:
    """Return the records of a row of either kind."""
    response_id = f"ft-{fields.digest(row.value)}"
    if "input" not in row.value:
        request, answer = learned(row.value)
        return [ParsedRecord(row, "interactions", answered(defaults, request, answer, response_id))]
    source_input = fields.require_object(row.value, "input")
    messages = canonical.messages(
        fields.require_array(source_input, "messages", "input."), "input.messages"
    )
    request = canonical.request(messages, _tool_values(source_input))
    preferred = _only(row.value, "preferred_output")
    other = _only(row.value, "non_preferred_output")
    choice: Json = {"chosen": preferred, "rejected": other}
    chosen = annotation(defaults, "choice", choice, response_id)
    return [
        ParsedRecord(row, "interactions", answered(defaults, request, preferred, response_id)),
        ParsedRecord(row, "feedback", chosen),
    ]


def learned(value: Obj) -> tuple[Obj, Obj]:
    """Return a row of messages as the request and the answer, its last message."""
    messages = canonical.messages(fields.require_array(value, "messages"), "messages")
    if len(messages) < 2:
        raise fields.WrongShapeError(
            f"`messages` has {len(messages)} elements, expected a request and an answer"
        )
    match messages[-1]:
        case {"role": "assistant", **rest}:
            answer: Obj = {"role": "assistant"} | {k: v for k, v in rest.items() if k != "weight"}
            return canonical.request(messages[:-1], _tool_values(value)), answer
        case last:
            role = fields.require_text(last, "role") if isinstance(last, dict) else ""
            at = f"messages[{len(messages) - 1}].role"
            raise fields.unknown_value(at, role, "the assistant's answer at the end")


def answered(
    defaults: Defaults, request: Obj, answer: Obj, response_id: str, metadata: Obj | None = None
) -> Obj:
    """Return the interaction of a row without a time and a user."""
    response = canonical.response([canonical.answer(answer)], response_id=response_id)
    time = canonical.NO_TIME
    return canonical.interaction(
        defaults, timestamp=time, request=request, response=response, metadata=metadata
    )


def annotation(defaults: Defaults, kind: str, value: Json, response_id: str) -> Obj:
    """Return the feedback on the answer of such a row."""
    return canonical.feedback(
        defaults,
        timestamp=canonical.NO_TIME,
        actor_id=ACTOR,
        kind=kind,
        value=value,
        target=("response_id", response_id),
    )


def _tool_values(holder: Obj) -> Obj:
    return {key: holder.get(key) for key in TOOL_KEYS}


def _only(value: Obj, key: str) -> Obj:
    match canonical.messages(fields.require_array(value, key), key):
        case [{"role": "assistant"} as message]:
            return message
        case [{"role": str(role)}]:
            raise fields.unknown_value(f"{key}[0].role", role, "assistant")
        case others:
            raise fields.WrongShapeError(
                f"`{key}` has {len(others)} elements, expected one message"
            )
