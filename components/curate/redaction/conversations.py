"""Redact an interaction, or a request with the answers that people compared."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace

from components.curate.interaction import Candidate
from components.curate.redaction import json_texts, redactor
from components.curate.redaction.patterns import Kind
from components.curate.redaction.placeholders import TooMuchError
from components.curate.redaction.redactor import Conversation, Redacted
from components.curate.redaction.surrogate_keys import Keyring, Marked
from components.curate.settings import Redaction

MAX_CHARACTERS = 2**20
"""Maximum characters of a row's JSON texts: a book is shorter, and every expression reads all of it
up to five times."""


class RedactionFailedError(Exception):
    """Raised when a conversation can't be redacted, so it must be left out.

    It is too deep, has too many values, or numbers that JSON can't represent.
    """


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The redacted parts of an interaction.

    ``messages``, ``tools`` and ``acceptable`` are JSON text with placeholders, ``None`` where
    unchanged. ``values`` counts distinct values, ``replaced`` all replacements. ``marked`` has the
    values behind the placeholders, ``None`` without any.
    """

    messages: str | None = None
    tools: str | None = None
    acceptable: str | None = None
    values: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])
    marked: Marked | None = None


def redact_candidate(candidate: Candidate, settings: Redaction) -> tuple[Candidate, Rewritten]:
    """Redact request, answers and references together."""
    answers = [message for message in (candidate.message, candidate.logged) if message is not None]
    conversation = Conversation(
        candidate.messages,
        candidate.tools,
        answers,
        candidate.acceptable,
        candidate.tools_text,
        candidate.is_corrected,
    )
    try:
        redacted = redactor.for_settings(settings).redact(conversation)
        if not redacted.values:
            return candidate, Rewritten()
        result = redacted.conversation
        return (
            _rewritten(candidate, result),
            Rewritten(
                _changed(conversation.messages, result.messages),
                _changed(conversation.tools, result.tools),
                _changed(conversation.acceptable, result.acceptable),
                redacted.values,
                redacted.replaced,
                _marked(candidate, conversation, redacted),
            ),
        )
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, TooMuchError) else type(error).__name__
        raise RedactionFailedError(reason) from error


def require_short(characters: int) -> None:
    """Raise ``RedactionFailedError`` for a row of more than ``MAX_CHARACTERS``."""
    if characters > MAX_CHARACTERS:
        raise RedactionFailedError(f"{characters:,} characters, at most {MAX_CHARACTERS:,} allowed")


def example_id(workload_id: str, messages: str, tools: str) -> str:
    """Return a request's id, as in ``staging.interactions`` and ``staging.redacted``."""
    text = "\n".join([workload_id, messages, tools])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _rewritten(candidate: Candidate, redacted: Conversation) -> Candidate:
    answers = iter(redacted.answers)
    return replace(
        candidate,
        messages=redacted.messages,
        tools=redacted.tools,
        message=None if candidate.message is None else next(answers),
        logged=None if candidate.logged is None else next(answers),
        acceptable=redacted.acceptable,
    )


def _marked(candidate: Candidate, conversation: Conversation, redacted: Redacted) -> Marked | None:
    # Keyed by the columns of curated.examples.
    marked = redacted.marked
    if marked is None:
        return None
    rewritten = _rewritten(candidate, marked)
    texts = {
        "messages": _changed(conversation.messages, marked.messages),
        "tools": _changed(conversation.tools, marked.tools),
        "acceptable": _changed(conversation.acceptable, marked.acceptable),
        "answer": rewritten.answer_json,
        "logged_answer": rewritten.logged_json,
    }
    changed = {name: text for name, text in texts.items() if text is not None}
    context = "" if "messages" in changed else json_texts.dumps(conversation.messages)
    return Marked(redacted.first_mark, redacted.occurrences, changed, context)


def _changed(before: object, after: object) -> str | None:
    # As the warehouse extracts JSON, so that equal requests are equal text.
    return None if after is before or after == before else json_texts.dumps(after)


NAMES = ("messages", "tools", "answers")


def redact_exchange(
    interaction_id: str, conversation: Conversation, settings: Redaction, keyring: Keyring
) -> tuple[Conversation, Conversation] | None:
    """Redact an interaction's request and answers; return them as stored, and with placeholders.

    ``None`` if they nest too deeply or have numbers invalid in JSON.
    """
    try:
        redacted = redactor.for_settings(settings).redact(conversation)
        bare = redacted.conversation
        if redacted.marked is None or not keyring.is_used:
            return bare, bare
        texts = {name: json_texts.dumps(getattr(redacted.marked, name)) for name in NAMES}
    except (ValueError, RecursionError):
        return None
    marked = Marked(redacted.first_mark, redacted.occurrences, texts)
    written = keyring.write(interaction_id, marked)
    stored = {name: json.loads(text) for name, text in written.items()}
    return Conversation(**stored), bare
