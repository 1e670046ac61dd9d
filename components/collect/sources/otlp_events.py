"""An event of OpenTelemetry's GenAI conventions, on a span or as a log record."""

from dataclasses import dataclass

from components.collect.sources import shape
from components.collect.sources.shape import Obj
from components.schema import Json

QUESTIONS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
"""The older conventions' events of what was asked, with the role that each speaks in."""

CHOICE = "gen_ai.choice"
"""The older conventions' event of what was answered."""

EVALUATION = "gen_ai.evaluation."


@dataclass(frozen=True, slots=True)
class Event:
    """What an event is called, its attributes, its body (``None`` on a span) and its time."""

    name: str
    attributes: Obj
    body: Json
    seconds: float

    @property
    def is_message(self) -> bool:
        """Tell whether it is one message of several."""
        return self.name in QUESTIONS or self.name == CHOICE

    @property
    def is_evaluation(self) -> bool:
        """Tell whether it is feedback."""
        return self.name.startswith(EVALUATION)

    def said(self) -> Obj:
        """Find what it says: in its body, in ``gen_ai.event.content`` or in its attributes."""
        if isinstance(self.body, dict):
            return self.body
        content = shape.unpacked(self.attributes, "gen_ai.event.content")
        if isinstance(content, dict):
            return content
        return self.attributes if self.body is None else {**self.attributes, "content": self.body}
