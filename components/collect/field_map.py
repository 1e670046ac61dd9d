"""Where the fields of records of any form are: the ``map:`` of a source's entry."""

import re
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.schema import Config

PREFIX = "map:"
"""Begins the name of a map's source."""

_STEP = re.compile(r'(?:^|\.)([^.\[\]"|\s]+)|\[(-?\d+)\]|\["([^"]+)"\]')


@lru_cache
def steps(path: str) -> list[str]:
    """Return the names and indices of a path; raise ``ValueError`` for another text."""
    matches = [*_STEP.finditer(path)]
    if not matches or "".join(step[0] for step in matches) != path:
        raise ValueError(
            f"{path!r} is no path, expected names and indices such as choices[0].message.content "
            'or attributes["gen_ai.system"]'
        )
    return [step[1] or step[2] or step[3] for step in matches]


def _checked(paths: str) -> str:
    for path in paths.split("|"):
        steps(path.strip())
    return paths


FieldPath = Annotated[str, AfterValidator(_checked)]
"""Names and indices from the record inwards, also into JSON text; after ``|`` where else to look"""


class FeedbackMap(Config):
    """A signal about the answer; a record without its value, or with a null, has none."""

    kind: Literal["thumb", "rating", "choice", "correction", "regenerate", "comment", "outcome"]
    value: FieldPath
    """Of a thumb ``up`` or ``down``, a boolean, or a number that is positive for up."""
    name: str = ""
    """Of an outcome; its path if left out."""
    scale: tuple[float, float] | None = None
    """The lowest and the highest rating."""
    actor_id: FieldPath | None = None
    """The record's user if left out."""
    comment: FieldPath | None = None


class FieldMap(Config):
    """Which field of a record is what."""

    request: FieldPath | None = None
    """A body as OpenAI's, Anthropic's or Gemini's API takes it, messages, or the text of one."""
    parameters: dict[str, FieldPath] = Field(default_factory=dict[str, str])
    """Of the request: ``tools``, ``temperature``, ``system``."""
    response: FieldPath | None = None
    """A body as one of these APIs answers with, or the chunks or the text of a stream."""
    answer: FieldPath | None = None
    """In place of a response: the text of the answer, or its message."""
    model: FieldPath | None = None
    timestamp: FieldPath | None = None
    """ISO 8601, or a number of seconds, milli-, micro- or nanoseconds since 1970."""
    response_id: FieldPath | None = None
    workload_id: FieldPath | None = None
    client_id: FieldPath | None = None
    conversation_id: FieldPath | None = None
    user_id: FieldPath | None = None
    trace_id: FieldPath | None = None
    duration_ms: FieldPath | None = None
    prompt_tokens: FieldPath | None = None
    completion_tokens: FieldPath | None = None
    metadata: dict[str, FieldPath] = Field(default_factory=dict[str, str])
    feedback: list[FeedbackMap] = Field(default_factory=list[FeedbackMap])

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        answers = [path for path in (self.response, self.answer) if path]
        has_target = self.response or self.response_id or self.conversation_id
        needs = {
            "request and one of response and answer, or feedback alone": (
                len(answers) == 1 if self.request else not answers and self.feedback
            ),
            "response_id or conversation_id for its feedback": has_target or not self.feedback,
        }
        if unmet := [need for need, is_met in needs.items() if not is_met]:
            raise ValueError(f"needs {'; and '.join(unmet)}")
        return self


def name_of(field_map: FieldMap) -> str:
    """Return the name of a map's source."""
    return PREFIX + field_map.model_dump_json(exclude_defaults=True)


def short_name(source: str) -> str:
    """Return the name of a source, of a map without its fields."""
    return source.partition(":")[0]
