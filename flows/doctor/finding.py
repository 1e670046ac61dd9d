"""What a check says: a sentence on what was found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["fine", "note", "wrong"]
"""``wrong`` must be fixed; a ``note`` may be as it is meant to be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``fix`` is empty where all is well."""

    level: Level
    about: str
    found: str
    fix: str = ""


def fine(about: str, found: str) -> Finding:
    """Say that something is as it should be."""
    return Finding("fine", about, found)


def note(about: str, found: str, fix: str) -> Finding:
    """Point at something that may be meant."""
    return Finding("note", about, found, fix)


def wrong(about: str, found: str, fix: str) -> Finding:
    """Name something that must be fixed."""
    return Finding("wrong", about, found, fix)
