"""Why a challenger is rejected, an answer refused, an approval lapsed: short lists of words."""

from typing import Literal, TypeAlias, get_args

Reason: TypeAlias = Literal["quality", "safety", "cost", "data", "slice", "other"]
"""``quality``: its answers. ``safety``: what it may do. ``cost``: its price or its speed. ``data``:
what it learned from. ``slice``: one part of the traffic. ``other``: what the comment says."""

REASONS: tuple[Reason, ...] = get_args(Reason)

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

REFUSALS: dict[Refused, str] = {
    "unnamed": "a decision wants the name of who decides",
    "unlisted": "the workload's file lists who may decide, and this name is not on the list",
    "same_person": "this name has approved already, and another person has to",
    "unexplained": "a rejection for another reason wants a comment that says which",
    "blame": "what is blamed was not found",
    "code_unknown": "there is no secret of this name, or none that can be used, to hold a one-time "
    "code against; `flywheel approver add` makes one",
    "code_missing": "a one-time code is wanted",
    "code_wrong": "the one-time code is wrong",
    "code_expired": "the one-time code has expired",
    "code_reused": "the one-time code was used before; wait for the next one",
    "code_locked": "too many wrong one-time codes came under this name; for a day, none is taken",
    "starter": "this person started the turn by hand, and the rules want another to approve",
    "signature_missing": "a signature is wanted: run the line above and paste all that it prints",
    "signature_unreadable": "what was pasted is no statement with a signature below it",
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
"""Why an answer was not taken, for whoever gave it."""

Lapsed: TypeAlias = Literal["stale", "cancelled", "timed_out", "superseded"]
"""``stale``: what it was about has changed. ``superseded``: newer evidence is waited for."""


def refusal(reason: str) -> str:
    """Say a refusal in words."""
    return next((said for name, said in REFUSALS.items() if name == reason), reason)
