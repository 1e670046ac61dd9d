"""Keys and passwords: kingfisher's rule set, and a few patterns of our own."""

import re
from functools import cache
from typing import TYPE_CHECKING

from components.curate.redaction.name_patterns import NOT_VALUES
from components.curate.redaction.patterns import Kind, Value, as_written, pattern, value_of

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

PASSWORD_NAMES = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|api[_ -]?key|client[_ -]?secret|account[_ -]?key"
    r"|private[_ -]?key|(?:access|auth|refresh|bearer|api)[_ -]?token"
)
KEY_IDS = "(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{16}"
PREFIXES = (
    "(?:sk|pk|rk)[-_](?:live|test|proj|ant|or|svcacct)[-_]|gh[pousr]_|github_pat_|xox[abprs]-"
    "|hf_|glpat-|npm_|pypi-|sk-"
)
PRIVATE_KEY = "[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"

GATE = r"-----BEGIN|://|[0-9A-Za-z_+/=~-]{16}"  # the prefilter of the rule set

TOKEN = re.compile(r"[0-9A-Za-z_+/=~-]{16,}")
PUNCTUATION = re.compile(r"(?<![.,!?:)\]}])[.,!?:)\]}]+(?=\s|$)")


def assigned(match: re.Match[str]) -> Value | None:
    """Return an assigned password, unless it is a word of a schema or of prose."""
    start, end, text = value_of(match)
    return Value(start, end, text) if is_value(text) else None


def password_in_prose(match: re.Match[str]) -> Value | None:
    """Return the password after ``is`` only if it does not look like a word."""
    start, end, text = value_of(match)
    bare = text.rstrip(".!?,;:")
    is_word = bare.isalpha() and not any(character.isupper() for character in bare[1:])
    if is_word or not is_value(bare):
        return None
    return Value(start, end - len(text) + len(bare), bare)


def is_value(text: str) -> bool:
    """Return whether a text is not a stand-in such as ``string``, ``YOUR_API_KEY``, ``****``."""
    lowered = text.lower().strip(".!?")
    stands_for_one = lowered in NOT_VALUES or re.match(
        r"(?:your|my|the|some|example|sample|dummy)[_ -]|[<{\[]", lowered
    )
    return len(text) >= 4 and len(set(text)) > 2 and not stands_for_one


def bearer(match: re.Match[str]) -> Value | None:
    """Return a token with digits: words have no digits."""
    return as_written(match) if any(character.isdigit() for character in match["value"]) else None


PATTERNS = (
    pattern(
        Kind.SECRET,
        as_written,
        rf"-----BEGIN {PRIVATE_KEY}[^<>]{{0,8192}}?-----END {PRIVATE_KEY}"
        rf"|-----BEGIN {PRIVATE_KEY}(?:\s|\\n|[A-Za-z0-9+/=]){{32,}}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY",
    ),
    pattern(
        Kind.SECRET,
        as_written,
        r"(?i)\b[a-z][a-z0-9+.-]{1,24}://[^\s:/@<>\"']{0,64}:[^\s/@<>\"']{1,128}@[^\s<>\"',;]+",
        r"://[^ ]*:[^ ]*@",
    ),
    pattern(
        Kind.SECRET,
        as_written,
        r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
        r"eyJ[A-Za-z0-9_-]+\.eyJ",
    ),
    pattern(Kind.SECRET, as_written, rf"(?<![A-Za-z0-9]){KEY_IDS}(?![A-Za-z0-9])", KEY_IDS),
    pattern(
        Kind.SECRET,
        as_written,
        rf"(?<![A-Za-z0-9])(?:{PREFIXES})(?=[A-Za-z_-]{{0,200}}[0-9])[A-Za-z0-9_-]{{16,}}",
        rf"(?:{PREFIXES})[A-Za-z0-9_-]{{16}}",
    ),
    pattern(
        Kind.SECRET, bearer, r"(?i)\bbearer\s+(?P<value>[A-Za-z0-9._~+/-]{16,}=*)", r"(?i)bearer\s"
    ),
    pattern(
        Kind.PASSWORD,
        assigned,
        rf"(?i)(?:{PASSWORD_NAMES})[\"']?(?: ?= ?|: ?)[\"']?"
        r"(?P<value>[^\s\"'<>,;&{}\[\]()]{4,128})",
        rf"(?i)(?:{PASSWORD_NAMES})[\"']?(?: ?=|:)",
    ),
    pattern(
        Kind.PASSWORD,
        password_in_prose,
        rf"(?i)\b(?:{PASSWORD_NAMES})(?: (?:was|is|to)|'s) [\"']?"
        r"(?P<value>[^\s\"'<>,;]{4,128})",
        rf"(?i)(?:{PASSWORD_NAMES})(?: (?:was|is|to)|'s) ",
    ),
)


def scan_secrets(text: str) -> list[str]:
    """Return the secrets that kingfisher's rules find in a text, sorted.

    ``kingfisher-secret-scanner`` compiles 488 rules of MongoDB's scanner once per process; its
    detection never uses the network.
    """
    if not any(mark in text for mark in ("-----BEGIN", "://")) and not any(
        any(character.isdigit() for character in token) for token in TOKEN.findall(text)
    ):
        return []
    # Many rules require a space or a quote after a token; prose may have a full stop there.
    findings = _scanner().scan(PUNCTUATION.sub(" ", text).encode("utf-8", "replace"))
    return sorted({finding.secret for finding in findings if finding.visible and finding.secret})


@cache
def _scanner() -> "Scanner":
    from kingfisher_sdk import Scanner

    return Scanner(base64=False)
