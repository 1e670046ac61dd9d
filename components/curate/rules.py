"""The rules that keep an interaction from becoming an example, each with the reason it gives."""

from collections.abc import Callable

from pydantic import Field

from components import prompt
from components.curate.candidate import Candidate, content_parts
from components.curate.split import SplitBy
from components.schema import Config, Json


class Rules(Config):
    """What a workload's examples must be, and how many are held out."""

    max_prompt_chars: int = Field(default=16_000, ge=100)
    """Longer prompts (as rendered, tools included) are left out: they cost memory and time."""

    holdout_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the groups that are tested on; raising it draws only groups that are new."""

    split_by: SplitBy = "tools"
    """What the holdout shows: ``tools`` never seen in training (requests without tools go by
    conversation), or ``conversation`` for an agent whose tools are always the same."""


Rule = Callable[[Candidate, Rules], str | None]


def unsupported_content(candidate: Candidate, rules: Rules) -> str | None:
    """Object to images, audio and files: the model reads text only."""
    messages = [*candidate.messages, candidate.message or {}]
    parts = (part for message in messages for part in content_parts(message))
    return None if all(_is_text(part) for part in parts) else "unsupported_content"


def cut_off(candidate: Candidate, rules: Rules) -> str | None:
    """Object to answers that ended at a limit or a filter: they teach to stop in mid-sentence."""
    return "cut_off" if candidate.finish_reason in ("length", "content_filter") else None


def arguments_not_json(candidate: Candidate, rules: Rules) -> str | None:
    """Object to calls whose arguments are no JSON object."""
    try:
        candidate.answer().to_json().encode()
    except (ValueError, RecursionError):
        return "arguments_not_json"
    return None


def empty_answer(candidate: Candidate, rules: Rules) -> str | None:
    """Object to answers that neither say nor call anything."""
    answer = candidate.answer()
    return None if answer.text.strip() or answer.calls else "empty_answer"


def unknown_tool(candidate: Candidate, rules: Rules) -> str | None:
    """Object to calls of tools that the request did not offer."""
    called = {call.name for call in candidate.answer().calls}
    return "unknown_tool" if called - set(candidate.tool_names) else None


def thumbs_down(candidate: Candidate, rules: Rules) -> str | None:
    """Object to answers that somebody disliked, unless somebody said what is right."""
    return "thumbs_down" if candidate.thumbs_down and not candidate.is_corrected else None


def malformed_acceptable(candidate: Candidate, rules: Rules) -> str | None:
    """Object to reference values that an evaluation could not read."""
    match candidate.acceptable:
        case None:
            return None
        case list(calls) if all(_is_acceptable_call(call) for call in calls):
            return None
        case _:
            return "malformed_acceptable"


def malformed_history(candidate: Candidate, rules: Rules) -> str | None:
    """Object to requests that can't be rendered, such as earlier calls that are not JSON."""
    try:
        prompt.render_prompt(candidate.messages, candidate.tools)
    except (ValueError, RecursionError):
        return "malformed_history"
    return None


def too_long(candidate: Candidate, rules: Rules) -> str | None:
    """Object to prompts that would not fit."""
    rendered = prompt.render_prompt(candidate.messages, candidate.tools)
    length = sum(len(message["content"]) for message in rendered)
    return "too_long" if length > rules.max_prompt_chars else None


RULES: tuple[Rule, ...] = (
    unsupported_content,
    arguments_not_json,
    empty_answer,
    cut_off,
    unknown_tool,
    thumbs_down,
    malformed_acceptable,
    malformed_history,
    too_long,
)
"""In this order: later rules rely on what earlier ones let pass."""


def objection(candidate: Candidate, rules: Rules) -> str | None:
    """Give the first objection against an interaction; ``None`` if it may be learned from."""
    return next(filter(None, (rule(candidate, rules) for rule in RULES)), None)


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
