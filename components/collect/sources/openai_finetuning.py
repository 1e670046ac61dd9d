"""OpenAI's fine-tuning files: rows of ``messages`` (SFT), and preference rows (DPO).

An SFT row ends with the assistant message to learn; it becomes an interaction that was answered so.
A DPO row holds ``input``, ``preferred_output`` and ``non_preferred_output``; it becomes an
interaction with the preferred answer, and the choice between the two as feedback about it. Neither
has a time or ids: the time is 0, ids and actor are fixed by the content.
"""

from collections.abc import Iterable, Iterator

from components.collect.record import Defaults, Found, Refused, Row
from components.collect.sources import chat, shape
from components.collect.sources.shape import Obj
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


def read(rows: Iterable[Row], defaults: Defaults) -> Iterator[Found | Refused]:
    """Read rows of either kind."""
    return shape.each(rows, lambda row: _convert(row, defaults))


def _convert(row: Row, defaults: Defaults) -> Iterable[Found | Refused]:
    response_id = f"ft-{shape.digest(row.value)}"
    if "input" not in row.value:
        request, answer = learned(row.value)
        return [Found(row, "interactions", answered(defaults, request, answer, response_id))]
    given = shape.want_object(row.value, "input")
    messages = chat.messages(shape.want_array(given, "messages", "input."), "input.messages")
    request = chat.request(messages, _beside(given))
    preferred = _only(row.value, "preferred_output")
    other = _only(row.value, "non_preferred_output")
    chosen = chat.feedback(
        defaults,
        timestamp=chat.NO_TIME,
        actor_id=ACTOR,
        kind="choice",
        value={"chosen": preferred, "rejected": other},
        target=("response_id", response_id),
    )
    return [
        Found(row, "interactions", answered(defaults, request, preferred, response_id)),
        Found(row, "feedback", chosen),
    ]


def learned(value: Obj) -> tuple[Obj, Obj]:
    """Take a row of messages apart: the request before the last message, and that as the answer."""
    messages = chat.messages(shape.want_array(value, "messages"), "messages")
    if len(messages) < 2:
        raise shape.WrongShapeError(
            f"`messages` has {len(messages)} elements, wants a request and an answer"
        )
    match messages[-1]:
        case {"role": "assistant", **rest}:
            answer: Obj = {"role": "assistant"} | {k: v for k, v in rest.items() if k != "weight"}
            return chat.request(messages[:-1], _beside(value)), answer
        case last:
            role = shape.want_text(last, "role") if isinstance(last, dict) else ""
            at = f"messages[{len(messages) - 1}].role"
            raise shape.unknown(at, role, "the assistant's answer at the end")


def answered(defaults: Defaults, request: Obj, answer: Obj, response_id: str) -> Obj:
    """Write the interaction of a row that has no time and names nobody."""
    reason = "tool_calls" if answer.get("tool_calls") else "stop"
    response = chat.response([chat.choice(answer, reason)], response_id=response_id)
    return chat.interaction(defaults, timestamp=chat.NO_TIME, request=request, response=response)


def _beside(holder: Obj) -> Obj:
    return {key: holder.get(key) for key in BESIDE}


def _only(value: Obj, key: str) -> Obj:
    """Read the one assistant message of an output."""
    match chat.messages(shape.want_array(value, key), key):
        case [{"role": "assistant"} as message]:
            return message
        case [{"role": str(role)}]:
            raise shape.unknown(f"{key}[0].role", role, "assistant")
        case others:
            raise shape.WrongShapeError(f"`{key}` has {len(others)} elements, wants one message")
