"""Keys and passwords: kingfisher's rule set, and a few patterns of our own."""

import re
from functools import cache
from typing import TYPE_CHECKING

from components.curate.redaction.name_patterns import NOT_VALUES
from components.curate.redaction.patterns import Kind, Value, as_written, pattern, value_of

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

PASSWORD_NAMES = (
    r"pass(?:word|wd|phrase|code|wort)|pwd|secret|client[_ -]?secret"
    r"|(?:api|account|private|secret|encryption|signing|(?:secret[_ -]?)?access)[_ -]?key"
    r"|(?:access|auth|refresh|bearer|api)[_ -]?token"
    r"|kennwort|contraseña|mot de passe|senha|wachtwoord|lösenord|hasło|пароль"
    r"|密码|密碼|パスワード|비밀번호"
)
IS = "(?: (?:was|is|to|ist|war|lautet|es|est|é|è)|'s) "
QUERY_NAMES = "token|sig|signature|secret|session|sid|auth|otp|jwt"
KEY_IDS = "(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{16}"
PREFIXES = (
    "(?:sk|pk|rk)[-_](?:live|test|proj|ant|or|svcacct)[-_]|gh[pousr]_|github_pat_|xox[abprs]-"
    "|hf_|glpat-|npm_|pypi-|sk-"
)
PRIVATE_KEY = "[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"

_TOKEN, _NO_DIGIT = "[0-9A-Za-z_+/=~-]", "[A-Za-z_+/=~-]"
_WITH_DIGIT = [f"{_NO_DIGIT}{{{n}}}[0-9]{_TOKEN}{{{15 - n}}}" for n in range(15)]
GATE = f"-----BEGIN|://|(?:^|[^0-9A-Za-z_+/=~-])(?:{'|'.join(_WITH_DIGIT)}|{_NO_DIGIT}{{15,}}[0-9])"
"""The prefilter of the rule set: a key, an address, or a token of 16 characters with a digit."""

PUNCTUATION = re.compile(r"(?<![.,!?:)\]}])[.,!?:)\]}]+(?=\s|$)")


_ROOTS = (
    "self|this|cls|os|process|env|settings|config|cfg|conf|ctx|context|args|options|opts|params|props"
    "|req|request|res|response|data|user|account|form|state|vars?|secrets|vault|values"
)
_SECRETS = "pass|pwd|secret|key|token"
_REFERENCE = re.compile(
    rf"(?i)(?:{_ROOTS})(?:\??\.[a-z_]\w*)+|[a-z_]\w*(?:\.[a-z_]\w*)*\.\w*(?:{_SECRETS})\w*"
    rf"|[$:@%][a-z_]*(?:{_SECRETS})[a-z_]*%?|(?-i:\$[A-Z_]{{3,}})|[a-z]+_(?:[a-z]+_)*(?:{_SECRETS})[a-z]*"
)
"""A variable or attribute."""

_PATH = re.compile(
    r"(?:~|\.{1,2}|/(?:app|data|etc|home|mnt|opt|root|run|secrets|srv|tmp|usr|Users|var|workspace))"
    r"(?:/[\w.@-]+)+/?"
)
"""The place of a key (``private_key: /etc/ssl/key.pem``), or the working directory."""

_CALLED = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*")


def assigned(match: re.Match[str]) -> Value | None:
    """Return an assigned password, unless it is a word of a schema or of prose, or code."""
    start, end, text = value_of(match)
    return Value(start, end, text) if is_value(text) and not _is_code(match) else None


def _is_code(match: re.Match[str]) -> bool:
    """Return whether a path, a variable or the result of a call is assigned."""
    start, end, text = value_of(match)
    if _PATH.fullmatch(text):
        return True
    if match.string[start - 1] in "\"'`":
        return False
    is_read = match.string[end : end + 1] in ("(", "[")
    return bool(_REFERENCE.fullmatch(text) or (is_read and _CALLED.fullmatch(text)))


_ADJECTIVE = re.compile(
    r"(?i)[a-z]+-(?:sensitive|only|defined|specific|based|free|encoded|encrypted|hashed|protected"
    r"|generated|provided|dependent|safe|long|wide|less)"
)


def password_in_prose(match: re.Match[str]) -> Value | None:
    """Return the password after ``is`` only if it does not look like a word."""
    start, end, text = value_of(match)
    bare = text.rstrip(".!?,;:")
    is_word = bare.isalpha() and not any(character.isupper() for character in bare[1:])
    is_word = is_word or bool(_ADJECTIVE.fullmatch(bare))
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


def token(match: re.Match[str]) -> Value | None:
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
        Kind.SECRET, token, r"(?i)\bbearer\s+(?P<value>[A-Za-z0-9._~+/-]{16,}=*)", r"(?i)bearer\s"
    ),
    pattern(
        Kind.SECRET,
        as_written,
        r"(?i)\bauthorization[\"']?\s?[:=,]\s?[\"']?basic (?P<value>[A-Za-z0-9+/]{8,}=*)",
        r"(?i)basic [0-9a-z+/]{8}",
    ),
    pattern(
        Kind.PASSWORD,
        assigned,
        rf"(?i)(?:{PASSWORD_NAMES})[\"']?(?: ?= ?| ?: ?)[\"']?"
        r"(?P<value>[^\s\"'<>,;&{}\[\]()]{4,128})",
        rf"(?i)(?:{PASSWORD_NAMES})[\"']?(?: ?=| ?:)",
    ),
    pattern(
        Kind.PASSWORD,
        password_in_prose,
        rf"(?i)(?<!\w)(?:{PASSWORD_NAMES})(?:{IS}|是|は) ?[\"']?"
        r"(?P<value>[^\s\"'<>,;]{4,128})",
        rf"(?i)(?:{PASSWORD_NAMES})(?:{IS}|是|は)",
    ),
    pattern(
        Kind.SECRET,
        token,
        rf"(?i)[?&;](?:[a-z0-9_.-]{{0,40}}[_.-])?(?:{QUERY_NAMES})="
        r"(?P<value>[^\s&#\"'<>()\[\]{}]{8,})",
        rf"(?i)(?:{QUERY_NAMES})=",
    ),
    pattern(
        Kind.SECRET,
        token,
        r"(?i)\btoken[\"']?(?: ?= ?| ?: ?)[\"']?(?P<value>[A-Za-z0-9._~+/-]{16,}=*)",
        r"(?i)token[\"']?(?: ?=| ?:)",
    ),
)


def scan_secrets(text: str) -> list[str]:
    """Return the secrets that kingfisher's rules find in a text, sorted.

    ``kingfisher-secret-scanner`` compiles 488 rules of MongoDB's scanner once per process; its
    detection never uses the network.
    """
    # Many rules require a space or a quote after a token; prose may have a full stop there.
    findings = _scanner().scan(PUNCTUATION.sub(" ", text).encode("utf-8", "replace"))
    return sorted({finding.secret for finding in findings if finding.visible and finding.secret})


@cache
def _scanner() -> "Scanner":
    from kingfisher_sdk import Scanner

    return Scanner(base64=False)
