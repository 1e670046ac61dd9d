"""The header of the approval form: earlier answers, and links."""

import re
from collections.abc import Mapping, Sequence

from components.decide import reasons
from components.decide.chain import Link
from components.pages import templates

SHOWN = 5
"""Earlier decisions on the workload."""


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
    return templates.render(
        "decide/page.md.j2",
        answered=answered,
        approved=approved,
        earlier=earlier[-SHOWN:],
        links=links,
        wanted=wanted,
        sign=sign,
        refusal=reasons.refusal_sentence,
    )


def card(text: str) -> str:
    """Fold the card of a snapshot to one line that opens; its pictures lie elsewhere.

    Args:
        text: The card as it lies in the snapshot, which begins with what machines read.
    """
    if not text:
        return ""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    told = "\n".join(line for line in body.splitlines() if not line.startswith("![")).strip()
    return f"\n<details><summary>The card of the data</summary>\n\n{told}\n\n</details>\n"
