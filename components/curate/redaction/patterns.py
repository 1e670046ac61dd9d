"""Kinds of personal data and secrets, and the pattern by which values of a kind are found."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Kind(StrEnum):
    """What a value is; a placeholder shows it in capitals, ``<EMAIL_1>``."""

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
    """Write the placeholder of the ``number``th value of its kind."""
    return f"<{kind.upper()}_{number}>"


def beside(text: str, change: Callable[[str], str]) -> str:
    """Change a text, but nothing in its placeholders: somebody may be called Card."""
    if "<" not in text:
        return change(text)
    done, written = 0, ""
    for match in PLACEHOLDER.finditer(text):
        written += change(text[done : match.start()]) + match.group()
        done = match.end()
    return written + change(text[done:])


Check: TypeAlias = Callable[[re.Match[str]], "Value | list[Value] | None"]
"""Gives the value in a match, or several in their order."""

CONTEXT_CHARS = 48


@dataclass(frozen=True, slots=True)
class Value:
    """Where a value stands in a text, and the one form (``key``) of all the ways to write it."""

    start: int
    end: int
    key: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A kind's expression.

    ``gates`` are for RE2, and all match in a text where ``expression`` does and the check agrees:
    one set of all gates tells in a single pass which expressions a text is worth. The group
    ``value`` is the value, else all is.
    An expression must not look through ``<`` and ``>``: what was redacted once would read
    differently the second time.
    """

    kind: Kind
    gates: tuple[str, ...]
    expression: re.Pattern[str]
    check: Check


def value_of(match: re.Match[str]) -> tuple[int, int, str]:
    """Give the span and the text of the value of a match."""
    group = "value" if "value" in match.re.groupindex else 0
    return match.start(group), match.end(group), match.group(group)


def as_written(match: re.Match[str]) -> Value:
    """Take the value as it stands."""
    return Value(*value_of(match))


def before(match: re.Match[str]) -> str:
    """Give the few words in front of a match, in lower case; no further than a placeholder."""
    start = match.start()
    near = match.string[max(0, start - CONTEXT_CHARS) : start]
    return near.rpartition(">")[2].lower()


def digits_of(text: str) -> str:
    """Keep the digits 0 to 9 only."""
    return re.sub("[^0-9]+", "", text)
