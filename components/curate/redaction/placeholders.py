"""The occurrences of a conversation's values, and the numbers of their placeholders."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

from components.curate.redaction import patterns
from components.curate.redaction.patterns import PLACEHOLDER, Kind, placeholder

IN_DIGITS = frozenset({Kind.PHONE, Kind.CARD, Kind.SSN})
SHORTEST = 4
"""Shorter values are replaced only where they were found: elsewhere they may mean anything."""


MAX_VALUES = 1_000
"""Maximum distinct values of one row, as each is searched in all its texts. A row with more is a
list of people, and not worth learning."""

NO_DIGITS = re.compile("[^0-9]+")


class TooMuchError(ValueError):
    """Raised when a row has too many values to redact."""


def require_few(values: int) -> None:
    """Raise ``TooMuchError`` for more than ``MAX_VALUES``."""
    if values > MAX_VALUES:
        raise TooMuchError(f"more than {MAX_VALUES:,} distinct values")


@dataclass(frozen=True, slots=True)
class KnownValue:
    """A value that is replaced everywhere."""

    kind: Kind
    key: str
    lowered: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One occurrence of a value: its canonical ``key``, and its spelling ``written``.

    ``number`` is that of the value's placeholder. ``is_number``: the value is in a JSON number, not
    in a text.
    """

    kind: Kind
    key: str
    written: str
    number: int
    is_number: bool = False


@dataclass(slots=True)
class PlaceholderLedger:
    """The numbers of the values found so far, by kind and key, and all their occurrences.

    During redaction, each occurrence has its own mark, which looks like a placeholder: its number
    is that of the first mark plus its index in ``occurrences``. ``numbered`` turns marks into
    placeholders, which number the values. Numbers of existing placeholders are not reused.
    """

    numbers: dict[tuple[Kind, str], int] = field(default_factory=dict[tuple[Kind, str], int])
    occurrences: list[Occurrence] = field(default_factory=list[Occurrence])
    first_mark: int = 1
    taken: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])
    known: list[KnownValue] = field(default_factory=list[KnownValue])

    def reserve(self, text: str, quoting: str = "") -> None:
        """Reserve the numbers of the conversation's existing placeholders.

        Those in ``quoting`` alone were made by an earlier redaction and refer to values.
        """
        for kind, number in PLACEHOLDER.findall(text):
            known = Kind(kind.lower())
            self.taken[known] = max(self.taken[known], int(number))
            self.first_mark = max(self.first_mark, int(number) + 1)
        for _, number in PLACEHOLDER.findall(quoting):
            self.first_mark = max(self.first_mark, int(number) + 1)

    def stand_in(self, kind: Kind, key: str, written: str) -> str:
        """Record an occurrence of a value and return its mark."""
        if (kind, key) not in self.numbers:
            require_few(len(self.numbers) + 1)
            self.taken[kind] += 1
            self.numbers[kind, key] = self.taken[kind]
            if kind is not Kind.NAME and (kind in IN_DIGITS or _is_distinctive(key)):
                self.known.append(KnownValue(kind, key, patterns.plain(key).lower()))
        self.replaced[kind] += 1
        self.occurrences.append(Occurrence(kind, key, written, self.numbers[kind, key]))
        return placeholder(kind, self.first_mark + len(self.occurrences) - 1)

    def note_number(self, text: str) -> None:
        """Record that the marks in a text are in a JSON number."""
        for match in PLACEHOLDER.finditer(text):
            index = int(match[2]) - self.first_mark
            if 0 <= index < len(self.occurrences):
                self.occurrences[index] = replace(self.occurrences[index], is_number=True)

    def numbered(self, text: str) -> str:
        """Return a text with placeholders in place of marks."""
        return PLACEHOLDER.sub(self._placeholder, text) if "<" in text else text

    def _placeholder(self, match: re.Match[str]) -> str:
        index = int(match[2]) - self.first_mark
        if not 0 <= index < len(self.occurrences):
            return match.group()
        value = self.occurrences[index]
        return placeholder(value.kind, value.number)

    def quoted(self, text: str) -> str:
        """Return a correction with marks in place of placeholders that its author saw."""
        values = {(kind, number): key for (kind, key), number in self.numbers.items()}
        firsts = {
            (occurrence.kind, occurrence.key): occurrence
            for occurrence in reversed(self.occurrences)
        }

        def mark(match: re.Match[str]) -> str:
            kind, number = Kind(match[1].lower()), int(match[2])
            key = values.get((kind, number))
            if key is None or number >= self.first_mark:
                return match.group()
            return self.stand_in(kind, key, firsts[kind, key].written)

        return PLACEHOLDER.sub(mark, text) if "<" in text else text

    def values(self) -> Counter[Kind]:
        """Return the number of distinct values by kind."""
        return Counter(kind for kind, _ in self.numbers)

    def replace_known(self, text: str) -> str:
        """Replace all known values in a text, in any spelling."""
        readable = patterns.plain(text)
        lowered, digits = readable.lower(), None
        for value in self.known:
            if value.kind in IN_DIGITS:
                digits = NO_DIGITS.sub("", readable) if digits is None else digits
                if value.lowered in digits:
                    text = self._replace(value, _spelled(value.kind, value.key), text)
            elif value.lowered in lowered:
                text = self._replace(value, _literal(value.key), text)
        return text

    def replace(self, kind: Kind, key: str, value: str, text: str) -> str:
        """Replace a value in its exact spelling, regardless of the surrounding text."""
        exact = re.compile(re.escape(patterns.plain(value)))
        return self._replace(KnownValue(kind, key, key), exact, text)

    def _replace(self, known: KnownValue, expression: re.Pattern[str], text: str) -> str:
        change = partial(self.stand_in, known.kind, known.key)
        replace_matches = partial(patterns.replace_in_plain, expression, change)
        return patterns.outside_placeholders(text, replace_matches)


def _spelled(kind: Kind, digits: str) -> re.Pattern[str]:
    prefix = r"(?:\+?(?:1[ ().-]{0,2})?\(?)?" if kind is Kind.PHONE else ""
    return re.compile(rf"(?<![0-9A-Za-z]){prefix}{'[ ().-]{0,2}'.join(digits)}(?![0-9A-Za-z])")


def _is_distinctive(key: str) -> bool:
    """Return whether a value can't be a word: a password may be one, which stays elsewhere."""
    return len(key) >= SHORTEST and not (key.isalpha() and key.islower())


def _literal(key: str) -> re.Pattern[str]:
    written = re.escape(patterns.plain(key))
    return re.compile("(?i)" + patterns.beside_any_script(rf"(?<!\w){written}(?!\w)"))
