"""What each kind of feedback says: the rule of every kind, as a number or a comparison."""

from collections.abc import Sequence

from components.schema import Json

NEUTRAL = 0.25
"""An opinion nearer to the middle than this says neither good nor bad."""

REGENERATED = 0.25
"""Whoever asks again may only want another answer: a quarter of a thumb down."""

GOOD = frozenset({"success", "succeeded", "solved", "resolved", "passed", "pass", "good", "yes"})
BAD = frozenset({"failure", "failed", "unsolved", "unresolved", "fail", "bad", "no"})
"""What an outcome may say in words."""


def opinion(kind: str, value: Json, scale: Json, bad_outcomes: Sequence[str]) -> float | None:
    """Say how good an answer was found, from -1 (as bad as can be) to 1; ``None`` if that's unsaid.

    Args:
        kind: ``thumb``, ``rating``, ``regenerate`` or ``outcome``; no other kind has an opinion.
        value: As the feedback has it.
        scale: ``[lowest, highest]`` of a rating.
        bad_outcomes: Names of outcomes that mean failure when they are true.
    """
    match kind:
        case "thumb":
            return {"up": 1.0, "down": -1.0}.get(str(value))
        case "rating":
            return rating(value, scale)
        case "regenerate":
            return -1.0
        case "outcome":
            return outcome(value, bad_outcomes)
        case _:
            return None


def rating(value: Json, scale: Json) -> float | None:
    """Place a rating between the ends of its scale."""
    match scale:
        case [int() | float() as low, int() | float() as high] if low < high:
            if isinstance(value, int | float) and low <= value <= high:
                return 2 * (value - low) / (high - low) - 1
            return None
        case _:
            return None


def outcome(value: Json, bad_outcomes: Sequence[str]) -> float | None:
    """Read an outcome: yes or no, a known word, or a number from 0 to 1; others have no scale."""
    match value:
        case {"name": str(name), "value": reached}:
            position = _reached(reached)
        case _:
            return None
    turned = name.strip().lower() in {bad.lower() for bad in bad_outcomes}
    return -position if turned and position is not None else position


def is_said(position: float) -> bool:
    """Tell whether an opinion is good or bad rather than in between."""
    return abs(position) >= NEUTRAL


def weight(kind: str, position: float) -> float:
    """Say how much an opinion counts, at most 1: a rating by its distance from the middle."""
    return REGENERATED if kind == "regenerate" else max(NEUTRAL, abs(position))


def _reached(reached: Json) -> float | None:
    match reached:
        case bool():
            return 1.0 if reached else -1.0
        case int() | float() if 0 <= reached <= 1:
            return 2 * reached - 1
        case str() if reached.strip().lower() in GOOD:
            return 1.0
        case str() if reached.strip().lower() in BAD:
            return -1.0
        case _:
            return None
