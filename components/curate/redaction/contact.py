"""Patterns of what reaches a person: e-mail and phone."""

import re

from components.curate.redaction.kinds import Kind
from components.curate.redaction.pattern import Pattern, Value, before, digits_of, value_of

PHONE_WORDS = re.compile(
    r"\b(?:phone|phones|telephone|tel|call|calling|mobile|cell|cellphone|whatsapp|sms|fax|dial"
    r"|reach me|text me|texted|contact number|my number|phone_number)\b"
    r"[^a-z]{0,3}(?:[a-z']+\W+){0,4}$"
)
EXTENSION = r"(?: ?(?:x|ext\.?) ?[0-9]{1,5})?"
NOT_BEHIND = r"(?<![\w.+$€£/:-])"
"""Behind these, digits are a part of something else: a price, a path, a version, an id."""


def email(match: re.Match[str]) -> Value | None:
    """Take an address in lower case, an escaped ``@`` as one."""
    start, end, text = value_of(match)
    return Value(start, end, text.lower().replace("%40", "@"))


def phone(match: re.Match[str]) -> Value | None:
    """Take a number of 7 to 15 digits; the American prefix 1 makes no difference."""
    start, end, text = value_of(match)
    digits = digits_of(re.split("[a-z]", text, maxsplit=1)[0])
    if not 7 <= len(digits) <= 15 or len(set(digits)) == 1:
        return None
    digits = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return Value(start, end, digits)


def national_phone(match: re.Match[str]) -> Value | None:
    """Take a number with a trunk 0, which has 9 to 11 digits."""
    return phone(match) if 9 <= len(digits_of(match.group())) <= 11 else None


def named_phone(match: re.Match[str]) -> Value | None:
    """Take bare or oddly spaced digits only after a word that says that one can call them."""
    return phone(match) if PHONE_WORDS.search(before(match)) else None


PATTERNS = (
    Pattern(
        Kind.EMAIL,
        (r"@|%40",),
        re.compile(
            r"[\w%+][\w.%+'-]{0,63}(?:@|%40)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}"
        ),
        email,
    ),
    Pattern(
        Kind.PHONE,
        (r"\+[1-9]",),
        re.compile(rf"(?<![\w+.])\+[1-9](?:[ ().-]{{0,2}}[0-9]){{6,14}}{EXTENSION}(?![\w-])"),
        phone,
    ),
    Pattern(
        Kind.PHONE,
        (r"[2-9][0-9]{2}[).][ .-]?[0-9]{3}|[2-9][0-9]{2}-[0-9]{3}[ .-]",),
        re.compile(
            r"(?<![\w.+$€£/-])(?:\+?1[ .-])?(?:\([2-9][0-9]{2}\)[ .-]?|[2-9][0-9]{2}[.-])"
            rf"[2-9][0-9]{{2}}[ .-][0-9]{{4}}{EXTENSION}(?![\w-])(?!\.[0-9])"
        ),
        phone,
    ),
    Pattern(
        Kind.PHONE,
        (r"(?:^|[^\pL\pN_.+$€£/:-])\(?0[1-9][0-9]{0,4}\)?[ -][0-9]{2}",),
        re.compile(
            rf"{NOT_BEHIND}\(?0[1-9][0-9]{{0,4}}\)?"
            r"(?:(?: [0-9]{2,8}){1,5}|(?:-[0-9]{2,8}){1,4})(?![\w/:-])"
        ),
        national_phone,
    ),
    Pattern(
        Kind.PHONE,
        (
            r"[0-9][ .()/-]{0,2}[0-9][0-9 .()/-]{5}",
            r"(?i)phone|tel|call|mobile|cell|whatsapp|sms|fax|dial|reach|text|number",
        ),
        re.compile(rf"{NOT_BEHIND}\(?[0-9](?:[ .()/-]{{0,2}}[0-9]){{6,13}}{EXTENSION}(?![\w/:-])"),
        named_phone,
    ),
)
