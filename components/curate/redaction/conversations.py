"""Redact an interaction, or a request with the answers that people compared."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace

from components.curate.interaction import Candidate
from components.curate.preferences.preference_rows import Exchange, RedactedExchange
from components.curate.redaction import json_texts, redactor
from components.curate.redaction.patterns import Kind
from components.curate.redaction.placeholders import TooMuchError
from components.curate.redaction.redactor import Conversation, Redacted
from components.curate.redaction.surrogate_keyring import Keyring, Marked
from components.curate.settings import Redaction

MOST_CHARACTERS = 2**20
"""Of a row's JSON texts: a book is shorter, and every expression reads all of it, up to five times.
"""


class RedactionFailedError(Exception):
    """A conversation that could not be redacted, so it may not go on."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What redaction changed of an interaction.

    ``messages``, ``tools`` and ``acceptable`` are JSON text with placeholders, ``None`` where
    nothing changed. The counters are of distinct values and of all replacements. ``marked`` says
    what stands behind the placeholders, ``None`` if there are none.
    """

    messages: str | None = None
    tools: str | None = None
    acceptable: str | None = None
    values: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])
    marked: Marked | None = None


def redact_candidate(candidate: Candidate, settings: Redaction) -> tuple[Candidate, Rewritten]:
    """Redact request, answers and references together.

    Raises:
        RedactionFailedError: It is nested too deeply, holds numbers that JSON can't, or too many
            distinct values.
    """
    answers = [one for one in (candidate.message, candidate.logged) if one is not None]
    given = Conversation(
        candidate.messages,
        candidate.tools,
        answers,
        candidate.acceptable,
        candidate.tools_text,
        candidate.is_corrected,
    )
    try:
        redacted = redactor.of(settings).redact(given)
        if not redacted.values:
            return candidate, Rewritten()
        now = redacted.conversation
        return (
            _rewritten(candidate, now),
            Rewritten(
                _changed(given.messages, now.messages),
                _changed(given.tools, now.tools),
                _changed(given.acceptable, now.acceptable),
                redacted.values,
                redacted.replaced,
                _marked(candidate, given, redacted),
            ),
        )
    except (ValueError, RecursionError) as error:
        raise RedactionFailedError(_reason(error)) from error


def require_short(characters: int) -> None:
    """Check how much there is to redact of one row.

    Raises:
        RedactionFailedError: It is more than ``MOST_CHARACTERS``.
    """
    if characters > MOST_CHARACTERS:
        raise RedactionFailedError(f"{characters:,} characters, wants at most {MOST_CHARACTERS:,}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, TooMuchError) else type(error).__name__


def example_id(workload_id: str, messages: str, tools: str) -> str:
    """Name a request by its texts, as ``staging.interactions`` and ``staging.redacted`` do."""
    text = "\n".join([workload_id, messages, tools])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _rewritten(candidate: Candidate, now: Conversation) -> Candidate:
    answers = iter(now.answers)
    return replace(
        candidate,
        messages=now.messages,
        tools=now.tools,
        message=None if candidate.message is None else next(answers),
        logged=None if candidate.logged is None else next(answers),
        acceptable=now.acceptable,
    )


def _marked(candidate: Candidate, given: Conversation, redacted: Redacted) -> Marked | None:
    """Name the texts as ``curated.examples`` does."""
    now = redacted.marked
    if now is None:
        return None
    rewritten = _rewritten(candidate, now)
    texts = {
        "messages": _changed(given.messages, now.messages),
        "tools": _changed(given.tools, now.tools),
        "acceptable": _changed(given.acceptable, now.acceptable),
        "answer": rewritten.answer_json,
        "logged_answer": rewritten.logged_json,
    }
    changed = {name: text for name, text in texts.items() if text is not None}
    context = "" if "messages" in changed else json_texts.dumps(given.messages)
    return Marked(redacted.first_mark, redacted.occurrences, changed, context)


def _changed(before: object, after: object) -> str | None:
    """Write JSON as the warehouse extracts it, so that equal requests are equal text."""
    return None if after is before or after == before else json_texts.dumps(after)


NAMES = ("messages", "tools", "answers")


def redact_exchange(
    exchange: Exchange, settings: Redaction, keyring: Keyring
) -> RedactedExchange | None:
    """Redact an exchange; ``None`` if it nests too deeply or holds numbers that JSON can't."""
    given = Conversation(
        exchange.messages, exchange.tools, exchange.answers, is_corrected=exchange.is_corrected
    )
    try:
        redacted = redactor.of(settings).redact(given)
        now = redacted.conversation
        bare = replace(exchange, messages=now.messages, tools=now.tools, answers=now.answers)
        if redacted.marked is None or not keyring.is_used:
            return RedactedExchange(bare, bare)
        texts = {name: json_texts.dumps(getattr(redacted.marked, name)) for name in NAMES}
    except (ValueError, RecursionError):
        return None
    marked = Marked(redacted.first_mark, redacted.occurrences, texts)
    written = keyring.write(exchange.interaction_id, marked)
    stored = {name: json.loads(text) for name, text in written.items()}
    return RedactedExchange(replace(exchange, **stored), bare)
