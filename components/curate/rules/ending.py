"""Object to answers that are none, or end before their end."""

from components.curate.candidate import Candidate


def empty_answer(candidate: Candidate) -> str | None:
    """Object to answers that neither say nor call anything."""
    answer = candidate.answer
    return None if answer.text.strip() or answer.calls else "neither text nor call"


def cut_off(candidate: Candidate) -> str | None:
    """Find answers that ended at a limit or a filter."""
    reason = candidate.finish_reason
    return reason if reason in ("length", "content_filter") else None
