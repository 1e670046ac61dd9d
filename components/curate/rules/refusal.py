"""Find answers that do nothing but refuse."""

from components import refusing
from components.curate.candidate import Candidate


def refusal(candidate: Candidate) -> str | None:
    """Find answers that as a whole refuse, saying nothing of what was asked.

    No answer where tools are offered is one: to say that none of them fits is what is to be learned
    there. What a person wrote as the right answer is right.
    """
    if candidate.tools or candidate.answer.calls or candidate.is_corrected:
        return None
    return refusing.found(candidate.answer.text)
