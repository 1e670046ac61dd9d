"""Find the values that a workload lets stay, though redaction recognises them.

What a model may learn by heart is known only of these: of what was redacted no original is kept.
"""

import re
from collections.abc import Callable

from components.curate.redaction import redactor
from components.curate.redaction.kinds import PLACEHOLDER
from components.curate.redaction.redactor import Conversation, Redactor
from components.curate.redaction.settings import Redaction


def lets_stay(settings: Redaction) -> bool:
    """Tell whether anything that is recognised may stay."""
    return bool(settings.off or settings.allow or settings.allow_patterns)


def finder(settings: Redaction) -> Callable[[str], list[str]] | None:
    """Give what finds such values in an answer as rendered; ``None`` where nothing may stay."""
    if not lets_stay(settings):
        return None
    strict = redactor.of(Redaction())

    def find(answer: str) -> list[str]:
        return _recognised(answer, strict)

    return find


def _recognised(answer: str, strict: Redactor) -> list[str]:
    given = Conversation([], answers=[{"role": "assistant", "content": answer}])
    try:
        (redacted,) = strict.redact(given).conversation.answers
    except (ValueError, RecursionError):  # what could not be redacted was left out before
        return []
    written = str(redacted["content"])
    if written == answer:
        return []
    literal = [re.escape(one) for one in _between(written)]
    found = re.fullmatch("(.+?)".join(literal), answer, re.DOTALL)
    values = found.groups() if found else ()
    return [*dict.fromkeys(one for one in values if not PLACEHOLDER.fullmatch(one))]


def _between(written: str) -> list[str]:
    """Give the text before, between and after the placeholders."""
    ends = [0, *(place for found in PLACEHOLDER.finditer(written) for place in found.span())]
    return [written[start:end] for start, end in zip(ends[::2], [*ends[1::2], None], strict=True)]
