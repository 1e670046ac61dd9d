"""Translate the attributes of a span of Langfuse's SDK to GenAI's."""

from components.collect.sources import fields, observations
from components.collect.sources.fields import Obj
from components.collect.sources.otlp_calls import chat_attributes
from components.schema import Json

KIND = "langfuse.observation.type"
INPUT, OUTPUT = "langfuse.observation.input", "langfuse.observation.output"

NAMES = {
    "langfuse.observation.model.name": "gen_ai.request.model",
    "langfuse.user.id": "user.id",
    "langfuse.session.id": "session.id",
}


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: Input or output are neither messages nor text.
    """
    kind = attributes.get(KIND)
    if not isinstance(kind, str) or "gen_ai.operation.name" in attributes:
        return attributes
    if kind.lower() != "generation":
        return {"gen_ai.operation.name": kind.lower(), **attributes}
    translated: Obj = {"gen_ai.operation.name": "chat"}
    translated |= {new: attributes[old] for old, new in NAMES.items() if old in attributes}
    set_to = fields.loads(str(attributes.get("langfuse.observation.model.parameters")))
    parameters = set_to if isinstance(set_to, dict) else {}
    if attributes.get("langfuse.observation.level") == "ERROR":
        translated["error.type"] = "ERROR"
    choices: list[Json] = []
    if INPUT in attributes:
        parameters |= observations.request(_value(attributes[INPUT]), INPUT)
    if OUTPUT in attributes:
        choices = observations.choices(_value(attributes[OUTPUT]), OUTPUT)
    translated |= chat_attributes(parameters, choices, OUTPUT)
    return translated | attributes


def _value(text: Json) -> Json:
    value = fields.loads(text) if isinstance(text, str) else text
    return value if isinstance(value, dict | list | str) else text
