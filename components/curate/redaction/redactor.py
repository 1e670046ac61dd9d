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
"""In this order: a value matched by one is invisible to later ones."""


CACHED_OFFERS = 512  # cached lists of tools; most requests of an application offer one of a few


@dataclass(frozen=True, slots=True)
class Conversation:
    """Texts redacted together: a request, its answers, its references.

    ``tools_text`` is the tools' JSON if available, the key of a cache. If it ``is_corrected``, the
    first answer is by a person who may have seen the others with placeholders; its placeholders
    then refer to the values.
    """

    messages: list[dict[str, Json]]
    tools: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    answers: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    acceptable: Json = None
    tools_text: str | None = None
    is_corrected: bool = False


Offered = tuple[list[Leaf], bool]
"""The texts of a request's tools, and whether these contain no values."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """A conversation with placeholders, and its distinct values and replacements by kind.

    ``marked`` is the conversation with a mark per occurrence of a value, whose number is
    ``first_mark`` plus its index in ``occurrences``; ``None`` without occurrences.
    """

    conversation: Conversation
    values: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])
    marked: Conversation | None = None
    first_mark: int = 1
    occurrences: tuple[Occurrence, ...] = ()


class Redactor:
    """Redacts a workload's conversations; deterministic and independent of their order."""

    def __init__(self, settings: Redaction) -> None:
        self._allowed = Allowed.by(settings)
        self._analyzer = Analyzer(settings.presidio) if settings.presidio else None
        self._gates = Prefilter(
            [pattern for pattern in PATTERNS if pattern.kind not in self._allowed.kinds]
        )
        self._remembered = lru_cache(CACHED_OFFERS)(self._read_text)

    def redact(self, conversation: Conversation) -> Redacted:
        """Return the conversation with placeholders for its values.

        Raises ``ValueError`` or ``RecursionError`` for JSON in a text that can't be written again.
        """
        text = conversation.tools_text
        tools, is_clean = self._read(conversation.tools) if text is None else self._remembered(text)
        leaves = _leaves(partial(_rewrite_turns, conversation))
        if not is_clean:
            leaves += tools
        joined = "\n".join([leaf.text for leaf in leaves])
        correction = _correction(conversation)
        hits = self._gates.of(joined)
        if (
            self._analyzer is None
            and hits is NOTHING
            and json_texts.VALUE_FIELDS.isdisjoint([leaf.field for leaf in leaves])
        ):
            return Redacted(conversation)
        scan = ConversationScan(self._allowed, self._gates, hits, self._analyzer)
        if hits.placeholders:
            texts = [leaf.text for leaf in leaves]
            quoting = texts[correction.start : correction.stop]
            del texts[correction.start : correction.stop]
            scan.ledger.reserve("\n".join(texts), "\n".join(quoting))
        clean = tools if is_clean else []
        texts = scan.redact(leaves, joined, clean)
        ledger = scan.ledger
        if not ledger.numbers:
            return Redacted(conversation)
        for n in correction if hits.placeholders else ():
            texts[n] = ledger.quoted(texts[n])
        for leaf, text in zip([*leaves, *clean], texts, strict=True):
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

    def _read_text(self, text: str) -> Offered:
        return self._read(json.loads(text))

    def _read(self, tools: list[dict[str, Json]]) -> Offered:
        leaves = _leaves(partial(_rewrite_tools, tools))
        joined = "\n".join([leaf.text for leaf in leaves])
        hits = self._gates.of(joined)
        if hits is NOTHING:
            return leaves, True
        scan = ConversationScan(self._allowed, self._gates, hits)
        scan.redact(leaves, joined)
        return leaves, not scan.ledger.numbers and not hits.placeholders


def for_settings(settings: Redaction) -> Redactor:
    """Return a workload's redactor, compiled once per process."""
    return _compiled(settings.model_dump_json())


@cache
def _compiled(settings: str) -> Redactor:
    return Redactor(Redaction.model_validate_json(settings))


def _leaves(rewrite: Callable[[Visit], object]) -> list[Leaf]:
    leaves: list[Leaf] = []

    def collect(leaf: Leaf) -> str:
        leaves.append(leaf)
        return leaf.text

    rewrite(collect)
    return leaves


def _correction(conversation: Conversation) -> range:
    if not conversation.is_corrected:
        return range(0)
    without = replace(conversation, answers=[], acceptable=None)
    start = len(_leaves(partial(_rewrite_turns, without)))
    without = replace(without, messages=[], answers=conversation.answers[:1])
    return range(start, start + len(_leaves(partial(_rewrite_turns, without))))


def _with_texts(conversation: Conversation, texts: Iterator[str]) -> Conversation:
    """Replace a conversation's texts, in the order in which they are visited."""
    rewritten = _rewrite_turns(conversation, lambda _: next(texts))
    return replace(rewritten, tools=_rewrite_tools(conversation.tools, lambda _: next(texts)))


def _rewrite_turns(conversation: Conversation, visit: Visit) -> Conversation:
    return Conversation(
        messages=[json_texts.message(item, visit) for item in conversation.messages],
        answers=[json_texts.message(item, visit) for item in conversation.answers],
        acceptable=json_texts.acceptable(conversation.acceptable, visit),
    )


def _rewrite_tools(tools: list[dict[str, Json]], visit: Visit) -> list[dict[str, Json]]:
    return [json_texts.tool(tool, visit) for tool in tools]


def redact_schema(schema: str, settings: Redaction) -> str:
    """Return a JSON Schema, as JSON text, with placeholders for its values; empty if unreadable."""
    try:
        tool: dict[str, Json] = {"function": {"parameters": json.loads(schema)}}
        redacted = for_settings(settings).redact(Conversation([], [tool])).conversation
    except (ValueError, RecursionError):
        return ""
    function = redacted.tools[0]["function"]
    return json_texts.dumps(function["parameters"]) if isinstance(function, dict) else ""


def keeps_values(settings: Redaction) -> bool:
    """Return whether any recognised value may stay."""
    return bool(settings.off or settings.allow or settings.allow_patterns)


def unredacted_finder(settings: Redaction) -> Callable[[str], list[str]] | None:
    """Return a function that lists a rendered answer's allowed values; ``None`` without any."""
    if not keeps_values(settings):
        return None
    strict, own = for_settings(Redaction()), for_settings(settings)

    def find(answer: str) -> list[str]:
        replaced = set(_values(answer, own))
        stayed = [value for value in _values(answer, strict) if value not in replaced]
        return sorted(stayed, key=answer.find)

    return find


def _values(answer: str, redactor: Redactor) -> list[str]:
    conversation = Conversation([], answers=[{"role": "assistant", "content": answer}])
    try:
        occurrences = redactor.redact(conversation).occurrences
    except (ValueError, RecursionError):  # such a conversation was already left out
        return []
    return [*dict.fromkeys(occurrence.written for occurrence in occurrences)]
