"""Redact one candidate, and write again what changed of it."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace

from components.curate.candidate import Candidate
from components.curate.redaction import redactor
from components.curate.redaction.kinds import Kind
from components.curate.redaction.redactor import Conversation
from components.curate.redaction.settings import Redaction


class RedactionFailedError(Exception):
    """A conversation that could not be redacted, so it may not go on."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What redaction changed of an interaction.

    ``messages``, ``tools`` and ``acceptable`` are JSON text, ``None`` where nothing changed. The
    counters are of distinct values and of all replacements.
    """

    messages: str | None = None
    tools: str | None = None
    acceptable: str | None = None
    values: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])


def redact(candidate: Candidate, settings: Redaction) -> tuple[Candidate, Rewritten]:
    """Redact request, answers and references together.

    Raises:
        RedactionFailedError: It is nested too deeply, or holds numbers that JSON can't.
    """
    answers = [one for one in (candidate.message, candidate.logged) if one is not None]
    given = Conversation(
        candidate.messages, candidate.tools, answers, candidate.acceptable, candidate.tools_text
    )
    try:
        redacted = redactor.of(settings).redact(given)
        if not redacted.values:
            return candidate, Rewritten()
        now = redacted.conversation
        rewritten = iter(now.answers)
        message = None if candidate.message is None else next(rewritten)
        logged = None if candidate.logged is None else next(rewritten)
        changed = {"messages": now.messages, "tools": now.tools}
        changed |= {"message": message, "logged": logged}
        return (
            replace(candidate, **changed, acceptable=now.acceptable),
            Rewritten(
                _rewritten(given.messages, now.messages),
                _rewritten(given.tools, now.tools),
                _rewritten(given.acceptable, now.acceptable),
                redacted.values,
                redacted.replaced,
            ),
        )
    except (ValueError, RecursionError) as error:
        raise RedactionFailedError from error


def example_id(workload_id: str, messages: str, tools: str) -> str:
    """Name a request by its texts, as ``staging.interactions`` and ``staging.redacted`` do."""
    text = "\n".join([workload_id, messages, tools])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _rewritten(before: object, after: object) -> str | None:
    """Write JSON as the warehouse extracts it, so that equal requests are equal text."""
    if after is before or after == before:
        return None
    text = json.dumps(after, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return json.dumps(after, separators=(",", ":"), allow_nan=False)
    return text
