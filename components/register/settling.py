"""Decide what becomes of a change of champion that was interrupted: finished, undone, or left.

A person has asked for it, so it is finished where that is still right. What was not made can't be
crowned, what has learned from erased rows must not be, and a champion that somebody has put in its
place since is not moved.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from components.register.journal import Change

Ending: TypeAlias = Literal["finish", "undo", "leave"]


@dataclass(frozen=True, slots=True)
class Found:
    """How things are now: the champion's number, and the version to crown if it exists."""

    champion: str | None
    version: str | None
    is_tainted: bool
    is_approved: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with an interrupted change, and why."""

    ending: Ending
    why: str


def settle(change: Change, found: Found) -> Verdict:
    """Say how an interrupted change ends."""
    if found.version is None:
        return Verdict("undo", "the version was never registered; nothing had moved")
    if found.champion not in (change.champion_before, found.version):
        now = f"version {found.champion}" if found.champion else "nobody"
        return Verdict("leave", f"{now} has become champion meanwhile")
    if found.is_tainted:
        return Verdict(
            "undo", f"version {found.version} has learned from rows that were erased meanwhile"
        )
    if not found.is_approved:
        return Verdict("undo", f"nobody has approved version {found.version}, says the chain")
    return Verdict("finish", "it was interrupted, and is finished")
