"""The statement that an approver signs: one line of JSON with the whole decision, name and time.

A signature over it can't be used for another decision, evidence, adapter or question, whoever holds
the answer meanwhile.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

from components.decide import ssh_signatures
from components.decide.ssh_signatures import NAMESPACE

FORMAT = "flywheel-decision-1"  # the version of the statement's format

AT = "%Y-%m-%dT%H:%M:%SZ"

MAX_CHARACTERS = 65_536
"""Limit of a pasted text: a statement with the longest signature has fewer than 10,000."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The signed fields.

    ``adapter`` and ``evidence`` are whole SHA-256 digests, ``comment`` and ``blame`` those of the
    texts, ``rules`` that of the chain's link with the current rules. ``question`` is the flow run
    that asks, so that a signature answers no other; for a rollback it is the current version and
    the target. ``reason`` is a rejection's.
    """

    workload: str
    evidence: str
    adapter: str
    rules: str
    question: str
    decision: str
    approver: str
    reason: str
    comment: str
    blame: str
    at: str

    @property
    def text(self) -> str:
        """The line: sorted keys, no blanks, without a final line break."""
        record = {**asdict(self), "statement": FORMAT}
        return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @property
    def signed_at(self) -> datetime:
        """The signed time."""
        return datetime.strptime(self.at, AT).replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Signed:
    """A line and its signature, as pasted."""

    line: str
    armored: str

    @property
    def document(self) -> str:
        """Both, as the chain stores them."""
        return f"{self.line}\n{self.armored}"


def split(pasted: str) -> Signed | None:
    """Find a line and the signature below it; ``None`` if either is missing or it is too long."""
    if len(pasted) > MAX_CHARACTERS:
        return None
    before, begin, after = pasted.replace("\r", "").partition(ssh_signatures.BEGIN)
    blob, end, _ = after.partition(ssh_signatures.END)
    _, brace, line = before.rstrip().rpartition("\n")[2].partition("{")
    if not end or not brace or not line.endswith("}"):
        return None
    lines = [words for each in f"{begin}{blob}{end}".splitlines() if (words := each.strip())]
    return Signed(brace + line, "\n".join(lines) + "\n")


def read(line: str) -> Statement:
    """Parse a line.

    Raises:
        ValueError: It is not a statement in canonical form: two texts must not mean the same.
    """
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("the statement is nested too deeply") from error
    names = {field.name for field in fields(Statement)}
    is_object = isinstance(record, dict)
    if not is_object or record.pop("statement", None) != FORMAT or set(record) != names:
        raise ValueError(f"expected a statement of the form {FORMAT}")
    parsed = Statement(**{name: str(value) for name, value in record.items()})
    if parsed.text != line:
        raise ValueError("the statement is not written as Flywheel writes it")
    if parsed.signed_at.strftime(AT) != parsed.at:  # as 2026-1-2T3:4:5Z
        raise ValueError(f"the statement's time is {parsed.at}, expected one of the form {AT}")
    return parsed


def digest(words: str) -> str:
    """Digest a person's text, without surrounding blanks."""
    return hashlib.sha256(plain(words).encode()).hexdigest()


def plain(words: str) -> str:
    """Normalize a text for signing: no surrounding blanks, uniform line breaks."""
    return words.replace("\r\n", "\n").replace("\r", "\n").strip()


def command(form: Statement, key: str = "~/.ssh/id_ed25519") -> str:
    """Return the shell command that makes and signs a statement, with OpenSSH and coreutils.

    It sets the person's fields of ``form`` at its beginning. ``key`` is the key's file, or its
    ``.pub`` where an agent holds it.
    """
    typed = ("approver", "at", "blame", "comment", "decision", "reason")
    line = replace(form, **dict.fromkeys(typed, "%s")).text
    if "'" in line or "\\" in line:
        raise ValueError(f"{line} can't be quoted in a shell command")
    return (
        f"who='{form.approver}' decision={form.decision} reason='{form.reason}' comment='' "
        f"blame=''; h() {{ printf %s \"$1\" | sha256sum | cut -c1-64; }}; "
        f's=$(printf \'{line}\' "$who" "$(date -u +{AT})" "$(h "$blame")" '
        f'"$(h "$comment")" "$decision" "$reason"); '
        f'printf \'%s\\n\' "$s"; printf %s "$s" | ssh-keygen -Y sign -n {NAMESPACE} -f {key}'
    )
