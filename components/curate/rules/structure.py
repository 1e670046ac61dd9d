"""Rules on content types, form, length and invalid calls."""

from collections.abc import Callable
from functools import cache, lru_cache

from jsonschema_rs import Validator

from components.chat import tool_schema
from components.curate import interaction
from components.curate.interaction import Candidate, content_parts
from components.schema import Json, kind_of


def unsupported_content(candidate: Candidate) -> str | None:
    """Object to images, audio and files: the model reads text only."""
    messages = [*candidate.messages, candidate.message or {}]
    for part in (part for message in messages for part in content_parts(message)):
        match part:
            case {"type": "text", "text": str()}:
                pass
            case {"type": str(kind)}:
                return kind[:40]
            case _:
                return kind_of(part)
    return None


def malformed_acceptable(candidate: Candidate) -> str | None:
    """Object to invalid reference values."""
    match candidate.acceptable:
        case None:
            return None
        case list(calls):
            wrong = (place for place, call in enumerate(calls) if not _is_acceptable_call(call))
            return next((f"call {place}" for place in wrong), None)
        case other:
            return f"{kind_of(other)} where an array belongs"


def malformed_history(candidate: Candidate) -> str | None:
    """Object to requests that can't be rendered, such as with earlier calls that are not JSON."""
    try:
        return None if candidate.rendered else "no message"
    except (ValueError, RecursionError):
        return "can't be rendered"


def too_long(candidate: Candidate, max_prompt_chars: int) -> str | None:
    """Object to prompts longer than ``max_prompt_chars``."""
    length = sum(len(message["content"]) for message in candidate.rendered)
    return f"{length} characters" if length > max_prompt_chars else None


def _is_acceptable_call(call: Json) -> bool:
    match call:
        case {"name": str(), "arguments": dict(arguments), **rest} if not rest:
            return all(isinstance(values, list) for values in arguments.values())
        case _:
            return False


def arguments_not_json(candidate: Candidate) -> str | None:
    """Object to calls whose arguments are not a JSON object."""
    try:
        candidate.answer_json.encode()
    except (ValueError, RecursionError) as error:
        return type(error).__name__
    return None


def unknown_tool(candidate: Candidate) -> str | None:
    """Return the first called tool that the request does not offer."""
    called = (call.name for call in candidate.answer.calls)
    return next((name for name in called if name not in candidate.tool_names), None)


MAX_WORK = 10**10
"""Schema characters times call characters: each value may be checked against each keyword. The
library can't be interrupted; this much takes it some seconds."""


class SchemaWorkError(ValueError):
    """Raised when schemas and calls are too large to validate."""


def breaks_schema(candidate: Candidate) -> str | None:
    """Return place and reason of the first argument that violates its tool's ``parameters``."""
    if not candidate.answer.calls or not candidate.tools:
        return None
    work = len(candidate.tools_text) * len(candidate.answer_json)
    if work > MAX_WORK:
        raise SchemaWorkError(f"{work:,} steps, at most {MAX_WORK:,} allowed")
    validator_of = _validators(candidate.tools_text)
    for call in candidate.answer.calls:
        validator = validator_of(call.name)
        problem = validator and tool_schema.problem(validator, call.arguments)
        if problem is not None:
            return f"{call.name}{problem}"
    return None


@lru_cache(maxsize=512)
def _validators(tools_text: str) -> Callable[[str], Validator | None]:
    """Return what compiles a tool's schema, at its first call; an application repeats its tools."""
    tools = interaction.read_tools(tools_text)

    @cache
    def of_tool(name: str) -> Validator | None:
        called = (tool for tool, offered in zip(*tools, strict=True) if offered == name)
        return tool_schema.validators(called).get(name)

    return of_tool
