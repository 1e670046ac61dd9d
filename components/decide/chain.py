"""The chain of decisions: each link holds the digest of the one before; pure.

A link's digest is the SHA-256 of its content. Changing, deleting or moving a link therefore means
rewriting all later ones up to the head, of which every export has a copy. People's texts are not in
the content, only the SHA-256 of a salt and the text: a text can be erased with its salt, and the
chain stays valid.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "approve",
    "reject",
    "refused",
    "lapsed",
    "rollback",
    "promoted",
    "erased",
    "canary",
    "sealed",
    "looked",
    "released",
    "rules",
]
"""``refused``: an answer that was not accepted. ``lapsed``: an expired question. ``rollback``: the
version approved on the evidence was rolled back. ``promoted``: it became champion. ``erased``: a
champion lost its place, as rows that it learned from were erased. ``canary``: it began to answer a
share by rule, or that ended, by rule or by a person. ``sealed``: a policy, before the first look at
a holdout. ``looked``: one look, before its result was known. ``released``: the digest of all files
of a version, before it becomes champion. ``rules``: the rules for deciding about a workload, before
anybody is asked under them."""

GENESIS = "0" * 64  # the first link's ``before``; later links have the digest of the previous one

FIELDS = ("approver", "comment", "blame")  # the texts that people wrote

CONTENT = (
    *("sequence", "kind", "workload_id", "evidence_digest", "flow_run_id", "attempt", "reason"),
    *("decided_at", "approver_digest", "comment_digest", "blame_digest", "before"),
)
"""The fields that every link's digest covers."""

DOCUMENT = "document"
"""Rules, or a statement with its signature. Not part of a body, because it names people; only some
links have one."""

Reason: TypeAlias = Literal["quality", "safety", "cost", "data", "slice", "other"]
"""``quality``: its answers. ``safety``: its risks. ``cost``: its price or speed. ``data``: its
training data. ``slice``: one part of the traffic. ``other``: see the comment."""

Refused: TypeAlias = Literal[
    "unnamed",
    "unlisted",
    "same_person",
    "unexplained",
    "blame",
    "code_unknown",
    "code_missing",
    "code_wrong",
    "code_expired",
    "code_reused",
    "code_locked",
    "starter",
    "signature_missing",
    "signature_unreadable",
    "signature_other",
    "signature_wrong",
    "signature_key",
    "signature_untouched",
    "signature_early",
    "signature_late",
    "signature_used",
]

REFUSALS: Mapping[str, str] = {
    "unnamed": "a decision needs the name of the person who decides",
    "unlisted": "the workload's file lists who may decide, and this name is not on the list",
    "same_person": "this name has approved already; another person must approve",
    "unexplained": "a rejection with the reason `other` needs a comment",
    "blame": "what is blamed was not found",
    "code_unknown": "there is no secret of this name, or none that can be used, to check a "
    "one-time code against; `flywheel approver add` makes one",
    "code_missing": "a one-time code is required",
    "code_wrong": "the one-time code is wrong",
    "code_expired": "the one-time code has expired",
    "code_reused": "the one-time code was used before; wait for the next one",
    "code_locked": "too many wrong one-time codes came under this name; none is accepted for a day",
    "starter": "this person started the turn by hand, and the rules require another one to approve",
    "signature_missing": "a signature is required: run the line above and paste all of its output",
    "signature_unreadable": "the pasted text is not a statement followed by a signature",
    "signature_other": "the signature is for something else: its statement must name this evidence "
    "and question, the rules of now, and the same decision, name, reason, comment and blame",
    "signature_wrong": "the signature does not hold, or is not for `-n flywheel`",
    "signature_key": "it is signed with a key that the rules do not list for this name, or that "
    "does not count at this time",
    "signature_untouched": "the security key was not touched when it signed",
    "signature_early": "the signed time is in the future; set the clock",
    "signature_late": "the signature is older than a quarter of an hour; sign again",
    "signature_used": "this signature was used before; sign again",
}
"""Why an answer was refused, for the person who answered."""

ExpiryReason: TypeAlias = Literal["stale", "cancelled", "timed_out", "superseded"]
"""``stale``: its subject has changed. ``superseded``: newer evidence is waiting."""


def refusal_sentence(reason: str) -> str:
    """Return the sentence of a refusal code."""
    return REFUSALS.get(reason, reason)


@dataclass(frozen=True, slots=True)
class Link:
    """A row of the chain; an erased text and its salt are ``None``.

    ``attempt`` counts the answers to one promotion. ``reason`` is a code: why it was rejected,
    refused, or expired. ``body`` is JSON: what a seal, a look or a release commits to (of the first
    two ``evidence_digest`` is the policy's digest), or a decision's proof and the digest of its
    rules. ``document`` is the signed statement with its signature, or the rules.
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
        """The names of its texts, including erased ones."""
        return (*FIELDS, DOCUMENT) if self.document_digest else FIELDS


@dataclass(frozen=True, slots=True)
class Head:
    """The last link's number and digest, stored next to the chain, and in MLflow as an anchor."""

    sequence: int
    digest: str

    @property
    def anchor(self) -> str:
        """The head as text."""
        return f"{self.sequence} {self.digest}"


def from_anchor(text: str) -> Head | None:
    """Parse an anchor; ``None`` if it is invalid."""
    match = re.fullmatch(r"([1-9][0-9]*) ([0-9a-f]{64})", text)
    return Head(int(match[1]), match[2]) if match else None


@dataclass(frozen=True, slots=True)
class Broken:
    """The first invalid link, and its problem."""

    sequence: int
    problem: str


def encodable(text: str) -> str:
    """Replace lone surrogates and character 0, which can't be stored, or not everywhere.

    A text is signed as it is stored, so this comes before both.
    """
    clean = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return clean.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def seal(salt: str, text: str) -> str:
    """Digest a text under its salt."""
    return hashlib.sha256((salt + text).encode()).hexdigest()


def content(link: Link) -> str:
    """Return the content that a link's digest covers: one line of JSON with sorted keys."""
    # The content of a link without body or document does not name them.
    present = [name for name in ("body", "document_digest") if getattr(link, name)]
    record = {name: getattr(link, name) for name in (*CONTENT, *present)}
    record["decided_at"] = f"{link.decided_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(link: Link) -> str:
    """Digest a link's content."""
    return hashlib.sha256(content(link).encode()).hexdigest()


def first_broken(links: Iterable[Link], head: Head | None) -> Broken | None:
    """Recompute the chain; return the first invalid link, if any.

    ``links`` are all in order, ``head`` is the one stored next to them, if there ever was a
    link.
    """
    before, expected = GENESIS, 1
    for link in links:
        if link.sequence != expected:
            return Broken(expected, f"is missing: the next one there is {link.sequence}")
        if (problem := _problem(link, before)) is not None:
            return Broken(link.sequence, problem)
        before, expected = link.digest, expected + 1
    last = head.sequence if head else 0
    if last >= expected:
        return Broken(expected, f"is missing: the chain's head is {last}")
    if last < expected - 1:
        return Broken(last + 1, f"was not appended by Flywheel: the chain's head is {last}")
    if head and head.digest != before:
        return Broken(last, "differs from the chain's head")
    return None


def first_loose(links: Iterable[Link], anchors: Mapping[str, str]) -> Broken | None:
    """Return the first link that differs from an anchor, if any; the anchors are by their place.

    This detects a chain whose end was cut off together with its head, or that was rewritten.
    """
    digests = {link.sequence: link.digest for link in links}
    read = {place: from_anchor(text) for place, text in anchors.items()}
    for place, head in sorted(read.items()):
        if head is None:
            return Broken(0, f"is unknown: {anchors[place]!r} in {place} is not an anchor")
        if digests.get(head.sequence) != head.digest:
            state = "differs" if head.sequence in digests else "is missing"
            return Broken(head.sequence, f"{state}: in {place} its digest is {head.digest}")
    return None


def _problem(link: Link, before: str) -> str | None:
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
