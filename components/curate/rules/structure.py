"""Object to what no model of text can learn from: no text, no form, too much of it."""

from components.curate.candidate import Candidate, content_parts
from components.schema import Json, kind_of


def unsupported_content(candidate: Candidate) -> str | None:
    """Object to images, audio and files: the model reads text only."""
    messages = [*candidate.messages, candidate.message or {}]
    parts = (part for message in messages for part in content_parts(message))
    return next((_kind(part) for part in parts if not _is_text(part)), None)


def malformed_acceptable(candidate: Candidate) -> str | None:
    """Object to reference values that an evaluation could not read."""
    match candidate.acceptable:
        case None:
            return None
        case list(calls):
            wrong = (place for place, call in enumerate(calls) if not _is_acceptable_call(call))
            return next((f"call {place}" for place in wrong), None)
        case other:
            return f"{kind_of(other)} where an array belongs"


def malformed_history(candidate: Candidate) -> str | None:
    """Object to requests that can't be rendered, such as earlier calls that are not JSON."""
    try:
        return None if candidate.rendered else "no message"
    except (ValueError, RecursionError):
        return "can't be rendered"


def too_long(candidate: Candidate, max_prompt_chars: int) -> str | None:
    """Object to prompts that would not fit."""
    length = sum(len(message["content"]) for message in candidate.rendered)
    return f"{length} characters" if length > max_prompt_chars else None


def _kind(part: Json) -> str:
    match part:
        case {"type": str(kind)}:
            return kind[:40]
        case _:
            return kind_of(part)


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
