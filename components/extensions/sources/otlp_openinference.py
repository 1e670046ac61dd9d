"""Translate OpenInference's attributes of a span, as of Phoenix and LlamaIndex, to GenAI's."""

import re
from collections import defaultdict

from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.extensions.sources.otlp_calls import PARAMETERS
from components.extensions.sources.otlp_messages import COMPLETION, PROMPT
from components.schema import Json

KIND = "openinference.span.kind"

REDACTED = "__REDACTED__"  # what its masks leave of a text

NAMES = {
    "llm.model_name": "gen_ai.request.model",
    "llm.provider": "gen_ai.provider.name",
    "llm.system": "gen_ai.system",
    "llm.token_count.prompt": "gen_ai.usage.input_tokens",
    "llm.token_count.completion": "gen_ai.usage.output_tokens",
    "llm.token_count.prompt_details.cache_read": "gen_ai.usage.cache_read.input_tokens",
    "llm.token_count.prompt_details.cache_write": "gen_ai.usage.cache_creation.input_tokens",
}

_MESSAGE = re.compile(r"llm\.(input|output)_messages\.(\d{1,4})\.message\.(.+)")
_CALL = re.compile(r"tool_calls\.(\d{1,4})\.tool_call\.(?:function\.)?(id|name|arguments)")
_CONTENT = re.compile(r"contents\.(\d{1,4})\.message_content\.(type|text|image\.image\.url)")
_TOOL = re.compile(r"llm\.tools\.(\d{1,4})\.tool\.json_schema")


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: A message's text was masked.
    """
    kind = attributes.get(KIND)
    if not isinstance(kind, str) or "gen_ai.input.messages" in attributes:
        return attributes
    if kind.upper() != "LLM":
        return {"gen_ai.operation.name": kind.lower(), **attributes}
    translated: Obj = {"gen_ai.operation.name": "chat"}
    translated |= {new: attributes[old] for old, new in NAMES.items() if old in attributes}
    invoked = fields.loads(str(attributes.get("llm.invocation_parameters")))
    parameters = invoked if isinstance(invoked, dict) else {}
    translated |= {new: parameters[old] for old, new in PARAMETERS.items() if old in parameters}
    if tools := _tools(attributes):
        translated["gen_ai.tool.definitions"] = tools
    return translated | _end(attributes) | _messages(attributes) | attributes


def _end(attributes: Obj) -> Obj:
    """Return why an answer ended and, of OpenAI's own, which no attribute has whole, its id."""
    match fields.loads(str(attributes.get("output.value"))):
        case {
            "id": str(answer_id),
            "object": "chat.completion" | "chat.completion.chunk" as kind,
            "choices": [dict(first), *_],
            **answer,
        }:
            reason = first.get("finish_reason")
            # A stream whose reader left before its last chunk has none.
            is_cut = reason is None and ("finish_reason" in first or kind.endswith("chunk"))
            return {
                "gen_ai.response.id": answer_id,
                "gen_ai.response.model": answer.get("model"),
                "gen_ai.response.finish_reasons": [reason],
                **({"error.type": "cut"} if is_cut else {}),
            }
        case _:
            return {"gen_ai.response.finish_reasons": [attributes.get("llm.finish_reason")]}


def _tools(attributes: Obj) -> list[Json]:
    schemas = {match[1]: key for key in attributes if (match := _TOOL.fullmatch(key))}
    return [_tool(fields.unpacked(attributes, schemas[n])) for n in sorted(schemas, key=int)]


def _tool(schema: Json) -> Json:
    match schema:
        case {"name": str(name), "input_schema": parameters}:  # Anthropic's
            return canonical.tool(name, schema.get("description"), parameters)
        case _:
            return schema


def _messages(attributes: Obj) -> Obj:
    numbered: Obj = {}
    contents = defaultdict[str, dict[int, Obj]](dict)
    for key, value in attributes.items():
        if (match := _MESSAGE.fullmatch(key)) is None:
            continue
        if value == REDACTED:
            raise fields.WrongShapeError(
                f"`{key}` is {REDACTED}, expected its text: turn off the application's "
                "OPENINFERENCE_HIDE_ settings"
            )
        place, rest = f"{PROMPT if match[1] == 'input' else COMPLETION}.{match[2]}", match[3]
        if call := _CALL.fullmatch(rest):
            numbered[f"{place}.tool_calls.{call[1]}.{call[2]}"] = value
        elif part := _CONTENT.fullmatch(rest):
            contents[place].setdefault(int(part[1]), {})[part[2]] = value
        else:
            numbered[f"{place}.{rest}"] = value
    for place, parts in contents.items():
        numbered[f"{place}.content"] = [_part(parts[number]) for number in sorted(parts)]
    return numbered


def _part(part: Obj) -> Json:
    match part:
        case {"text": str(text)}:
            return {"type": "text", "text": text}
        case {"image.image.url": str(url)}:
            return {"type": "image_url", "image_url": {"url": url}}
        case _:
            return part
