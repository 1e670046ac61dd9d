"""Read one conversation's texts until nothing more is found in them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from components.curate.redaction import addresses, checksums, fields, names, secrets
from components.curate.redaction.allowed import Allowed
from components.curate.redaction.kinds import Kind
from components.curate.redaction.leaves import Leaf, Zone
from components.curate.redaction.ledger import Ledger
from components.curate.redaction.pattern import Pattern

ROUNDS = 5
"""A value told late is known early in the next round only, and one more finds nothing."""

SECRETS = frozenset({Kind.SECRET, Kind.PASSWORD})
OTHERS = frozenset(Kind) - SECRETS

EXAMPLES = re.compile(
    r"(?i)[^@]+@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|example|test|invalid|localhost)"
    r"|(?:192\.0\.2|198\.51\.100|203\.0\.113)\.[0-9]+"
    r"|(?:\+?1[ .-])?\(?(?:[0-9]{3}\)?[ .-]?)?555[ .-]?[0-9]{4}"
)
"""What is reserved for documentation (RFC 2606, RFC 5737, 555 numbers): stays in tools' texts."""

SHOWING = re.compile(r"(?i)\be\.g\b|\bi\.e\b|example|such as|format|\blike\b")
"""Words in a tool's description behind which its author made values up: they stay there."""


@dataclass(slots=True)
class Reading:
    """One conversation while it is redacted.

    ``patterns`` are those whose gate some text passed; ``reads_names`` and ``reads_secrets`` say
    the same of the two tiers that look at the whole conversation.
    """

    allowed: Allowed
    patterns: Sequence[Pattern]
    reads_names: bool
    reads_secrets: bool
    ledger: Ledger = field(default_factory=Ledger)
    names: set[str] = field(default_factory=set[str])
    secrets: list[str] = field(default_factory=list[str])
    _expression: re.Pattern[str] | None = None
    _parts: tuple[str, ...] = ()

    def redact(self, found: Sequence[Leaf]) -> list[str]:
        """Give the texts of the leaves with placeholders in place of values."""
        texts = [leaf.text for leaf in found]
        changed: Sequence[int] = range(len(found))
        for _ in range(ROUNDS):
            self._learn([(found[n], texts[n]) for n in changed], "\n".join(texts))
            known = len(self.ledger.numbers)
            rewritten = [
                self._leaf(leaf, text, is_new=n in changed)
                for n, (leaf, text) in enumerate(zip(found, texts, strict=True))
            ]
            changed = [n for n, text in enumerate(rewritten) if text != texts[n]]
            texts = rewritten
            if not changed and known == len(self.ledger.numbers):
                break
        return texts

    def _learn(self, changed: Iterable[tuple[Leaf, str]], joined: str) -> None:
        """Learn what is only known of a conversation as a whole: its names and its secrets."""
        if self.reads_secrets:
            found = secrets.found_by_rules(joined)
            self.secrets = [one for one in found if not self.allowed.value(one)]
            self.reads_secrets = bool(self.secrets)
        if Kind.NAME in self.allowed.kinds:
            return
        told = {
            word
            for leaf, text in changed
            for word in self._told(leaf, text)
            if not self.allowed.value(word)
        }
        if not told <= self.names:
            self.names |= told
            self._expression = names.expression(self.names)
            self._parts = tuple(sorted({one.lower() for one in self.names}))

    def _told(self, leaf: Leaf, text: str) -> Iterable[str]:
        if leaf.zone is Zone.DATA and leaf.field in fields.TELLING:
            if leaf.field in fields.USERS:
                yield from names.in_user_id(text)
            elif fields.kind_of(leaf.field, text) is Kind.NAME:
                yield from names.words(text)
        if self.reads_names and leaf.zone in (Zone.USER, Zone.SAID, Zone.DATA):
            yield from names.told(text, leaf.zone is Zone.USER)

    def _leaf(self, leaf: Leaf, text: str, *, is_new: bool) -> str:
        if is_new and leaf.field in fields.TELLING and leaf.zone is not Zone.TOOLS:
            whole = self._field(leaf, text)
            if whole is not None:
                return whole
        if leaf.zone is Zone.NUMBER:
            return self._number(text)
        if is_new:
            text = self._matching(SECRETS, leaf, text)
            text = self.ledger.replace_exactly(self.secrets, text)
            text = self._matching(OTHERS, leaf, text)
        if self._expression is not None:
            lowered = text.lower()
            if any(part in lowered for part in self._parts):
                text = self._expression.sub(self._named, text)
        return self.ledger.replace_known(text) if self.ledger.numbers else text

    def _matching(self, kinds: frozenset[Kind], leaf: Leaf, text: str) -> str:
        for pattern in self.patterns:
            if pattern.kind in kinds:
                text = pattern.expression.sub(partial(self._matched, pattern, leaf.zone), text)
        return text

    def _field(self, leaf: Leaf, text: str) -> str | None:
        """Redact what a field says of its whole value; ``None`` if it says nothing."""
        kind = fields.kind_of(leaf.field, text)
        if kind is None or kind in self.allowed.kinds or self.allowed.value(text):
            return None
        if kind is Kind.NAME:
            return self._part_by_part(text)
        if kind is Kind.ADDRESS and addresses.is_in(text):
            return None
        return self.ledger.stand_in(kind, fields.key(kind, text))

    def _number(self, text: str) -> str:
        """Redact a number that is known, or has the form of a card."""
        is_card = len(text) in (14, 15, 16) and text.isdigit() and checksums.is_card(text)
        if is_card and Kind.CARD not in self.allowed.kinds and not self.allowed.value(text):
            return self.ledger.stand_in(Kind.CARD, text)
        return self.ledger.replace_known(text)

    def _matched(self, pattern: Pattern, zone: Zone, match: re.Match[str]) -> str:
        whole = match.group()
        value = pattern.check(match)
        if value is None:
            return whole
        start, end = value.start - match.start(), value.end - match.start()
        text = whole[start:end]
        if self.allowed.value(text) or (zone is Zone.TOOLS and _is_example(match, text)):
            return whole
        return whole[:start] + self.ledger.stand_in(pattern.kind, value.key) + whole[end:]

    def _named(self, match: re.Match[str]) -> str:
        is_name = names.is_name(match, self.names)
        return self._part_by_part(match.group()) if is_name else match.group()

    def _part_by_part(self, text: str) -> str:
        """Replace each part of a name by a placeholder of its own, so that parts show relations."""
        return re.sub(names.WORD, self._part, text)

    def _part(self, word: re.Match[str]) -> str:
        key = word.group().lower()
        return self.ledger.stand_in(Kind.NAME, key) if key in self._parts else word.group()


def _is_example(match: re.Match[str], value: str) -> bool:
    """Say if a value in a tool's description only shows what one looks like."""
    return bool(EXAMPLES.fullmatch(value) or SHOWING.search(match.string, 0, match.start()))
