"""A signal as it is staged, and the answers that signals are about."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, cast

from components import manifest, prompt
from components.schema import Answer, Json

ANONYMOUS = frozenset({"", "anonymous", "anon", "unknown", "none", "null", "undefined", "guest"})
"""Ids that name nobody: all of them at one client are one actor."""

Actor: TypeAlias = tuple[str, str]
"""Who gave a signal: the client and the actor's id there, empty for everybody without one."""

Completion: TypeAlias = tuple[str, str]
"""An answer to a prompt, whoever gave it and however often: example id and the answer's ``key``."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One row of ``staging.signals``; ``value`` and ``scale`` are JSON text."""

    feedback_id: str
    client_id: str
    actor_id: str
    kind: str
    given_at: datetime
    value: str
    scale: str | None
    is_waiting: bool
    chosen_id: str | None
    rejected_id: str | None
    renewed_id: str | None
    interaction_ids: list[str]

    @property
    def actor(self) -> Actor:
        """Say whose cap it counts against."""
        name = self.actor_id.strip()
        return (self.client_id, "" if name.lower() in ANONYMOUS else name)


@dataclass(frozen=True, slots=True)
class Judged:
    """One row of ``staging.judged``; ``message`` is JSON text, ``None`` if none was logged."""

    interaction_id: str
    example_id: str
    message: str | None


class Answers:
    """The answers that signals are about, each distinct one once, in canonical form."""

    def __init__(self, judged: list[Judged]) -> None:
        self._completions: dict[str, Completion] = {}
        self._prompts = {one.interaction_id: one.example_id for one in judged}
        self.texts: dict[str, Answer] = {}
        self.interactions: dict[Completion, list[str]] = {}
        for one in sorted(judged, key=lambda one: one.interaction_id):
            if (answer := read_answer(loads(one.message or "null"))) is not None:
                completion = (one.example_id, self.add(answer))
                self._completions[one.interaction_id] = completion
                self.interactions.setdefault(completion, []).append(one.interaction_id)

    def add(self, answer: Answer) -> str:
        """Keep an answer and give its key: equal answers have equal keys."""
        found = key(answer)
        self.texts[found] = answer
        return found

    def of(self, interaction_id: str | None) -> Completion | None:
        """Give what an interaction answered; ``None`` if that is nothing that can be read."""
        return self._completions.get(interaction_id or "")

    def prompt(self, interaction_id: str) -> str:
        """Give the example id of an interaction's prompt."""
        return self._prompts[interaction_id]


def key(answer: Answer) -> str:
    """Name an answer by its content: white space around its text makes no difference."""
    return manifest.digest(Answer(answer.text.strip(), answer.calls).to_json())


def read_answer(message: Json) -> Answer | None:
    """Read an assistant message; ``None`` if it is none, is empty or can't be read."""
    if not isinstance(message, dict):
        return None
    try:
        answer = prompt.read_message(message)
        answer.to_json().encode()
    except (ValueError, RecursionError):
        return None
    return answer if answer.text.strip() or answer.calls else None


def loads(text: str) -> Json:
    """Read JSON; what is none counts as null."""
    try:
        return cast("Json", json.loads(text))
    except (ValueError, RecursionError):
        return None
