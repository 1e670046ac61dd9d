"""The result of a check: what was found and how to mend it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["fine", "note", "wrong"]
"""``wrong`` must be fixed; a ``note`` may be as it is meant to be."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at; ``fix`` is empty where all is well."""

    level: Level
    about: str
    found: str
    fix: str = ""


def fine(about: str, found: str) -> CheckResult:
    """Say that something is as it should be."""
    return CheckResult("fine", about, found)


def note(about: str, found: str, fix: str) -> CheckResult:
    """Point at something that may be meant."""
    return CheckResult("note", about, found, fix)


def wrong(about: str, found: str, fix: str) -> CheckResult:
    """Name something that must be fixed."""
    return CheckResult("wrong", about, found, fix)
