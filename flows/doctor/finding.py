"""The result of a check: the state of a thing, and how to fix it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["fine", "note", "wrong"]  # a ``note`` may be intended


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The state of one thing; ``fix`` is empty where nothing is wrong."""

    level: Level
    about: str
    state: str
    fix: str = ""


def as_json(result: CheckResult) -> dict[str, str]:
    """Return a result with the keys that `flywheel doctor --json` prints."""
    return {
        "level": result.level,
        "about": result.about,
        "found": result.state,
        "fix": result.fix,
    }


def fine(about: str, state: str) -> CheckResult:
    """Return the result for a good state."""
    return CheckResult("fine", about, state)


def note(about: str, state: str, fix: str) -> CheckResult:
    """Return the result for a state that may be intended."""
    return CheckResult("note", about, state, fix)


def wrong(about: str, state: str, fix: str) -> CheckResult:
    """Return the result for a state that must be fixed."""
    return CheckResult("wrong", about, state, fix)
