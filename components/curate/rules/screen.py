"""Ask every rule about an interaction."""

from collections.abc import Callable, Iterator

from components.curate.candidate import Candidate
from components.curate.rules import calls, disliked, ending, structure

Rule = Callable[[Candidate], str | None]

RULES: tuple[Rule, ...] = (
    structure.unsupported_content,
    calls.arguments_not_json,
    ending.empty_answer,
    ending.cut_off,
    calls.unknown_tool,
    disliked.thumbs_down,
    structure.malformed_acceptable,
    structure.malformed_history,
)
"""In this order: later rules rely on what earlier ones let pass."""


def objection(candidate: Candidate, max_prompt_chars: int) -> str | None:
    """Give the first objection against an interaction; ``None`` if it may be learned from."""
    return next(filter(None, _objections(candidate, max_prompt_chars)), None)


def _objections(candidate: Candidate, max_prompt_chars: int) -> Iterator[str | None]:
    yield from (rule(candidate) for rule in RULES)
    yield structure.too_long(candidate, max_prompt_chars)
