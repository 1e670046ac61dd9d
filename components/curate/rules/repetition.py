"""Find answers in which the model got caught in a loop."""

from components.curate.candidate import Candidate

TIMES, SHORTEST = 4, 160
"""A loop says the same at least four times in a row, in at least 160 characters."""

LONGEST_UNIT = 1_000
STRIDE, CHUNK = 60, 24
"""Whatever its unit, a loop is so long that a chunk at one of these strides is in it twice."""


def repetition(candidate: Candidate) -> str | None:
    """Find text that says the same over and over with nothing in between."""
    text = candidate.answer.text
    if len(text) < SHORTEST or candidate.is_corrected:
        return None
    for start in range(0, len(text) - CHUNK, STRIDE):
        again = text.find(text[start : start + CHUNK], start + 1, start + LONGEST_UNIT + CHUNK)
        if again > 0 and (times := _times(text, start, again - start)):
            return f"{again - start} characters {times} times"
    return None


def _times(text: str, start: int, unit: int) -> int:
    """Count how often what lies around ``start`` follows itself; 0 if that is no loop."""
    if not any(character.isalpha() for character in text[start : start + unit]):
        return 0  # rows of dashes, numbers and dots are set like that on purpose
    first, last = start, start
    while first > 0 and text[first - 1] == text[first - 1 + unit]:
        first -= 1
    while last + unit < len(text) and text[last] == text[last + unit]:
        last += 1
    length = last + unit - first
    return length // unit if length >= max(SHORTEST, TIMES * unit) else 0
