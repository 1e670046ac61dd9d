"""What stands above the evidence when it is asked about: answers before this one, and links.

Names and comments come from people, so they stand in code spans and can't become markup.
"""

import re
from collections.abc import Mapping, Sequence

from components import markdown
from components.decide import reasons
from components.decide.chain import Link

SHOWN = 5
"""Earlier words on the workload."""

SHOWN_CHARACTERS = 200
"""Longer comments are cut."""


def write(
    answered: Sequence[Link],
    approved: Sequence[Link],
    earlier: Sequence[Link],
    links: Mapping[str, str],
    *,
    wanted: int,
    sign: str = "",
) -> str:
    """Write it as Markdown.

    Args:
        answered: What was answered to this promotion so far, in its order.
        approved: The approvals of this evidence that count.
        earlier: What was decided on the workload's other evidence, the oldest first.
        links: Addresses by what they lead to.
        wanted: How many different people have to approve.
        sign: The line of shell that signs an answer, where answers are signed.
    """
    parts = [
        *_refusal(answered),
        *_sign(sign),
        *_approved(approved, wanted),
        " · ".join(f"[{name}]({address})" for name, address in links.items()),
        *_earlier(earlier[-SHOWN:]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n\n"


def card(text: str) -> str:
    """Fold the card of a snapshot to one line that opens; its pictures lie elsewhere.

    Args:
        text: The card as it lies in the snapshot, which begins with what machines read.
    """
    if not text:
        return ""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    lines = [line for line in body.splitlines() if not line.startswith("![")]
    told = "\n".join(lines).strip()
    return f"\n<details><summary>The card of the data</summary>\n\n{told}\n\n</details>\n"


def _refusal(answered: Sequence[Link]) -> list[str]:
    """Say why the last answer was not taken; what was taken needs no word here."""
    if not answered or answered[-1].kind != "refused":
        return []
    last = answered[-1]
    refused = sum(link.kind == "refused" for link in answered)
    said = f"**Asked again.** The answer of {_name(last)} was not taken: "
    if last.reason == "blame":
        said += f"{markdown.code(last.blame or '')}: "
    times = "" if refused == 1 else f" {refused} answers were not taken so far."
    return [f"{said}{reasons.refusal(last.reason)}.{times}"]


def _sign(line: str) -> list[str]:
    if not line:
        return []
    return [
        "**To answer, sign what you decide.** Copy this line to a terminal where your SSH key is; "
        "three clicks on it select all of it:",
        f"```sh\n{line}\n```",
        "1. Before you run it, fill in its beginning: your name as `who`, `approve` or `reject` as "
        "`decision`, and between the quotes the reason (of a rejection), comment and blame that "
        "you give. Its end, after `-f`, is your key's file; of a key in an agent, its `.pub`.\n"
        "2. Fill in the fields below with the same words, and paste all that the line printed into "
        "Signature.",
        "Or run `flywheel approve` or `flywheel reject` where Flywheel is; it signs by itself.",
    ]


def _approved(approved: Sequence[Link], wanted: int) -> list[str]:
    if wanted == 1:
        return []
    lines = [f"- {_name(link)} on {_when(link)}: {_comment(link)}" for link in approved]
    left = wanted - len(approved)
    people = "another person has to" if approved else f"{left} different people have to"
    return [f"**Approved by {len(approved)} of {wanted}:** {people}.", "\n".join(lines)]


def _earlier(earlier: Sequence[Link]) -> list[str]:
    if not earlier:
        return []
    rows = [
        (
            _when(link),
            link.kind + (f": {link.reason.replace('_', ' ')}" if link.reason else ""),
            _name(link),
            markdown.code(link.evidence_digest),
            _comment(link),
        )
        for link in reversed(earlier)
    ]
    head = ("decided before", "what", "who", "evidence", "comment")
    return ["\n".join(markdown.table(head, rows))]


def _name(link: Link) -> str:
    return "(erased)" if link.approver is None else markdown.code(link.approver or "nobody")


def _comment(link: Link) -> str:
    if link.comment is None:
        return "(erased)"
    text = link.comment
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
    return markdown.code(short) if short.strip() else "no comment"


def _when(link: Link) -> str:
    return f"{link.decided_at:%Y-%m-%d %H:%M} UTC"
