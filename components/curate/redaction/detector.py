"""Find the values to redact in a conversation; RE2 selects the patterns to run."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import re2

from components.curate.redaction import (
    contact,
    field_patterns,
    identity_numbers,
    json_texts,
    name_patterns,
    patterns,
    secret_values,
)
from components.curate.redaction.json_texts import Leaf, Zone
from components.curate.redaction.patterns import Kind, Pattern
from components.curate.redaction.placeholders import PlaceholderLedger, TooMuchError, require_few
from components.curate.redaction.presidio import Analyzer
from components.curate.settings import Allowed

FIRST_GATES = PLACEHOLDER_GATE, NAME_GATE, SECRET_GATE, FIELD_GATE = range(4)
"""The indices of the first gates, in the order of ``Hits``; the patterns' gates follow."""

AUTOMATON_BYTES = 16 << 20  # RE2's memory limit for the states of each automaton, twice its default

AUTOMATONS = {
    Kind.SECRET: "words",
    Kind.PASSWORD: "words",
    Kind.EMAIL: "contact",
    Kind.PHONE: "contact",
    Kind.ADDRESS: "addresses",
    Kind.IBAN: "tokens",
}
"""The automaton of a kind's gates: gates with similar counted repetitions share one."""

CACHED_TEXTS = 16_384
SHORT = 256  # maximum characters of a cached text: descriptions and values repeat between requests


@dataclass(frozen=True, slots=True)
class Hits:
    """What a text may contain: placeholders, names, kingfisher's secrets, fields, and values.

    ``automatons`` are the indices of those that matched: no other matches a part of the text.
    """

    placeholders: bool = False
    names: bool = False
    secrets: bool = False
    fields: bool = False
    patterns: tuple[Pattern, ...] = ()
    automatons: tuple[int, ...] = ()


NOTHING = Hits()


class Prefilter:
    """Finds, by their gates in RE2 automatons, the patterns that may match a text."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        gates = [r"<[A-Z_]+_[0-9]", name_patterns.GATE, secret_values.GATE, field_patterns.GATE]
        self._patterns: list[tuple[Pattern, frozenset[int]]] = []
        for pattern in patterns:
            own = frozenset(range(len(gates), len(gates) + len(pattern.gates)))
            self._patterns.append((pattern, own))
            gates += pattern.gates
        together: dict[str, list[int]] = {
            "words": [PLACEHOLDER_GATE, NAME_GATE, FIELD_GATE],
            "tokens": [SECRET_GATE],
        }
        for pattern, numbers in self._patterns:
            together.setdefault(AUTOMATONS.get(pattern.kind, "numbers"), []).extend(numbers)
        self._automatons = [_Automaton(gates, some) for some in together.values()]
        self._all = (*range(len(self._automatons)),)
        self._places = {gate: n for n, some in enumerate(together.values()) for gate in some}
        self._remembered = lru_cache(maxsize=CACHED_TEXTS)(self._hits)
        self._of_gates = lru_cache(maxsize=CACHED_TEXTS)(self._select)

    def of(self, text: str, whole: Hits | None = None) -> Hits:
        """Return what a text may contain; ``whole`` is of lines with which it is joined."""
        text = patterns.plain(text)
        some = self._all if whole is None else whole.automatons
        return self._remembered(text, some) if len(text) <= SHORT else self._hits(text, some)

    def _hits(self, text: str, some: tuple[int, ...]) -> Hits:
        encoded = text.encode("utf-8", "replace")
        matching = [gate for n in some for gate in self._automatons[n].matching(encoded)]
        return self._of_gates((*matching,)) if matching else NOTHING

    def _select(self, matching: tuple[int, ...]) -> Hits:
        placeholders, names, secrets, fields = firsts = [gate in matching for gate in FIRST_GATES]
        found = tuple(pattern for pattern, gates in self._patterns if gates <= {*matching})
        if not found and not any(firsts):
            return NOTHING
        automatons = sorted({self._places[gate] for gate in matching})
        return Hits(placeholders, names, secrets, fields, found, (*automatons,))


class _Automaton:
    def __init__(self, gates: Sequence[str], some: Sequence[int]) -> None:
        options = re2.Options()
        options.max_mem = AUTOMATON_BYTES
        self._numbers = some
        self._set = re2.Set.SearchSet(options)
        for number in some:
            self._set.Add(gates[number])
        self._set.Compile()

    def matching(self, text: bytes) -> list[int]:
        """Return the indices of the matching gates."""
        places = cast("list[int] | None", self._set.Match(text))
        return [self._numbers[place] for place in places] if places else []


ROUNDS = 5
"""A value revealed late in a round is known at the start of the next; a last round finds
nothing."""

SECRETS = frozenset({Kind.SECRET, Kind.PASSWORD})
OTHERS = frozenset(Kind) - SECRETS
NAMING_ZONES = frozenset({Zone.USER, Zone.OTHER, Zone.DATA})

EXAMPLES = re.compile(
    r"(?i)[^@]+@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|example|test|invalid|localhost)"
    r"|(?:192\.0\.2|198\.51\.100|203\.0\.113)\.[0-9]+"
    r"|(?:\+?1[ .-])?\(?(?:[0-9]{3}\)?[ .-]?)?555[ .-]?[0-9]{4}"
)
"""Values reserved for documentation (RFC 2606, RFC 5737, 555 numbers) stay in tools' texts."""

SHOWING = re.compile(r"(?i)\be\.g\b|\bi\.e\b|example|such as|format|\blike\b")
"""Words in a tool's description that introduce made-up values, which stay."""


@dataclass(slots=True)
class ConversationScan:
    """The state of one conversation's redaction; ``hits`` is of all its texts together."""

    allowed: Allowed
    gates: Prefilter
    hits: Hits
    analyzer: Analyzer | None = None
    ledger: PlaceholderLedger = field(default_factory=PlaceholderLedger)
    names: set[str] = field(default_factory=set[str])
    secrets: Sequence[str] = ()
    analyzed: set[tuple[Kind, str]] = field(default_factory=set[tuple[Kind, str]])
    _parts: frozenset[str] = frozenset()
    _hits: dict[str, Hits] = field(default_factory=dict[str, Hits])

    def redact(self, new: Sequence[Leaf], joined: str, clean: Sequence[Leaf] = ()) -> list[str]:
        """Return the texts of the leaves with marks in place of values.

        ``clean`` leaves contain only values that the others, ``joined``, reveal.

        Raises:
            TooMuchError: Too many values, or new values still turn up after ``ROUNDS``.
        """
        leaves = [*new, *clean]
        texts = [leaf.text for leaf in leaves]
        changed = range(len(new))
        reads_secrets = self.hits.secrets and Kind.SECRET not in self.allowed.kinds
        for _ in range(ROUNDS):
            if reads_secrets:
                reads_secrets = self._learn_secrets(joined)
            if self.analyzer is not None:
                self._analyze(self.analyzer, leaves, texts, changed)
            has_new_names = self._learn_names(leaves, texts, changed)
            known = len(self.ledger.numbers)
            is_new = set(changed)
            rewritten = [
                self._first(leaf, text) if n in is_new else self._again(text, has_new_names)
                for n, (leaf, text) in enumerate(zip(leaves, texts, strict=True))
            ]
            changed = [n for n, text in enumerate(rewritten) if text != texts[n]]
            texts = rewritten
            if not changed and known == len(self.ledger.numbers):
                break
            joined = "\n".join(texts[: len(new)]) if reads_secrets else ""
        else:
            raise TooMuchError(f"new values still turn up after {ROUNDS} rounds")
        return texts

    def _learn_secrets(self, joined: str) -> bool:
        secrets = secret_values.scan_secrets(joined)
        require_few(len(secrets))
        self.secrets = [secret for secret in secrets if not self.allowed.value(secret)]
        return bool(self.secrets)

    def _analyze(
        self, analyzer: Analyzer, leaves: Sequence[Leaf], texts: Sequence[str], some: Iterable[int]
    ) -> None:
        for n in some:
            if leaves[n].zone in NAMING_ZONES:
                for kind, value in analyzer.find(texts[n]):
                    if "<" not in value and kind not in self.allowed.kinds:
                        self.analyzed.add((kind, value))

    def _learn_names(
        self, leaves: Sequence[Leaf], texts: Sequence[str], changed: Iterable[int]
    ) -> bool:
        """Collect the names that the changed texts reveal; return whether there are new ones."""
        if Kind.NAME in self.allowed.kinds:
            return False
        names = {
            word
            for n in changed
            for word in self._names_in(leaves[n], texts[n], texts[n - 1] if n else "")
            if not self.allowed.value(word)
        }
        names |= {
            word
            for kind, value in self.analyzed
            if kind is Kind.NAME and not self.allowed.value(value)
            for word in name_patterns.words(value)
        }
        if names <= self.names:
            return False
        self.names |= names
        require_few(len(self.names))
        self._parts = frozenset(name.lower() for name in self.names)
        return True

    def _names_in(self, leaf: Leaf, text: str, before: str) -> Iterable[str]:
        if leaf.zone is Zone.DATA and leaf.field in json_texts.VALUE_FIELDS:
            if leaf.field in json_texts.USERS:
                return name_patterns.in_user_id(text)
            if json_texts.kind_of(leaf.field, text) is Kind.NAME:
                return name_patterns.words(text)
        if not (self.hits.names or self.hits.fields) or leaf.zone not in NAMING_ZONES:
            return ()
        hits, text = self._hits_of(leaf, text), patterns.plain(text)
        names = self._names_of_fields(text) if hits.fields else []
        if hits.names:
            return [*names, *name_patterns.named_in(text, leaf.zone is Zone.USER)]
        if names or leaf.zone is not Zone.USER:
            return names
        return name_patterns.named_in_answer(before, text)

    def _hits_of(self, leaf: Leaf, text: str) -> Hits:
        # Kept, as a text is read for names, and again for the other values.
        if text not in self._hits:
            # A rewritten text is no part of all texts together.
            self._hits[text] = self.gates.of(text, self.hits if text is leaf.text else None)
        return self._hits[text]

    def _names_of_fields(self, text: str) -> list[str]:
        spans = (
            (start, end) for kind, start, end in field_patterns.find(text) if kind is Kind.NAME
        )
        return [word for start, end in spans for word in name_patterns.words(text[start:end])]

    def _first(self, leaf: Leaf, text: str) -> str:
        """Redact a text that is new or has changed."""
        is_amount = leaf.zone is Zone.NUMBER and not text.isdigit()
        if leaf.field in json_texts.VALUE_FIELDS and leaf.zone is not Zone.TOOLS and not is_amount:
            whole = self._field(leaf, text)
            if whole is not None:
                return whole
        if leaf.zone is Zone.NUMBER:
            return self._number(text)
        has_hits = self.hits.patterns or self.hits.fields
        hits = self._hits_of(leaf, text) if has_hits else NOTHING
        if hits.fields and leaf.zone is not Zone.TOOLS:
            text = self._fields_within(text)
        text = self._matching(hits.patterns, SECRETS, leaf.zone, text)
        for secret in self.secrets:
            if secret in text:
                text = self.ledger.replace(Kind.SECRET, secret, secret, text)
        text = self._matching(hits.patterns, OTHERS, leaf.zone, text)
        for kind, value in sorted(self.analyzed):
            if kind is not Kind.NAME and value in text and not self.allowed.value(value):
                text = self.ledger.replace(kind, json_texts.key(kind, value), value, text)
        return self._again(text, has_new_names=True)

    def _again(self, text: str, has_new_names: bool) -> str:
        """Redact values that have become known since the last round."""
        if has_new_names and self._parts:
            lowered = text.lower()
            if any(part in lowered for part in self._parts):
                text = patterns.outside_placeholders(text, self._named)
        return self.ledger.replace_known(text) if self.ledger.known else text

    def _matching(
        self, patterns: Iterable[Pattern], some: frozenset[Kind], zone: Zone, text: str
    ) -> str:
        for pattern in patterns:
            if pattern.kind in some:
                text = self._replaced(pattern, zone, text)
        return text

    def _replaced(self, pattern: Pattern, zone: Zone, text: str) -> str:
        done, written = 0, list[str]()
        readable = patterns.plain(text)
        match = pattern.expression.search(readable)
        while match:
            checked = pattern.check(match)
            values = checked if isinstance(checked, list) else [checked] if checked else []
            for value in values:
                exact = readable[value.start : value.end]
                if self.allowed.value(exact) or (zone is Zone.TOOLS and _is_example(match, exact)):
                    continue
                spelling = text[value.start : value.end]
                written += [text[done : value.start]]
                written += [self.ledger.stand_in(pattern.kind, value.key, spelling)]
                done = value.end
            # The rest of a match may be the start of another value: two IBANs in a row.
            resume = values[-1].end if values else match.end()
            if not values and pattern.kind is Kind.IBAN:
                # A code before an IBAN is read as its start: "QX45 was paid to DE89 ...".
                resume = match.start() + 1
            match = pattern.expression.search(readable, resume)
        return "".join([*written, text[done:]])

    def _field(self, leaf: Leaf, text: str) -> str | None:
        """Redact a field's whole value by the field's name; ``None`` if that has no kind."""
        readable = patterns.plain(text)
        kind = json_texts.kind_of(leaf.field, readable)
        if kind is None or self._stays(kind, readable):
            return None
        if kind is Kind.NAME:
            return self._part_by_part(text)
        if kind is Kind.ADDRESS and contact.holds_address(readable):
            return None
        return self.ledger.stand_in(kind, json_texts.key(kind, readable), text)

    def _fields_within(self, text: str) -> str:
        """Redact the values of fields that are not names, which are replaced part by part."""
        done, written, readable = 0, "", patterns.plain(text)
        for kind, start, end in field_patterns.find(readable):
            value = readable[start:end]
            is_found_by_form = kind is Kind.ADDRESS and contact.holds_address(value)
            if kind is Kind.NAME or is_found_by_form or self._stays(kind, value):
                continue
            key = json_texts.key(kind, value)
            written += text[done:start] + self.ledger.stand_in(kind, key, text[start:end])
            done = end
        return written + text[done:]

    def _stays(self, kind: Kind, value: str) -> bool:
        return kind in self.allowed.kinds or self.allowed.value(value)

    def _number(self, text: str) -> str:
        """Redact a known number, or one with the form of a card."""
        is_card = len(text) in (14, 15, 16) and text.isdigit() and identity_numbers.is_card(text)
        if is_card and Kind.CARD not in self.allowed.kinds and not self.allowed.value(text):
            return self.ledger.stand_in(Kind.CARD, text, text)
        return self.ledger.replace_known(text)

    def _named(self, text: str) -> str:
        """Replace known names, part by part."""
        done, written = 0, ""
        readable = patterns.plain(text)
        for start, end in name_patterns.runs(readable, self._parts):
            if name_patterns.is_name(readable, start, end, self.names):
                written += text[done:start] + self._part_by_part(text[start:end])
                done = end
        return written + text[done:]

    def _part_by_part(self, text: str) -> str:
        # A placeholder per part, so that shared parts show relations.
        return name_patterns.PART.sub(self._part, text)

    def _part(self, word: re.Match[str]) -> str:
        written = word.group()
        key = written.lower()
        return self.ledger.stand_in(Kind.NAME, key, written) if key in self._parts else written


def _is_example(match: re.Match[str], value: str) -> bool:
    """Return whether a value in a tool's description is only an example."""
    return bool(EXAMPLES.fullmatch(value)) or _shown_from(match.string) <= match.start()


@lru_cache(maxsize=8)
def _shown_from(text: str) -> int:
    """Return the end of the first word that introduces examples; past the text's end if none."""
    showing = SHOWING.search(text)
    return len(text) + 1 if showing is None else showing.end()
