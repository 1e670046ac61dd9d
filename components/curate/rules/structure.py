"""Object to what no model of text can learn from: no text, no form, too much of it."""

from components import prompt
from components.curate.candidate import Candidate, content_parts
from components.schema import Json


def unsupported_content(candidate: Candidate) -> str | None:
    """Object to images, audio and files: the model reads text only."""
    messages = [*candidate.messages, candidate.message or {}]
    parts = (part for message in messages for part in content_parts(message))
    return None if all(_is_text(part) for part in parts) else "unsupported_content"


def malformed_acceptable(candidate: Candidate) -> str | None:
    """Object to reference values that an evaluation could not read."""
    match candidate.acceptable:
        case None:
            return None
        case list(calls) if all(_is_acceptable_call(call) for call in calls):
            return None
        case _:
            return "malformed_acceptable"


def malformed_history(candidate: Candidate) -> str | None:
    """Object to requests that can't be rendered, such as earlier calls that are not JSON."""
    try:
        prompt.render_prompt(candidate.messages, candidate.tools)
    except (ValueError, RecursionError):
        return "malformed_history"
    return None


def too_long(candidate: Candidate, max_prompt_chars: int) -> str | None:
    """Object to prompts that would not fit."""
    rendered = prompt.render_prompt(candidate.messages, candidate.tools)
    length = sum(len(message["content"]) for message in rendered)
    return "too_long" if length > max_prompt_chars else None


def _is_text(part: Json) -> bool:
    match part:
        case {"type": "text", "text": str()}:
            return True
        case _:
            return False


def _is_acceptable_call(call: Json) -> bool:
    match call:
        case {"name": str(), "arguments": dict(arguments), **rest} if not rest:
            return all(isinstance(values, list) for values in arguments.values())
        case _:
            return False
