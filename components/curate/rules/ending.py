"""Object to answers that are none, or end before their end."""

from components.curate.candidate import Candidate


def empty_answer(candidate: Candidate) -> str | None:
    """Object to answers that neither say nor call anything."""
    answer = candidate.answer()
    return None if answer.text.strip() or answer.calls else "empty_answer"


def cut_off(candidate: Candidate) -> str | None:
    """Object to answers that ended at a limit or a filter: they teach to stop in mid-sentence."""
    return "cut_off" if candidate.finish_reason in ("length", "content_filter") else None
