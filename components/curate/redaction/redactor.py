"""Redact one conversation: every value becomes the same placeholder wherever it stands in it."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from components.curate.redaction import addresses, contact, fields, leaves, numbers, secrets
from components.curate.redaction.allowed import Allowed
from components.curate.redaction.gates import NOTHING, Gates
from components.curate.redaction.kinds import Kind
from components.curate.redaction.leaves import Leaf, Visit
from components.curate.redaction.reading import Reading
from components.curate.redaction.settings import Redaction
from components.schema import Json

PATTERNS = (
    *secrets.PATTERNS,
    *(pattern for pattern in contact.PATTERNS if pattern.kind is Kind.EMAIL),
    *numbers.PATTERNS,
    *(pattern for pattern in contact.PATTERNS if pattern.kind is Kind.PHONE),
    *addresses.PATTERNS,
)
"""In this order: what an earlier one took, a later one does not see."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is redacted together: a request, the answers given or wanted, its references."""

    messages: list[dict[str, Json]]
    tools: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    answers: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    acceptable: Json = None


@dataclass(frozen=True, slots=True)
class Redacted:
    """A conversation without personal data, its distinct values and all replacements by kind."""

    conversation: Conversation
    values: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])


class Redactor:
    """Holds what is compiled once for a workload; gives the same for the same, in any order."""

    def __init__(self, settings: Redaction) -> None:
        self._allowed = Allowed.by(settings)
        self._gates = Gates([one for one in PATTERNS if one.kind not in self._allowed.kinds])

    def redact(self, conversation: Conversation) -> Redacted:
        """Replace what is found by placeholders.

        Raises:
            ValueError: JSON inside of it can't be written again.
            RecursionError: It is nested too deeply.
        """
        found = _leaves(conversation)
        joined = "\n".join([leaf.text for leaf in found])
        hits = self._gates.of(joined)
        if hits is NOTHING and fields.TELLING.isdisjoint([leaf.field for leaf in found]):
            return Redacted(conversation)
        reading = Reading(self._allowed, self._gates, hits)
        if hits.placeholders:
            reading.ledger.reserve(joined)
        given = iter(reading.redact(found, joined))
        if not reading.ledger.numbers:
            return Redacted(conversation)
        rewritten = _rewrite(conversation, lambda _: next(given))
        return Redacted(rewritten, reading.ledger.values(), reading.ledger.replaced)


def of(settings: Redaction) -> Redactor:
    """Give the redactor of a workload, compiled once a process."""
    return _compiled(settings.model_dump_json())


@cache
def _compiled(settings: str) -> Redactor:
    return Redactor(Redaction.model_validate_json(settings))


def _leaves(conversation: Conversation) -> list[Leaf]:
    found: list[Leaf] = []

    def collect(leaf: Leaf) -> str:
        found.append(leaf)
        return leaf.text

    _rewrite(conversation, collect)
    return found


def _rewrite(conversation: Conversation, visit: Visit) -> Conversation:
    """Rewrite all texts, in the order in which placeholders are numbered."""
    return Conversation(
        messages=[leaves.message(one, visit) for one in conversation.messages],
        answers=[leaves.message(one, visit) for one in conversation.answers],
        acceptable=leaves.acceptable(conversation.acceptable, visit),
        tools=[leaves.tool(one, visit) for one in conversation.tools],
    )
