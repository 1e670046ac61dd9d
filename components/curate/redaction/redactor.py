"""Redact one conversation: equal values get equal replacements."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial

from components.curate.redaction import contact, identity_numbers, json_texts, secret_values
from components.curate.redaction.detector import NOTHING, ConversationScan, Prefilter
from components.curate.redaction.json_texts import Leaf, Visit, Zone
from components.curate.redaction.patterns import Kind
from components.curate.redaction.placeholders import Occurrence
from components.curate.redaction.presidio import Analyzer
from components.curate.settings import Allowed, Redaction
from components.schema import Json

PATTERNS = (
    *secret_values.PATTERNS,
    *(pattern for pattern in contact.PATTERNS if pattern.kind is Kind.EMAIL),
    *identity_numbers.PATTERNS,
    *(pattern for pattern in contact.PATTERNS if pattern.kind is Kind.PHONE),
    *contact.ADDRESS_PATTERNS,
)
"""In this order: what an earlier one took, a later one does not see."""


OFFERS = 512
"""Lists of tools that are remembered; most requests of an application offer one of a few."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is redacted together: a request, the answers given or wanted, its references.

    ``tools_text`` is the JSON of the tools where it is at hand: equal ones are looked at once. If
    it ``is_corrected``, the first answer is by a person who may have been shown the others with
    placeholders: in it, these name the values.
    """

    messages: list[dict[str, Json]]
    tools: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    answers: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    acceptable: Json = None
    tools_text: str | None = None
    is_corrected: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """A request's tools: their texts, and whether these hold no value of their own."""

    leaves: list[Leaf]
    is_clean: bool


@dataclass(frozen=True, slots=True)
class Redacted:
    """A conversation with placeholders, its distinct values and all replacements by kind.

    ``marked`` is the conversation in which each occurrence of a value has a mark of its own, whose
    number is ``first_mark`` plus the place among the ``occurrences``; ``None`` if there are none.
    """

    conversation: Conversation
    values: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])
    marked: Conversation | None = None
    first_mark: int = 1
    occurrences: tuple[Occurrence, ...] = ()


class Redactor:
    """Holds what is compiled once for a workload; gives the same for the same, in any order."""

    def __init__(self, settings: Redaction) -> None:
        self._allowed = Allowed.by(settings)
        self._analyzer = Analyzer(settings.presidio) if settings.presidio else None
        self._gates = Prefilter([one for one in PATTERNS if one.kind not in self._allowed.kinds])
        self._remembered = lru_cache(OFFERS)(self._read_text)

    def redact(self, conversation: Conversation) -> Redacted:
        """Replace what is found by placeholders.

        Raises:
            ValueError: JSON inside of it can't be written again.
            RecursionError: It is nested too deeply.
        """
        tools = self._offered(conversation)
        found = _leaves(partial(_rewrite_said, conversation))
        if not tools.is_clean:
            found += tools.leaves
        joined = "\n".join([leaf.text for leaf in found])
        correction = _correction(conversation)
        hits = self._gates.of(joined)
        if (
            self._analyzer is None
            and hits is NOTHING
            and json_texts.TELLING.isdisjoint([leaf.field for leaf in found])
        ):
            return Redacted(conversation)
        reading = ConversationScan(self._allowed, self._gates, hits, self._analyzer)
        if hits.placeholders:
            texts = [leaf.text for leaf in found]
            quoting = texts[correction.start : correction.stop]
            del texts[correction.start : correction.stop]
            reading.ledger.reserve("\n".join(texts), "\n".join(quoting))
        clean = tools.leaves if tools.is_clean else []
        texts = reading.redact(found, joined, clean)
        ledger = reading.ledger
        if not ledger.numbers:
            return Redacted(conversation)
        for n in correction if hits.placeholders else ():
            texts[n] = ledger.quoted(texts[n])
        for leaf, text in zip([*found, *clean], texts, strict=True):
            if leaf.zone is Zone.NUMBER:
                ledger.note_number(text)
        return Redacted(
            _with_texts(conversation, map(ledger.numbered, texts)),
            ledger.values(),
            ledger.replaced,
            _with_texts(conversation, iter(texts)),
            ledger.first_mark,
            tuple(ledger.occurrences),
        )

    def _offered(self, conversation: Conversation) -> Offered:
        text = conversation.tools_text
        return self._read(conversation.tools) if text is None else self._remembered(text)

    def _read_text(self, text: str) -> Offered:
        return self._read(json.loads(text))

    def _read(self, tools: list[dict[str, Json]]) -> Offered:
        found = _leaves(partial(_rewrite_tools, tools))
        joined = "\n".join([leaf.text for leaf in found])
        hits = self._gates.of(joined)
        if hits is NOTHING:
            return Offered(found, is_clean=True)
        reading = ConversationScan(self._allowed, self._gates, hits)
        reading.redact(found, joined)
        return Offered(found, is_clean=not reading.ledger.numbers and not hits.placeholders)


def of(settings: Redaction) -> Redactor:
    """Give the redactor of a workload, compiled once a process."""
    return _compiled(settings.model_dump_json())


@cache
def _compiled(settings: str) -> Redactor:
    return Redactor(Redaction.model_validate_json(settings))


def _leaves(rewrite: Callable[[Visit], object]) -> list[Leaf]:
    found: list[Leaf] = []

    def collect(leaf: Leaf) -> str:
        found.append(leaf)
        return leaf.text

    rewrite(collect)
    return found


def _correction(conversation: Conversation) -> range:
    """Return the places among the leaves of what a person who corrects wrote."""
    if not conversation.is_corrected:
        return range(0)
    said = replace(conversation, answers=[], acceptable=None)
    start = len(_leaves(partial(_rewrite_said, said)))
    said = replace(said, messages=[], answers=conversation.answers[:1])
    return range(start, start + len(_leaves(partial(_rewrite_said, said))))


def _with_texts(conversation: Conversation, texts: Iterator[str]) -> Conversation:
    """Put other texts in the places of a conversation's, in the order in which they are read."""
    said = _rewrite_said(conversation, lambda _: next(texts))
    return replace(said, tools=_rewrite_tools(conversation.tools, lambda _: next(texts)))


def _rewrite_said(conversation: Conversation, visit: Visit) -> Conversation:
    return Conversation(
        messages=[json_texts.message(one, visit) for one in conversation.messages],
        answers=[json_texts.message(one, visit) for one in conversation.answers],
        acceptable=json_texts.acceptable(conversation.acceptable, visit),
    )


def _rewrite_tools(tools: list[dict[str, Json]], visit: Visit) -> list[dict[str, Json]]:
    return [json_texts.tool(one, visit) for one in tools]


def lets_stay(settings: Redaction) -> bool:
    """Tell whether anything that is recognised may stay."""
    return bool(settings.off or settings.allow or settings.allow_patterns)


def unredacted_finder(settings: Redaction) -> Callable[[str], list[str]] | None:
    """Give what finds such values in an answer as rendered; ``None`` where nothing may stay."""
    if not lets_stay(settings):
        return None
    strict, own = of(Redaction()), of(settings)

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
