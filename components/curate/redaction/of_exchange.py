"""Redact a request with the answers that people compared."""

import json
from dataclasses import replace

from components.curate.preferences.texts import Exchange, Redacted
from components.curate.redaction import leaves, redactor
from components.curate.redaction.keyring import Keyring
from components.curate.redaction.redactor import Conversation
from components.curate.redaction.settings import Redaction
from components.curate.redaction.stand_ins import Marked

NAMES = ("messages", "tools", "answers")


def redact(exchange: Exchange, settings: Redaction, keyring: Keyring) -> Redacted | None:
    """Redact an exchange; ``None`` if it nests too deeply or holds numbers that JSON can't."""
    given = Conversation(
        exchange.messages, exchange.tools, exchange.answers, is_corrected=exchange.is_corrected
    )
    try:
        redacted = redactor.of(settings).redact(given)
        now = redacted.conversation
        bare = replace(exchange, messages=now.messages, tools=now.tools, answers=now.answers)
        if redacted.marked is None or not keyring.is_used:
            return Redacted(bare, bare)
        texts = {name: leaves.dumps(getattr(redacted.marked, name)) for name in NAMES}
    except (ValueError, RecursionError):
        return None
    marked = Marked(redacted.first_mark, redacted.occurrences, texts)
    written = keyring.write(exchange.interaction_id, marked)
    stored = {name: json.loads(text) for name, text in written.items()}
    return Redacted(replace(exchange, **stored), bare)
