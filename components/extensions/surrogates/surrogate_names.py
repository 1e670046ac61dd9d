"""Surrogate names by language and script, drawn from a keyed random generator."""

import hashlib
import importlib
import unicodedata
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from components.curate.redaction.name_patterns import MAY_BE_WORDS, NOT_NAMES, PART

Item = TypeVar("Item")

DIGITS = "0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz"


class Chance:
    """A random stream by keyed BLAKE2, independent of the Python version's ``random``."""

    def __init__(self, key: bytes, *about: str) -> None:
        self._key = key
        self._about = "\0".join(about).encode("utf-8", "surrogatepass")
        self._block = 0
        self._bytes = b""

    def below(self, limit: int) -> int:
        """Return a number from 0 to ``limit - 1``; its bias is below 2 to the minus 32."""
        size = 8 if limit <= 1 << 32 else 16
        if len(self._bytes) < size:
            counted = self._about + self._block.to_bytes(4)
            self._bytes += hashlib.blake2b(counted, key=self._key).digest()
            self._block += 1
        drawn, self._bytes = self._bytes[:size], self._bytes[size:]
        return int.from_bytes(drawn) % limit

    def between(self, least: int, most: int) -> int:
        """Return a number from ``least`` to ``most``, inclusive."""
        return least + self.below(most - least + 1)

    def choice(self, items: Sequence[Item]) -> Item:
        """Return a random item."""
        return items[self.below(len(items))]

    def like(self, character: str) -> str:
        """Return a random digit, capital or small letter like the character, else it itself."""
        if character.isdigit():
            return self.choice(DIGITS)
        if character.isupper():
            return self.choice(LOWER).upper()
        return self.choice(LOWER) if character.isalpha() else character


_LOCALES = """
bg_BG cs_CZ da_DK de_DE el_GR en_US es_ES fi_FI fr_FR hu_HU it_IT nl_NL no_NO pt_PT ru_RU sv_SE
uk_UA
"""
LOCALES = {locale[:2]: locale for locale in _LOCALES.split()}
"""Faker's locale per language (ISO 639); English for other languages."""

SCRIPTS = {
    "ARABIC": "ar_AA",
    "CJK": "zh_CN",
    "CYRILLIC": "ru_RU",
    "DEVANAGARI": "hi_IN",
    "GREEK": "el_GR",
    "HANGUL": "ko_KR",
    "HEBREW": "he_IL",
    "LATIN": "en_US",
}
"""Faker's locale per script, if the language's locale is in another script."""

FAMILY_FIRST = frozenset({"ko_KR", "zh_CN"})  # locales that write family and given name as one word

SHORTEST = 4  # minimum letters of a Latin name: shorter ones look like airports or parts of words

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


class Ring:
    """Names ordered by digest: adding or removing one changes few draws."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        placed = sorted((_place(name), name) for name in self.names)
        self._places = [place for place, _ in placed]
        self._ordered = [name for _, name in placed]

    def draw(self, chance: Chance) -> str | None:
        """Return a random name; ``None`` if the ring is empty."""
        if not self._ordered:
            return None
        return self._ordered[bisect(self._places, chance.below(1 << 64)) % len(self._ordered)]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one locale in lower case: female and male first names, and family names."""

    female: Ring
    male: Ring
    family: Ring

    def like(self, name: str) -> Ring:
        """Return the ring that contains a name, family names for an unlisted one."""
        kinds = (self.female, self.male)
        return next((ring for ring in kinds if name in ring.names), self.family)


def draw(name: str, language: str | None, chance: Chance, *, is_made_up: bool = False) -> str:
    """Return another name in lower case, of the same language and, if listed, the same kind."""
    script = script_of(name)
    locale = LOCALES.get(language or "en", "en_US")
    if _script_of(locale) != script:
        locale = SCRIPTS.get(script, "")
    drawn = listed(locale).like(name).draw(chance) if locale and not is_made_up else None
    return drawn or make_up(chance)


def make_up(chance: Chance) -> str:
    """Return one of 1.4 million pronounceable, unlisted words."""
    return "".join(
        chance.choice(letters) for _ in range(3) for letters in (CONSONANTS, VOWELS)
    ) + chance.choice("nrls")


@cache
def listed(locale: str) -> Names:
    """Return the names of one of Faker's locales."""
    provider = cast("Any", importlib.import_module(f"faker.providers.person.{locale}")).Provider
    female, male, family = ({name.lower() for name in getattr(provider, kind)} for kind in _KINDS)
    if locale in FAMILY_FIRST:
        family = {before + first for before in family for first in female | male}
    return Names(Ring(_fit(female)), Ring(_fit(male - female)), Ring(_fit(family)))


_KINDS = ("first_names_female", "first_names_male", "last_names")


def _fit(names: Iterable[str]) -> Iterable[str]:
    unfit = MAY_BE_WORDS | NOT_NAMES
    return (
        name
        for name in names
        if name not in unfit
        and PART.fullmatch(name)
        and (script_of(name) != "LATIN" or len(name) >= SHORTEST)
    )


@cache
def _script_of(locale: str) -> str:
    return script_of(min(listed(locale).family.names))


def script_of(name: str) -> str:
    """Return the script of a name's first letter, by its Unicode name."""
    return unicodedata.name(name[0], "").split(" ")[0]


def _place(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
