"""What an approver signs: one line of JSON that says all that is decided, by whom and when.

A signature over it can't be used for another decision, another evidence, other bytes of the adapter
or another question, whoever holds the answer meanwhile.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

from components.decide import ssh_signatures
from components.decide.ssh_signatures import NAMESPACE

FORMAT = "flywheel-decision-1"
"""The first version of the statement's form."""

AT = "%Y-%m-%dT%H:%M:%SZ"

MOST_CHARACTERS = 65_536
"""Of what is pasted: a statement and the longest signature that there is are below 10,000."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is signed.

    ``adapter`` and ``evidence`` are whole SHA-256 digests, ``comment`` and ``blame`` those of what
    was written, ``rules`` that of the link of the chain that holds the rules in force. ``question``
    is the flow run that asks, so that a signature answers no other; of a rollback it is the version
    that is left and the one that is gone back to. ``reason`` is a rejection's.
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
        """The line: its keys in alphabetical order, no blanks; without a line break at its end."""
        told = {**asdict(self), "statement": FORMAT}
        return json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @property
    def signed_at(self) -> datetime:
        """When it says that it was signed."""
        return datetime.strptime(self.at, AT).replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Signed:
    """A line and its signature, as they were pasted."""

    line: str
    armored: str

    @property
    def document(self) -> str:
        """Both, as the chain keeps them."""
        return f"{self.line}\n{self.armored}"


def split(pasted: str) -> Signed | None:
    """Find a line and the signature below it; ``None`` where one is missing, or it is too long."""
    if len(pasted) > MOST_CHARACTERS:
        return None
    before, begin, after = pasted.replace("\r", "").partition(ssh_signatures.BEGIN)
    blob, end, _ = after.partition(ssh_signatures.END)
    _, brace, line = before.rstrip().rpartition("\n")[2].partition("{")
    if not end or not brace or not line.endswith("}"):
        return None
    lines = [words for each in f"{begin}{blob}{end}".splitlines() if (words := each.strip())]
    return Signed(brace + line, "\n".join(lines) + "\n")


def read(line: str) -> Statement:
    """Read a line.

    Raises:
        ValueError: It is no statement, or not written as one: two texts must not mean the same.
    """
    try:
        told = json.loads(line)
    except RecursionError as error:
        raise ValueError("the statement is nested too deeply") from error
    names = {field.name for field in fields(Statement)}
    if not isinstance(told, dict) or told.pop("statement", None) != FORMAT or set(told) != names:
        raise ValueError(f"expected a statement of the form {FORMAT}")
    found = Statement(**{name: str(value) for name, value in told.items()})
    if found.text != line:
        raise ValueError("the statement is not written as Flywheel writes it")
    _ = found.signed_at
    return found


def digest(words: str) -> str:
    """Digest what a person wrote, without blanks around it."""
    return hashlib.sha256(plain(words).encode()).hexdigest()


def plain(words: str) -> str:
    """Write a text as it is signed: no blanks around it, and line breaks of one kind."""
    return words.replace("\r\n", "\n").replace("\r", "\n").strip()


def command(form: Statement, key: str = "~/.ssh/id_ed25519") -> str:
    """Write the one line of shell that makes and signs a statement, with OpenSSH and coreutils.

    Args:
        form: What is asked; what a person says is taken from the line's beginning.
        key: The key's file, or its ``.pub`` where an agent holds it.
    """
    said = ("approver", "at", "blame", "comment", "decision", "reason")
    line = replace(form, **dict.fromkeys(said, "%s")).text
    if "'" in line or "\\" in line:
        raise ValueError(f"{line} can't stand in a line of shell")
    return (
        f"who='{form.approver}' decision={form.decision} reason='{form.reason}' comment='' "
        f"blame=''; h() {{ printf %s \"$1\" | sha256sum | cut -c1-64; }}; "
        f's=$(printf \'{line}\' "$who" "$(date -u +{AT})" "$(h "$blame")" '
        f'"$(h "$comment")" "$decision" "$reason"); '
        f'printf \'%s\\n\' "$s"; printf %s "$s" | ssh-keygen -Y sign -n {NAMESPACE} -f {key}'
    )
