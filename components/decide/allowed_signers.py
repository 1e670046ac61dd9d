"""Whose key is whose, as OpenSSH's ``allowed_signers`` files say it (``ssh-keygen(1)``)."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import translate

from components.decide import ssh_signature
from components.decide.ssh_signature import NAMESPACE, SignatureError

_OPTION = re.compile(r'([a-z-]+)(?:=("[^"]*"|[^",]*))?(?:,|$)')


@dataclass(frozen=True, slots=True)
class Signer:
    """A public key (base64), and since when and until when it counts (UTC)."""

    key: str
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def is_valid(self, at: datetime) -> bool:
        """Tell whether the key counts at a time; both ends do."""
        after, before = self.valid_after, self.valid_before
        return (after is None or at >= after) and (before is None or at <= before)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: patterns of names, and a key that counts for them."""

    principals: tuple[str, ...]
    signer: Signer

    def is_of(self, name: str) -> bool:
        """Tell whether the key is a person's; a pattern with ``!`` excludes whom it matches."""
        matches = [one for one in self.principals if _matches(one.removeprefix("!"), name)]
        return bool(matches) and not any(one.startswith("!") for one in matches)


def parse(text: str) -> list[Line]:
    """Read the lines that count for Flywheel; those of other namespaces are left out.

    Raises:
        ValueError: A line can't be read, or is of a certificate authority, which is not supported.
    """
    lines = enumerate(text.splitlines(), 1)
    said = [(n, line.strip()) for n, line in lines if line.strip() and line.strip()[0] != "#"]
    return [line for n, one in said for line in _line(n, one)]


def public_key(text: str) -> Signer:
    """Read a public key as a ``.pub`` file has it: its type, base64, and maybe a comment.

    Raises:
        ValueError: It is none.
    """
    words = text.split()
    if len(words) < 2:
        raise ValueError(f"{text!r} is no public key, expected the line of a .pub file")
    return _signer(words[0], words[1], {})


def write(name: str, signer: Signer) -> str:
    """Write the line of a person's key, as ``ssh-keygen -Y verify`` reads it."""
    options = [f'namespaces="{NAMESPACE}"']
    times = {"valid-after": signer.valid_after, "valid-before": signer.valid_before}
    for option, time in times.items():
        if time is not None:
            options.append(f'{option}="{time.astimezone(UTC):%Y%m%d%H%M%SZ}"')
    kind = ssh_signature.key_type(signer.key)
    return f'"{name}" {",".join(options)} {kind} {signer.key}\n'


def _line(number: int, text: str) -> Iterable[Line]:
    try:
        principals, rest = _first_word(text)
        options: dict[str, str] = {}
        if rest.split(maxsplit=1)[0] not in ssh_signature.KEY_TYPES:
            given, rest = _first_word(rest, keep_quotes=True)
            options = _options(given)
        kind, key = rest.split()[:2]
        signer = _signer(kind, key, options)
    except (ValueError, IndexError) as error:
        raise ValueError(f"allowed_signers, line {number}: {error}") from error
    namespaces = options.get("namespaces")
    if namespaces is None or any(_matches(one, NAMESPACE) for one in namespaces.split(",")):
        yield Line(tuple(principals.split(",")), signer)


def _first_word(text: str, *, keep_quotes: bool = False) -> tuple[str, str]:
    """Split off the first word, in which blanks may stand in double quotes."""
    found = re.match(r'((?:"[^"]*"|[^"\s])+)\s+(.+)', text)
    if found is None:
        raise ValueError("expected names, options if any, the type of a key, and the key")
    return found[1] if keep_quotes else "".join(shlex.split(found[1], posix=True)), found[2]


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    place = 0
    while place < len(text):
        found = _OPTION.match(text, place)
        if found is None or found[1] not in (
            "cert-authority",
            "namespaces",
            "valid-after",
            "valid-before",
        ):
            raise ValueError(f"{text[place:]!r} is no option")
        if found[1] == "cert-authority":
            raise ValueError("certificate authorities are not supported, list the people's keys")
        options[found[1]] = (found[2] or "").strip('"')
        place = found.end()
    return options


def _signer(kind: str, key: str, options: dict[str, str]) -> Signer:
    try:
        found = ssh_signature.key_type(key)
    except SignatureError as error:
        raise ValueError(f"{kind} {key[:20]}...: {error}") from error
    if found != kind:
        raise ValueError(f"a key is said to be of type {kind} and is of type {found}")
    after, before = (_time(options.get(name)) for name in ("valid-after", "valid-before"))
    return Signer(ssh_signature.canonical(key), after, before)


def _time(text: str | None) -> datetime | None:
    """Read ``YYYYMMDD[HHMM[SS]][Z]``; without a Z it is the machine's own time."""
    if text is None:
        return None
    digits, zone = text.removesuffix("Z"), UTC if text.endswith("Z") else None
    for form, length in (("%Y%m%d", 8), ("%Y%m%d%H%M", 12), ("%Y%m%d%H%M%S", 14)):
        if len(digits) == length and digits.isascii() and digits.isdigit():
            read = datetime.strptime(digits, form)
            return read.replace(tzinfo=zone) if zone else read.astimezone()
    raise ValueError(f"{text!r} is no time, expected YYYYMMDD[HHMM[SS]][Z]")


def _matches(pattern: str, text: str) -> bool:
    """Match as OpenSSH does: ``*`` and ``?`` are wildcards, brackets are not."""
    escaped = pattern.replace("[", "[[]")
    return re.fullmatch(translate(escaped), text) is not None
