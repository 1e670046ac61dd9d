"""Where each value of a conversation stands, and the number of its placeholder."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

from components.curate.redaction import patterns
from components.curate.redaction.patterns import PLACEHOLDER, Kind, placeholder

IN_DIGITS = frozenset({Kind.PHONE, Kind.CARD, Kind.SSN})
SHORTEST = 4
"""Shorter values are replaced where they were found only: elsewhere they may be anything."""


MOST_VALUES = 1_000
"""Distinct values of one row: each is looked for in all its texts. A row with more is a list of
people, and nothing to learn from."""

NO_DIGITS = re.compile("[^0-9]+")


class TooMuchError(ValueError):
    """More than is redacted of one row."""


def require_few(values: int) -> None:
    """Check how many values are looked for.

    Raises:
        TooMuchError: They are more than ``MOST_VALUES``.
    """
    if values > MOST_VALUES:
        raise TooMuchError(f"more than {MOST_VALUES:,} distinct values")


@dataclass(frozen=True, slots=True)
class KnownValue:
    """A value that is replaced wherever else it stands."""

    kind: Kind
    key: str
    lowered: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One place where a value stands: its one form (``key``), and how it is written there.

    ``number`` is that of the value's placeholder. ``is_number`` says that the value stands in a
    JSON number, not in a text.
    """

    kind: Kind
    key: str
    written: str
    number: int
    is_number: bool = False


@dataclass(slots=True)
class PlaceholderLedger:
    """The numbers of the values found so far, by kind and key, and where each of them stands.

    While a conversation is read, each occurrence has a mark of its own, which looks like a
    placeholder: its number is that of the first mark plus its index among the occurrences.
    ``numbered`` turns marks into placeholders, which number the values. Placeholders that were
    there before keep their numbers for themselves.
    """

    numbers: dict[tuple[Kind, str], int] = field(default_factory=dict[tuple[Kind, str], int])
    occurrences: list[Occurrence] = field(default_factory=list[Occurrence])
    first_mark: int = 1
    taken: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])
    known: list[KnownValue] = field(default_factory=list[KnownValue])

    def reserve(self, text: str, quoting: str = "") -> None:
        """Keep the numbers of placeholders that the conversation came with.

        Those that are only ``quoting`` were made by an earlier redaction: they name values.
        """
        for kind, number in PLACEHOLDER.findall(text):
            known = Kind(kind.lower())
            self.taken[known] = max(self.taken[known], int(number))
            self.first_mark = max(self.first_mark, int(number) + 1)
        for _, number in PLACEHOLDER.findall(quoting):
            self.first_mark = max(self.first_mark, int(number) + 1)

    def stand_in(self, kind: Kind, key: str, written: str) -> str:
        """Note an occurrence of a value and return its mark."""
        if (kind, key) not in self.numbers:
            require_few(len(self.numbers) + 1)
            self.taken[kind] += 1
            self.numbers[kind, key] = self.taken[kind]
            if kind is not Kind.NAME and (kind in IN_DIGITS or _is_telling(key)):
                self.known.append(KnownValue(kind, key, key.lower()))
        self.replaced[kind] += 1
        self.occurrences.append(Occurrence(kind, key, written, self.numbers[kind, key]))
        return placeholder(kind, self.first_mark + len(self.occurrences) - 1)

    def note_number(self, text: str) -> None:
        """Note that the marks in a text stand in a JSON number."""
        for match in PLACEHOLDER.finditer(text):
            index = int(match[2]) - self.first_mark
            if 0 <= index < len(self.occurrences):
                self.occurrences[index] = replace(self.occurrences[index], is_number=True)

    def numbered(self, text: str) -> str:
        """Turn the marks in a text into placeholders."""
        return PLACEHOLDER.sub(self._placeholder, text) if "<" in text else text

    def _placeholder(self, match: re.Match[str]) -> str:
        index = int(match[2]) - self.first_mark
        if not 0 <= index < len(self.occurrences):
            return match.group()
        value = self.occurrences[index]
        return placeholder(value.kind, value.number)

    def quoted(self, text: str) -> str:
        """Mark the placeholders in a text that was written by somebody who was shown them."""
        values = {(kind, number): key for (kind, key), number in self.numbers.items()}
        firsts = {(one.kind, one.key): one for one in reversed(self.occurrences)}

        def mark(match: re.Match[str]) -> str:
            kind, number = Kind(match[1].lower()), int(match[2])
            key = values.get((kind, number))
            if key is None or number >= self.first_mark:
                return match.group()
            return self.stand_in(kind, key, firsts[kind, key].written)

        return PLACEHOLDER.sub(mark, text) if "<" in text else text

    def values(self) -> Counter[Kind]:
        """Count the distinct values by kind."""
        return Counter(kind for kind, _ in self.numbers)

    def replace_known(self, text: str) -> str:
        """Replace what is known to be a value wherever else it stands, however it is written."""
        lowered, digits = text.lower(), None
        for one in self.known:
            if one.kind in IN_DIGITS:
                digits = NO_DIGITS.sub("", text) if digits is None else digits
                if one.lowered in digits:
                    text = self._replace(one, _spelled(one.kind, one.key), text)
            elif one.lowered in lowered:
                text = self._replace(one, _literal(one.key), text)
        return text

    def replace(self, kind: Kind, key: str, value: str, text: str) -> str:
        """Replace a value as it is written, whatever stands around it."""
        return self._replace(KnownValue(kind, key, key), re.compile(re.escape(value)), text)

    def _replace(self, known: KnownValue, expression: re.Pattern[str], text: str) -> str:
        def stand_in(match: re.Match[str]) -> str:
            return self.stand_in(known.kind, known.key, match.group())

        return patterns.beside(text, partial(expression.sub, stand_in))


def _spelled(kind: Kind, digits: str) -> re.Pattern[str]:
    prefix = r"(?:\+?(?:1[ ().-]{0,2})?\(?)?" if kind is Kind.PHONE else ""
    return re.compile(rf"(?<![0-9A-Za-z]){prefix}{'[ ().-]{0,2}'.join(digits)}(?![0-9A-Za-z])")


def _is_telling(key: str) -> bool:
    """Say if a value can't be a word: a password may be one, and stands elsewhere as itself."""
    return len(key) >= SHORTEST and not (key.isalpha() and key.islower())


def _literal(key: str) -> re.Pattern[str]:
    return re.compile(rf"(?i)(?<!\w){re.escape(key)}(?!\w)")
