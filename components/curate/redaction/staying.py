"""Find the values that a workload lets stay, though redaction recognises them.

What a model may learn by heart is known only of these: of what was redacted no original is kept.
Surrogates look like values, too, but the workload's own redaction would replace them again.
"""

from collections.abc import Callable

from components.curate.redaction import redactor
from components.curate.redaction.redactor import Conversation, Redactor
from components.curate.redaction.settings import Redaction


def lets_stay(settings: Redaction) -> bool:
    """Tell whether anything that is recognised may stay."""
    return bool(settings.off or settings.allow or settings.allow_patterns)


def finder(settings: Redaction) -> Callable[[str], list[str]] | None:
    """Give what finds such values in an answer as rendered; ``None`` where nothing may stay."""
    if not lets_stay(settings):
        return None
    strict, own = redactor.of(Redaction()), redactor.of(settings)

    def find(answer: str) -> list[str]:
        replaced = set(_values(answer, own))
        stayed = [one for one in _values(answer, strict) if one not in replaced]
        return sorted(stayed, key=answer.find)

    return find


def _values(answer: str, by: Redactor) -> list[str]:
    given = Conversation([], answers=[{"role": "assistant", "content": answer}])
    try:
        found = by.redact(given).occurrences
    except (ValueError, RecursionError):  # what could not be redacted was left out before
        return []
    return [*dict.fromkeys(one.written for one in found)]
