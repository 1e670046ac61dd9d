"""Read Langfuse's scores as feedback, corrections included."""

from typing import cast

from components.collect.record import Defaults
from components.collect.sources import chat, observed, shape, signals
from components.collect.sources.chat import Target
from components.collect.sources.shape import Obj
from components.schema import Json

SOURCES = ("API", "ANNOTATION", "EVAL")
KINDS = "NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION"


def is_score(row: Obj) -> bool:
    """Tell a score from an observation; its fields are named as exports name them."""
    return "name" in row and ("data_type" in row or row.get("source") in SOURCES)


def feedback(score: Obj, defaults: Defaults) -> Obj:
    """Write a score; it is about an observation, a session, or a trace.

    Of a trace is not known which of its answers was scored, so the target stays open.
    """
    kind, value = _signal(score)
    actor = shape.may_text(score, "author_user_id") or shape.may_text(score, "source") or "unknown"
    metadata = shape.unpacked(score, "metadata")
    return chat.feedback(
        defaults,
        timestamp=score.get("timestamp"),
        actor_id=actor,
        kind=kind,
        value=value,
        target=_target(score),
        comment=shape.may_text(score, "comment"),
        metadata=metadata if isinstance(metadata, dict) else None,
    )


def _signal(score: Obj) -> tuple[str, Json]:
    name = shape.want_text(score, "name")
    value = score.get("value")
    match shape.may_text(score, "data_type") or "NUMERIC":
        case "NUMERIC":
            return signals.signal(name, shape.want_number(score, "value"))
        case "BOOLEAN":
            if value not in (0, 1):
                raise shape.wrong("value", value, "0 or 1, or a boolean")
            return signals.signal(name, value == 1)
        case "CATEGORICAL":
            return signals.signal(name, _text(score))
        case "TEXT":
            return "comment", _text(score)
        case "CORRECTION":
            text = _text(score)
            said = shape.loads(text) if text.lstrip()[:1] in ("{", "[") else None
            return "correction", observed.answer(text if said is None else said, "value")
        case other:
            raise shape.unknown("data_type", other, KINDS)


def _text(score: Obj) -> str:
    """Read the text of a score, which newer exports and the API hold in different fields."""
    for key in ("string_value", "long_string_value"):
        if text := shape.may_text(score, key):
            return text
    return shape.want_text(score, "value")


def _target(score: Obj) -> Target:
    match score.get("subject"):
        case {"kind": "observation", "id": str(id)}:
            return "response_id", id
        case {"kind": "session", "id": str(id)}:
            return "conversation_id", id
        case {"kind": "trace", "id": str(id)}:
            return "target_id", id
        case _:
            pass
    for key, target in (
        ("observation_id", "response_id"),
        ("trace_id", "target_id"),
        ("session_id", "conversation_id"),
    ):
        if text := shape.may_text(score, key):
            return cast("Target", (target, text))
    raise shape.missing("trace_id", "text, or an observation_id or session_id")
