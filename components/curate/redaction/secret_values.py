"""Keys and passwords: the kept rule set, and our few patterns beside it."""

import re
from functools import cache
from typing import TYPE_CHECKING

from components.curate.redaction.name_patterns import NOT_VALUES
from components.curate.redaction.patterns import Kind, Pattern, Value, as_written, value_of

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

GATE = r"-----BEGIN|://|[0-9A-Za-z_+/=~-]{16}"
"""What a text must hold to be worth the rule set."""

TOKEN = re.compile(r"[0-9A-Za-z_+/=~-]{16,}")
PUNCTUATION = re.compile(r"(?<![.,!?:)\]}])[.,!?:)\]}]+(?=\s|$)")


def assigned(match: re.Match[str]) -> Value | None:
    """Take what a password is set to, unless it is a word of a schema or of prose."""
    start, end, text = value_of(match)
    return Value(start, end, text) if is_value(text) else None


def told(match: re.Match[str]) -> Value | None:
    """Take what a password ``is`` only if no word looks like it."""
    start, end, text = value_of(match)
    bare = text.rstrip(".!?,;:")
    is_word = bare.isalpha() and not any(one.isupper() for one in bare[1:])
    if is_word or not is_value(bare):
        return None
    return Value(start, end - len(text) + len(bare), bare)


def is_value(text: str) -> bool:
    """Tell a password from what stands for one: ``string``, ``YOUR_API_KEY``, ``****``."""
    lowered = text.lower().strip(".!?")
    stands_for_one = lowered in NOT_VALUES or re.match(
        r"(?:your|my|the|some|example|sample|dummy)[_ -]|[<{\[]", lowered
    )
    return len(text) >= 4 and len(set(text)) > 2 and not stands_for_one


def bearer(match: re.Match[str]) -> Value | None:
    """Take a token that has digits: a word has none."""
    return as_written(match) if any(one.isdigit() for one in match["value"]) else None


PATTERNS = (
    Pattern(
        Kind.SECRET,
        (r"-----BEGIN [A-Z ]*PRIVATE KEY",),
        re.compile(
            rf"-----BEGIN {PRIVATE_KEY}[^<>]{{0,8192}}?-----END {PRIVATE_KEY}"
            rf"|-----BEGIN {PRIVATE_KEY}(?:\s|\\n|[A-Za-z0-9+/=]){{32,}}"
        ),
        as_written,
    ),
    Pattern(
        Kind.SECRET,
        (r"://[^ ]*:[^ ]*@",),
        re.compile(
            r"(?i)\b[a-z][a-z0-9+.-]{1,24}://[^\s:/@<>\"']{0,64}:[^\s/@<>\"']{1,128}@[^\s<>\"',;]+"
        ),
        as_written,
    ),
    Pattern(
        Kind.SECRET,
        (r"eyJ[A-Za-z0-9_-]+\.eyJ",),
        re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
        as_written,
    ),
    Pattern(
        Kind.SECRET,
        (KEY_IDS,),
        re.compile(rf"(?<![A-Za-z0-9]){KEY_IDS}(?![A-Za-z0-9])"),
        as_written,
    ),
    Pattern(
        Kind.SECRET,
        (rf"(?:{PREFIXES})[A-Za-z0-9_-]{{16}}",),
        re.compile(
            rf"(?<![A-Za-z0-9])(?:{PREFIXES})(?=[A-Za-z_-]{{0,200}}[0-9])[A-Za-z0-9_-]{{16,}}"
        ),
        as_written,
    ),
    Pattern(
        Kind.SECRET,
        (r"(?i)bearer\s",),
        re.compile(r"(?i)\bbearer\s+(?P<value>[A-Za-z0-9._~+/-]{16,}=*)"),
        bearer,
    ),
    Pattern(
        Kind.PASSWORD,
        (rf"(?i)(?:{PASSWORD_NAMES})[\"']?(?: ?=|:)",),
        re.compile(
            rf"(?i)(?:{PASSWORD_NAMES})[\"']?(?: ?= ?|: ?)[\"']?"
            r"(?P<value>[^\s\"'<>,;&{}\[\]()]{4,128})"
        ),
        assigned,
    ),
    Pattern(
        Kind.PASSWORD,
        (rf"(?i)(?:{PASSWORD_NAMES})(?: (?:was|is|to)|'s) ",),
        re.compile(
            rf"(?i)\b(?:{PASSWORD_NAMES})(?: (?:was|is|to)|'s) [\"']?"
            r"(?P<value>[^\s\"'<>,;]{4,128})"
        ),
        told,
    ),
)


def found_by_rules(text: str) -> list[str]:
    """Give the secrets that the kept rule set finds in a text.

    ``kingfisher-secret-scanner`` compiles 488 rules of MongoDB's scanner once a process; its
    detection never uses the network.
    """
    if not any(mark in text for mark in ("-----BEGIN", "://")) and not any(
        any(one.isdigit() for one in token) for token in TOKEN.findall(text)
    ):
        return []
    # Many rules want a space or a quote behind a token; in prose a full stop may stand there.
    findings = _scanner().scan(PUNCTUATION.sub(" ", text).encode("utf-8", "replace"))
    return sorted({one.secret for one in findings if one.visible and one.secret})


@cache
def _scanner() -> "Scanner":
    from kingfisher_sdk import Scanner

    return Scanner(base64=False)
