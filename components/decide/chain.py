"""The chain of decisions: each link holds the digest of the one before; pure.

A link's digest is the SHA-256 of its content, so that whoever changes, drops or moves one has to
write all later ones anew, up to the head, which is kept elsewhere, too: in every export. The texts
that people wrote are not in it, only the SHA-256 of a salt and the text. A text can therefore be
erased, with its salt, and the chain still holds.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "approve", "reject", "refused", "lapsed", "rollback", "sealed", "looked", "released", "rules"
]
"""``refused``: an answer that was not taken. ``lapsed``: an approval that nobody can give now.
``rollback``: what was approved on the evidence was taken back. ``sealed``: a policy, before the
first look at a holdout. ``looked``: one look, before what it showed was known. ``released``: the
digest of all files of a version, before it becomes champion. ``rules``: the rules for deciding
about a workload, before anybody is asked under them."""

GENESIS = "0" * 64
"""What stands in the first link where later ones have the digest of the one before."""

FIELDS = ("approver", "comment", "blame")
"""The texts that people wrote."""

DOCUMENT = "document"
"""What stands in no body, since it names people: rules, or a statement with its signature. Only
some links have one."""


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the chain; ``None`` where a text was erased, whose salt is then gone, too.

    ``attempt`` counts the answers of one promotion. ``reason`` is a word of a short list: why it
    was rejected, refused, or lapsed. ``body`` is what a seal, a look or a release commits to, as
    JSON; of the first two ``evidence_digest`` is that of the policy. Of a decision it says what
    proved the name, and under which rules. ``document`` is what was signed, with the signature, or
    the rules themselves.
    """

    sequence: int
    kind: Kind
    workload_id: str
    evidence_digest: str
    flow_run_id: str
    attempt: int
    reason: str
    decided_at: datetime
    approver_digest: str
    comment_digest: str
    blame_digest: str
    before: str
    digest: str
    approver: str | None
    approver_salt: str | None
    comment: str | None
    comment_salt: str | None
    blame: str | None
    blame_salt: str | None
    body: str = ""
    document_digest: str = ""
    document: str | None = None
    document_salt: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The names of its texts, erased ones included."""
        return (*FIELDS, DOCUMENT) if self.document_digest else FIELDS


@dataclass(frozen=True, slots=True)
class Head:
    """The last link, as it is kept beside the chain, and in MLflow as an anchor."""

    sequence: int
    digest: str

    @property
    def anchor(self) -> str:
        """Write it as one word beside the other."""
        return f"{self.sequence} {self.digest}"


def from_anchor(text: str) -> Head | None:
    """Read an anchor; ``None`` if the text is none."""
    found = re.fullmatch(r"([1-9][0-9]*) ([0-9a-f]{64})", text)
    return Head(int(found[1]), found[2]) if found else None


@dataclass(frozen=True, slots=True)
class Broken:
    """The first link that does not hold, and why."""

    sequence: int
    said: str


def encodable(text: str) -> str:
    """Replace halves of characters (lone surrogates), which no file, database or digest takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def seal(salt: str, text: str) -> str:
    """Digest a text under its salt."""
    return hashlib.sha256((salt + text).encode()).hexdigest()


def content(link: Link) -> str:
    """Write what a link's digest is of: one line of JSON, its keys in alphabetical order."""
    told = {
        "approver_digest": link.approver_digest,
        "attempt": link.attempt,
        "before": link.before,
        "blame_digest": link.blame_digest,
        "comment_digest": link.comment_digest,
        "decided_at": moment(link.decided_at),
        "evidence_digest": link.evidence_digest,
        "flow_run_id": link.flow_run_id,
        "kind": link.kind,
        "reason": link.reason,
        "sequence": link.sequence,
        "workload_id": link.workload_id,
    }
    if link.body:  # rows of older versions have none, and keep their digests
        told["body"] = link.body
    if link.document_digest:
        told["document_digest"] = link.document_digest
    return json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(link: Link) -> str:
    """Digest a link's content."""
    return hashlib.sha256(content(link).encode()).hexdigest()


def moment(at: datetime) -> str:
    """Write a time as it stands in the content: UTC, with microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def first_broken(links: Iterable[Link], head: Head | None) -> Broken | None:
    """Recompute the chain; ``None`` if every link holds, else the first that doesn't.

    Args:
        links: All of them, by their sequence.
        head: The last link as it was kept beside the chain; ``None`` where there never was one.
    """
    before, expected = GENESIS, 1
    for link in links:
        if link.sequence != expected:
            return Broken(expected, f"is missing: the next one there is {link.sequence}")
        if (said := _objection(link, before)) is not None:
            return Broken(link.sequence, said)
        before, expected = link.digest, expected + 1
    last = head.sequence if head else 0
    if last >= expected:
        return Broken(expected, f"is missing: the chain's head is {last}")
    if last < expected - 1:
        return Broken(last + 1, f"was not appended by Flywheel: the chain's head is {last}")
    if head and head.digest != before:
        return Broken(last, "is another one than the chain's head says")
    return None


def first_loose(links: Iterable[Link], anchors: Mapping[str, str]) -> Broken | None:
    """Hold the chain against what is said of it elsewhere; ``None`` if all of that is in it.

    So a chain is found whose end was cut off together with its head, or that was written anew.

    Args:
        links: All of them.
        anchors: By where each stands.
    """
    digests = {link.sequence: link.digest for link in links}
    read = {place: from_anchor(text) for place, text in anchors.items()}
    for place, head in sorted(read.items()):
        if head is None:
            return Broken(0, f"is unknown: {place} names {anchors[place]!r}, which is no anchor")
        if digests.get(head.sequence) != head.digest:
            found = "another one" if head.sequence in digests else "missing"
            return Broken(head.sequence, f"is {found}: {place} says that it was {head.digest}")
    return None


def _objection(link: Link, before: str) -> str | None:
    if digest(link) != link.digest:
        return "was changed: its content has another digest than it says"
    if link.before != before:
        return "does not follow the one before it: rows were replaced, moved or deleted"
    for field in link.texts:
        salt, text = getattr(link, f"{field}_salt"), getattr(link, field)
        if (salt is None) != (text is None):
            return f"has a {field} without its salt, or a salt without its {field}"
        if text is not None and seal(str(salt), text) != getattr(link, f"{field}_digest"):
            return f"was changed: its {field} is not the one that was recorded"
    if link.document is not None and not link.document_digest:
        return "has a document that was not recorded with it"
    return None
