"""Read feedback out of OpenTelemetry's evaluation events."""

from components.collect.record import Defaults
from components.collect.sources import chat, shape, signals
from components.collect.sources.chat import Target
from components.collect.sources.otlp_events import EVALUATION, Event
from components.collect.sources.shape import Obj
from components.schema import Json

USER_FEEDBACK = "gen_ai.evaluation.user_feedback"

FEELING: list[Json] = [-1, 1]
"""The scale of user feedback: -1 is bad, 0 neutral, 1 good."""


def feedback(defaults: Defaults, event: Event, span_id: str) -> Obj:
    """Write the feedback of an evaluation event.

    It is about the response it names, else about that of the span it was recorded on. User feedback
    is a rating; a result with a score or a label is an outcome, or a thumb if it is named so.
    """
    said: Obj = {**event.attributes, **event.said()}
    comment = shape.may_text(said, "gen_ai.evaluation.explanation")
    comment = comment or shape.may_text(said, "comment")
    score = said.get("gen_ai.evaluation.score.value", said.get("gen_ai.evaluation.score"))
    label = said.get("gen_ai.evaluation.score.label")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise shape.wrong("gen_ai.evaluation.score.value", score, "a number")
    scale: Json = None
    if event.name == USER_FEEDBACK and score is not None:
        kind, value, scale = "rating", score, FEELING
    elif score is not None or label is not None:
        name = shape.may_text(said, "gen_ai.evaluation.name")
        name = name or event.name.removeprefix(EVALUATION)
        kind, value = signals.signal(name, score if score is not None else label)
    elif comment:
        kind, value, comment = "comment", comment, None
    else:
        raise shape.missing("gen_ai.evaluation.score.value", "a number, or a label or comment")
    return chat.feedback(
        defaults,
        timestamp=event.seconds,
        actor_id=shape.may_text(said, "user.id") or shape.may_text(said, "enduser.id") or "unknown",
        kind=kind,
        value=value,
        target=_target(said, span_id),
        scale=scale,
        comment=comment,
    )


def _target(said: Obj, span_id: str) -> Target:
    response_id = shape.may_text(said, "gen_ai.response.id") or span_id
    if not response_id:
        raise shape.missing("gen_ai.response.id", "text, or the id of a span")
    return "response_id", response_id
