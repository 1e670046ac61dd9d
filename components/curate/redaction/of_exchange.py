"""Redact a request with the answers that people compared."""

from components.curate.preferences.texts import Exchange
from components.curate.redaction import redactor
from components.curate.redaction.redactor import Conversation
from components.curate.redaction.settings import Redaction


def redact(exchange: Exchange, settings: Redaction) -> Exchange | None:
    """Redact an exchange; ``None`` if it nests too deeply or holds numbers that JSON can't."""
    given = Conversation(exchange.messages, exchange.tools, exchange.answers)
    try:
        redacted = redactor.of(settings).redact(given).conversation
    except (ValueError, RecursionError):
        return None
    return Exchange(redacted.messages, redacted.tools, redacted.answers)
