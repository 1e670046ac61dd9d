"""Translate the attributes of a span of LangSmith's SDK to GenAI's.

It exports a run's inputs and outputs as JSON, under the names of the older conventions' messages.
"""

from components.collect.sources import fields, langsmith
from components.collect.sources.fields import Obj
from components.collect.sources.otlp_calls import chat_attributes
from components.collect.sources.otlp_messages import COMPLETION, PROMPT
from components.schema import Json

KIND = "langsmith.span.kind"
METADATA = "langsmith.metadata."

NAMES = {
    **{f"{METADATA}{name}": "gen_ai.conversation.id" for name in reversed(langsmith.CONVERSATIONS)},
    f"{METADATA}user_id": "user.id",
    f"{METADATA}workload_id": "flywheel.workload_id",
}


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: Inputs or outputs are neither messages nor text.
    """
    kind = attributes.get(KIND)
    if not isinstance(kind, str):
        return attributes
    if kind.lower() != langsmith.CALL:  # among them prompts, whose operation it calls "chat"
        return {**attributes, "gen_ai.operation.name": kind.lower()}
    inputs, outputs = (_object(attributes, key) for key in (PROMPT, COMPLETION))
    if inputs is None:  # another instrumentation's attributes, with the kind that LangSmith shows
        return attributes
    outputs = langsmith.answered(outputs or {})
    request = langsmith.request_of(inputs, outputs, {}, attributes.get("gen_ai.request.model"))
    choices, is_cut = langsmith.choices_of(outputs) if outputs else ([], False)
    translated = chat_attributes(request, choices, COMPLETION)
    if is_cut:
        translated["error.type"] = "cut"
    named = {new: attributes[old] for old, new in NAMES.items() if old in attributes}
    others = {key: attributes[key] for key in attributes if key not in (PROMPT, COMPLETION)}
    return named | others | translated


def _object(attributes: Obj, key: str) -> Obj | None:
    text = attributes.get(key)
    value: Json = fields.loads(text) if isinstance(text, str) else None
    return value if isinstance(value, dict) else None
