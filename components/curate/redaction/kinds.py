"""The kinds of personal data and secrets, and the placeholders that stand for their values."""

import re
from collections.abc import Callable
from enum import StrEnum


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
