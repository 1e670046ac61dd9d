"""Ask in one pass which patterns a text is worth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import re2

from components.curate.redaction import names, secrets
from components.curate.redaction.pattern import Pattern

PLACEHOLDERS, NAMES, SECRETS = range(3)
"""The first gates; those of the patterns follow, several for some."""

AUTOMATON_BYTES = 64 << 20
"""What RE2 may keep of the gates' automaton; with its default of 8 MB it keeps forgetting it."""

REMEMBERED = 16_384
SHORT = 256
"""Characters of a text that is remembered: descriptions and values repeat from one to the next."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What a text may hold: placeholders, names, secrets of the kept rule set, values."""

    placeholders: bool = False
    names: bool = False
    secrets: bool = False
    patterns: tuple[Pattern, ...] = ()


NOTHING = Hits()


class Gates:
    """Holds the automaton of all gates of a workload's patterns."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        options = re2.Options()
        options.max_mem = AUTOMATON_BYTES
        self._set = re2.Set.SearchSet(options)
        for gate in (r"<[A-Z_]+_[0-9]", names.GATE, secrets.GATE):
            self._set.Add(gate)
        self._patterns: dict[int, tuple[Pattern, list[int]]] = {}
        for pattern in patterns:
            first, *others = [self._set.Add(gate) for gate in pattern.gates]
            self._patterns[first] = pattern, others
        self._set.Compile()
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._hits)

    def of(self, text: str) -> Hits:
        """Say what a text may hold."""
        return self._remembered(text) if len(text) <= SHORT else self._hits(text)

    def _hits(self, text: str) -> Hits:
        found = cast("list[int] | None", self._set.Match(text.encode("utf-8", "replace")))
        if not found:
            return NOTHING
        return Hits(
            PLACEHOLDERS in found,
            NAMES in found,
            SECRETS in found,
            tuple(self._passed(sorted(found))),
        )

    def _passed(self, found: list[int]) -> Iterator[Pattern]:
        for number in found:
            if number in self._patterns:
                pattern, others = self._patterns[number]
                if all(other in found for other in others):
                    yield pattern
