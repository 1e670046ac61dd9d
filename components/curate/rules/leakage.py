"""Find answers that give the system message away."""

from components.curate.candidate import Candidate

SPAN = 240
"""Characters in a row that are no coincidence: about forty words."""


def prompt_leak(candidate: Candidate) -> str | None:
    """Find answers that repeat a long span of the system message word by word.

    Every such span of the answer holds one of its chunks of half the length whole, so only these
    are looked up.
    """
    answer = _plain(candidate.answer.text)
    if len(answer) < SPAN or candidate.is_corrected:
        return None
    system = "\n".join(_plain(text) for text in candidate.said("system", "developer"))
    if len(system) < SPAN:
        return None
    half = SPAN // 2
    for start in range(0, len(answer) - half + 1, half):
        if (found := system.find(answer[start : start + half])) >= 0:
            length = _common(answer, system, start, found)
            if length >= SPAN:
                return f"{length} characters"
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _common(answer: str, system: str, start: int, found: int) -> int:
    """Measure the span that both have in common around a place in each."""
    before = after = 0
    while before < min(start, found) and answer[start - before - 1] == system[found - before - 1]:
        before += 1
    limit = min(len(answer) - start, len(system) - found)
    while after < limit and answer[start + after] == system[found + after]:
        after += 1
    return before + after
