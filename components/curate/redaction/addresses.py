"""Patterns of street addresses: a cheap tier that knows a few languages' words for a street.

It takes the line with street and number, not town, state or postal code. An address without such a
word (``Puruntie 82``), in lower case or in another language's order is missed.
"""

import re

from components.curate.redaction.kinds import Kind
from components.curate.redaction.pattern import Pattern, Value, value_of

SUFFIXES = (
    "Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Place|Pl|Square|Sq"
    "|Terrace|Ter|Way|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Trail|Trl|Close|Crescent|Cres|Mews"
    "|Gardens|Grove|Quay|Alley|Esplanade|Loop|Pike|Turnpike"
)
GERMAN = "straße|strasse|str\\.|gasse|weg|platz|allee|damm|ufer"
ROMANCE = "Rue|Via|Viale|Piazza|Corso|Calle|Avenida|Paseo|Rua|Praça|Avenue|Boulevard"
FRENCH = "rue|avenue|boulevard|place|allée|chemin|impasse|quai"
UNIT = r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|No|#)\.? ?#?[A-Za-z]?[0-9][A-Za-z0-9-]*)?"
LETTERS = 60
"""Of a word: where dots may stand in it, every one begins another word, which must be short."""

PROPER = rf"[^\W\d_a-z][\w'\u2019.-]{{0,{LETTERS}}}"
WORD = rf"[^\W\d_][\w'\u2019.-]{{0,{LETTERS}}}"


SHORT = {
    "st": "street",
    "ave": "avenue",
    "av": "avenue",
    "rd": "road",
    "blvd": "boulevard",
    "dr": "drive",
    "ln": "lane",
    "ct": "court",
    "pl": "place",
    "sq": "square",
    "pkwy": "parkway",
    "hwy": "highway",
    "apt": "apartment",
    "ste": "suite",
}


def address(match: re.Match[str]) -> Value | None:
    """Take an address whatever its spacing, its case and what it abbreviates."""
    start, end, text = value_of(match)
    return Value(start, end, key(text))


def is_in(text: str) -> bool:
    """Say if a pattern finds an address in a text: then that part of it is the value."""
    return any(pattern.expression.search(text) for pattern in PATTERNS)


def key(text: str) -> str:
    """Give the one form of all the ways to write an address."""
    return " ".join(SHORT.get(one, one) for one in re.split(r"[\s.,]+", text.lower()) if one)


PATTERNS = (
    Pattern(
        Kind.ADDRESS,
        (rf"[0-9][0-9A-Za-z-]* [\pL\pN.'\x{{2019}} -]*(?:{SUFFIXES})",),
        re.compile(
            r"(?<![\w.-])[0-9]{1,6}[A-Za-z]?(?:-[0-9]+)? "
            r"(?:(?:[NSEW]{1,2}\.?|North|South|East|West) )?"
            rf"(?:(?:{PROPER}|[0-9]+(?:st|nd|rd|th)) ){{1,4}}(?:{SUFFIXES})\b\.?{UNIT}"
        ),
        address,
    ),
    Pattern(
        Kind.ADDRESS,
        (rf"(?:{GERMAN}) ?[0-9]",),
        re.compile(
            rf"(?<![\w-])[^\W\d_a-z][\w.-]{{0,{LETTERS}}}(?:{GERMAN}) ?[0-9]{{1,4}}"
            r"[a-z]?(?![\w.])"
        ),
        address,
    ),
    Pattern(
        Kind.ADDRESS,
        (rf"(?:{ROMANCE}) ",),
        re.compile(rf"(?<![\w-])(?:{ROMANCE}) (?:{WORD} ){{0,4}}{WORD},? [0-9]{{1,5}}(?![\w.:/-])"),
        address,
    ),
    Pattern(
        Kind.ADDRESS,
        (rf"[0-9],? (?:bis )?(?:{FRENCH}) ",),
        re.compile(
            rf"(?<![\w.-])[0-9]{{1,4}},? (?:bis )?(?:{FRENCH}) "
            rf"(?:(?:de|du|des|la|le|les) |[dl]['\u2019])*{PROPER}(?: {PROPER}){{0,2}}"
        ),
        address,
    ),
    Pattern(
        Kind.ADDRESS,
        (r"(?i)p\.? ?o\.? box",),
        re.compile(r"(?i)(?<!\w)p\.? ?o\.? box,? [0-9]{1,6}(?!\w)"),
        address,
    ),
)
