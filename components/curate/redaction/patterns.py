"""Kinds of personal data and secrets, and the pattern type that finds values of a kind."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import TypeAlias


class Kind(StrEnum):
    """A value's kind; placeholders show it in capitals, ``<EMAIL_1>``."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    SSN = "ssn"
    NATIONAL_ID = "national_id"
    IP = "ip"
    ADDRESS = "address"
    NAME = "name"
    PASSWORD = "password"
    SECRET = "secret"


PLACEHOLDER = re.compile(rf"<({'|'.join(kind.upper() for kind in Kind)})_([0-9]+)>")


def placeholder(kind: Kind, number: int) -> str:
    """Return the placeholder of value ``number`` of its kind."""
    return f"<{kind.upper()}_{number}>"


def outside_placeholders(text: str, change: Callable[[str], str]) -> str:
    """Apply ``change`` to a text outside of its placeholders: somebody may be called Card."""
    if "<" not in text:
        return change(text)
    done, written = 0, ""
    for match in PLACEHOLDER.finditer(text):
        written += change(text[done : match.start()]) + match.group()
        done = match.end()
    return written + change(text[done:])


Check: TypeAlias = Callable[[re.Match[str]], "Value | list[Value] | None"]
"""Returns the value in a match, several in order, or ``None``."""

CONTEXT_CHARS = 48


@dataclass(frozen=True, slots=True)
class Value:
    """A value's span in a text, and its canonical form ``key``."""

    start: int
    end: int
    key: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """An expression that finds values of a kind.

    ``gates`` are for RE2; all of them match in every text where ``expression`` matches and the
    check passes, so that one RE2 set selects the expressions to run in a single pass. The value is
    the group ``value``, else the whole match.
    An expression must not match across ``<`` and ``>``: redacting twice would then find more.
    """

    kind: Kind
    gates: tuple[str, ...]
    expression: re.Pattern[str]
    check: Check


def pattern(kind: Kind, check: Check, expression: str, *gates: str) -> Pattern:
    """Return a pattern with its expression compiled."""
    return Pattern(kind, gates, re.compile(beside_any_script(expression)), check)


UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff"
)
"""Letters of the scripts that put no space around a number: Thai, Lao, Burmese, Khmer, Kana, Han,
and Hangul, whose particles follow one."""

_WORD_CHARACTER = re.compile(r"\((\?<?!)(?:\[\\w([^\]]*)\]|\\w)")


def beside_any_script(expression: str) -> str:
    """Let lookarounds that refuse word characters accept those of scripts without spaces."""

    def accept(lookaround: re.Match[str]) -> str:
        others = f"|[{lookaround[2]}]" if lookaround[2] else ""
        return rf"({lookaround[1]}[^\W{UNSPACED}]{others}"

    return _WORD_CHARACTER.sub(accept, expression)


_SPACES = (
    "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212\ufe63"
_PLAIN = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code not in (0xFF1C, 0xFF1E)},
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, _HYPHENS), "-"),
    **{
        code: str(unicodedata.decimal(chr(code)))
        for code in range(128, 0x20000)
        if chr(code).isdecimal()
    },
}
# Of one class with those beyond 16 bits, `re` would compare each character with each member.
_UNUSUAL = re.compile(f"[{re.escape(''.join(chr(code) for code in _PLAIN if code < 0x10000))}]")
_BEYOND = re.compile("[\U00010000-\U0001ffff]")

CACHED_TEXTS = 64  # each is read for pattern after pattern


def plain(text: str) -> str:
    """Return a text, of the same length, with ASCII's digits, spaces, hyphens and full-width signs.

    People paste, and models write, no-break spaces and hyphens within a number.
    """
    return text if text.isascii() else _plain(text)


@lru_cache(maxsize=CACHED_TEXTS)
def _plain(text: str) -> str:
    is_unusual = _UNUSUAL.search(text) or _BEYOND.search(text)
    return text.translate(_PLAIN) if is_unusual else text


def replace_in_plain(expression: re.Pattern[str], change: Callable[[str], str], text: str) -> str:
    """Replace the matches in a text's ``plain`` form; ``change`` receives them as written."""
    done, replaced = 0, ""
    for match in expression.finditer(plain(text)):
        replaced += text[done : match.start()] + change(text[match.start() : match.end()])
        done = match.end()
    return replaced + text[done:]


def word_list(name: str) -> frozenset[str]:
    """Return the words of a file in ``words/``."""
    return frozenset(
        (files("components.curate.redaction") / "words" / f"{name}.txt").read_text().split()
    )


def value_of(match: re.Match[str]) -> tuple[int, int, str]:
    """Return the span and the text of a match's value."""
    group = "value" if "value" in match.re.groupindex else 0
    return match.start(group), match.end(group), match.group(group)


def as_written(match: re.Match[str]) -> Value:
    """Return the value with its text as key."""
    return Value(*value_of(match))


def before(match: re.Match[str]) -> str:
    """Return the few words before a match, in lower case, back to a placeholder at most."""
    start = match.start()
    near = match.string[max(0, start - CONTEXT_CHARS) : start]
    return near.rpartition(">")[2].lower()


def digits_of(text: str) -> str:
    """Return the digits 0 to 9 of a text."""
    return re.sub("[^0-9]+", "", text)
