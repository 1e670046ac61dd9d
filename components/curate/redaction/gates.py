"""Ask in a few fast passes which patterns a text is worth.

RE2 builds the states of its automaton as texts need them, which costs far more than to pass through
them. In one automaton of all gates the states are the products of what each gate has seen so far,
so new texts go on needing new ones; in a few automatons, of gates that count alike, they are soon
all there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import re2

from components.curate.redaction import names, secrets
from components.curate.redaction.kinds import Kind
from components.curate.redaction.pattern import Pattern

PLACEHOLDERS, NAMES, SECRETS = range(3)
"""The first gates; those of the patterns follow, several for some."""

AUTOMATON_BYTES = 16 << 20
"""What RE2 may keep of the states of each automaton, twice its default."""

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
    """Holds the automatons of all gates of a workload's patterns."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        gates = [r"<[A-Z_]+_[0-9]", names.GATE, secrets.GATE]
        self._patterns: list[tuple[Pattern, range]] = []
        for pattern in patterns:
            self._patterns.append((pattern, range(len(gates), len(gates) + len(pattern.gates))))
            gates += pattern.gates
        together: dict[str, list[int]] = {"words": [PLACEHOLDERS, NAMES], "secrets": [SECRETS]}
        for pattern, numbers in self._patterns:
            together.setdefault(_automaton_of(pattern.kind), []).extend(numbers)
        self._automatons = [_Automaton(gates, some) for some in together.values()]
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._hits)

    def of(self, text: str) -> Hits:
        """Say what a text may hold."""
        return self._remembered(text) if len(text) <= SHORT else self._hits(text)

    def _hits(self, text: str) -> Hits:
        encoded = text.encode("utf-8", "replace")
        found = {number for one in self._automatons for number in one.matching(encoded)}
        if not found:
            return NOTHING
        return Hits(
            PLACEHOLDERS in found,
            NAMES in found,
            SECRETS in found,
            tuple(pattern for pattern, gates in self._patterns if found.issuperset(gates)),
        )


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
        """List the gates that match, by their number among all."""
        found = cast("list[int] | None", self._set.Match(text))
        return [self._numbers[place] for place in found] if found else []


def _automaton_of(kind: Kind) -> str:
    """Name the automaton of a kind's gates: those share one that count alike."""
    match kind:
        case Kind.SECRET | Kind.PASSWORD:
            return "words"
        case Kind.EMAIL | Kind.PHONE:
            return "contact"
        case Kind.ADDRESS:
            return "addresses"
        case Kind.IBAN:
            return "accounts"
        case _:
            return "numbers"
