"""Object to answers that people disliked."""

from components.curate.candidate import Candidate


def thumbs_down(candidate: Candidate) -> str | None:
    """Object to answers that somebody disliked, unless somebody said what is right."""
    disliked = candidate.thumbs_down and not candidate.is_corrected
    return f"by {candidate.thumbs_down}" if disliked else None
