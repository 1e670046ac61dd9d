"""Which placeholder stands for which value of one conversation."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from components.curate.redaction import kinds
from components.curate.redaction.kinds import PLACEHOLDER, Kind, placeholder

IN_DIGITS = frozenset({Kind.PHONE, Kind.CARD, Kind.SSN})
SHORTEST = 4
"""Shorter values are replaced where they were found only: elsewhere they may be anything."""


NO_DIGITS = re.compile("[^0-9]+")


@dataclass(frozen=True, slots=True)
class Known:
    """A value that is replaced wherever else it stands."""

    kind: Kind
    key: str
    lowered: str


@dataclass(slots=True)
class Ledger:
    """The numbers given so far, by kind and key, and how often each kind was replaced.

    Placeholders that were there before keep their numbers for themselves.
    """

    numbers: dict[tuple[Kind, str], int] = field(default_factory=dict[tuple[Kind, str], int])
    taken: Counter[Kind] = field(default_factory=Counter[Kind])
    replaced: Counter[Kind] = field(default_factory=Counter[Kind])
    known: list[Known] = field(default_factory=list[Known])

    def reserve(self, text: str) -> None:
        """Keep the numbers of placeholders that the conversation came with."""
        for kind, number in PLACEHOLDER.findall(text):
            known = Kind(kind.lower())
            self.taken[known] = max(self.taken[known], int(number))

    def stand_in(self, kind: Kind, key: str) -> str:
        """Give the placeholder of a value, a new one if it is new, and count it."""
        if (kind, key) not in self.numbers:
            self.taken[kind] += 1
            self.numbers[kind, key] = self.taken[kind]
            if kind is not Kind.NAME and (kind in IN_DIGITS or _is_telling(key)):
                self.known.append(Known(kind, key, key.lower()))
        self.replaced[kind] += 1
        return placeholder(kind, self.numbers[kind, key])

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
        return self._replace(Known(kind, key, key), re.compile(re.escape(value)), text)

    def _replace(self, known: Known, expression: re.Pattern[str], text: str) -> str:
        def stand_in(_: re.Match[str]) -> str:
            return self.stand_in(known.kind, known.key)

        return kinds.beside(text, partial(expression.sub, stand_in))


def _spelled(kind: Kind, digits: str) -> re.Pattern[str]:
    prefix = r"(?:\+?(?:1[ ().-]{0,2})?\(?)?" if kind is Kind.PHONE else ""
    return re.compile(rf"(?<![0-9A-Za-z]){prefix}{'[ ().-]{0,2}'.join(digits)}(?![0-9A-Za-z])")


def _is_telling(key: str) -> bool:
    """Say if a value can't be a word: a password may be one, and stands elsewhere as itself."""
    return len(key) >= SHORTEST and not (key.isalpha() and key.islower())


def _literal(key: str) -> re.Pattern[str]:
    return re.compile(rf"(?i)(?<!\w){re.escape(key)}(?!\w)")
